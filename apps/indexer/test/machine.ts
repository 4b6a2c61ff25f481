import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdir, readFile, rm, rmdir, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const commandTimeoutMs = 10_000;

/** What a test made of the machine, or why this machine does not let it. */
export type Made<T> = { made: T } | { reason: string };

const reasonOf = (error: unknown) =>
  error instanceof Error ? (error.message.split("\n")[0] ?? "") : "unknown";

/** A file system of its own in memory. `unmount` takes it away, also under processes that still have it open. */
export async function mountTmpfs(
  path: string,
  sizeBytes: number,
): Promise<Made<{ unmount(): Promise<void> }>> {
  if (process.platform !== "linux") return { reason: "only Linux has tmpfs" };
  await mkdir(path, { recursive: true });
  try {
    await run("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes}`, "tmpfs", path], {
      timeout: commandTimeoutMs,
    });
  } catch (error) {
    return { reason: `a tmpfs cannot be mounted: ${reasonOf(error)}` };
  }
  return {
    made: {
      async unmount() {
        await run("umount", ["-l", path], { timeout: commandTimeoutMs });
      },
    },
  };
}

/** Writes a file that leaves `leftBytes` free; returns its path. */
export async function fillDisk(folder: string, leftBytes: number): Promise<string> {
  const { bavail, bsize } = await statfs(folder);
  const path = join(folder, `.ballast-${randomUUID()}`);
  await writeFile(path, Buffer.alloc(Math.max(0, bavail * bsize - leftBytes)));
  return path;
}

/**
 * From now on the process gets at most `moreBytes` of new private memory: its allocations fail, as on a machine that
 * has no more. (Address space is no measure here, WebAssembly reserves much of it.)
 */
export async function limitData(pid: number, moreBytes: number): Promise<Made<true>> {
  try {
    const held = /^VmData:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, "latin1"));
    const limitBytes = Number(held?.[1]) * 1024 + moreBytes;
    await run("prlimit", ["--pid", String(pid), `--data=${limitBytes}`], { timeout: commandTimeoutMs });
    return { made: true };
  } catch (error) {
    return { reason: `memory of a process cannot be limited: ${reasonOf(error)}` };
  }
}

/** Of all processes of its cgroup the kernel kills this one first. */
export const killFirst = (pid: number) => writeFile(`/proc/${pid}/oom_score_adj`, "1000");

export interface MemoryCgroup {
  /** Moves a process there, with its children. */
  add(pid: number): Promise<void>;
  /** From now on its processes get at most `moreBytes` of new memory, and no swap. */
  limit(moreBytes: number): Promise<void>;
  remove(): Promise<void>;
}

const cgroupRoot = "/sys/fs/cgroup";
/** Files of a cgroup, and how its memory.stat calls what cannot be dropped. */
const files = {
  v1: { limit: "memory.limit_in_bytes", noSwap: "memory.swappiness", held: /^rss (\d+)$/m },
  v2: { limit: "memory.max", noSwap: "memory.swap.max", held: /^anon (\d+)$/m },
};

/** Where a memory cgroup can be made on this machine. */
async function memoryHierarchy(): Promise<Made<{ root: string; version: keyof typeof files }>> {
  const controllers = await readFile(join(cgroupRoot, "cgroup.controllers"), "utf8").catch(() => "");
  if (/\bmemory\b/.test(controllers)) return { made: { root: cgroupRoot, version: "v2" } };
  const root = join(cgroupRoot, "memory");
  const control = await readFile(join(root, "memory.oom_control"), "utf8").catch(() => "");
  if (/^oom_kill /m.test(control)) return { made: { root, version: "v1" } };
  return { reason: `no cgroup that counts OOM kills${control ? ": the kernel is older than 4.13" : ""}` };
}

/** A cgroup of memory without a limit, for now. */
export async function makeMemoryCgroup(): Promise<Made<MemoryCgroup>> {
  const hierarchy = await memoryHierarchy();
  if ("reason" in hierarchy) return hierarchy;
  const { root, version } = hierarchy.made;
  const path = join(root, `lim-test-${randomUUID()}`);
  const write = (file: string, text: string) => writeFile(join(path, file), text);
  try {
    await mkdir(path);
    await write(files[version].limit, String(2 ** 40));
  } catch (error) {
    await rmdir(path).catch(() => undefined);
    return { reason: `no memory cgroup can be made: ${reasonOf(error)}` };
  }
  await write(files[version].noSwap, "0").catch(() => undefined);
  return {
    made: {
      async add(pid) {
        await write("cgroup.procs", String(pid));
        const children = await readFile(`/proc/${pid}/task/${pid}/children`, "latin1").catch(() => "");
        for (const child of children.split(" ").filter(Boolean)) await write("cgroup.procs", child);
      },
      async limit(moreBytes) {
        const held = files[version].held.exec(await readFile(join(path, "memory.stat"), "latin1"));
        await write(files[version].limit, String(Number(held?.[1]) + moreBytes));
      },
      remove: () => rmdir(path),
    },
  };
}

export const removeFile = (path: string) => rm(path, { force: true });
