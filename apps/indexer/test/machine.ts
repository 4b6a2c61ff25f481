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

const cgroupRoot = "/sys/fs/cgroup";

/** A cgroup (version 2) of limited memory without swap. */
export async function makeMemoryCgroup(
  limitBytes: number,
): Promise<Made<{ add(pid: number): Promise<void>; remove(): Promise<void> }>> {
  const path = join(cgroupRoot, `lim-test-${randomUUID()}`);
  try {
    const controllers = await readFile(join(cgroupRoot, "cgroup.controllers"), "utf8");
    if (!/\bmemory\b/.test(controllers)) return { reason: "no memory controller in cgroup version 2" };
    await mkdir(path);
  } catch (error) {
    return { reason: `no cgroup of version 2 can be made: ${reasonOf(error)}` };
  }
  try {
    await writeFile(join(path, "memory.max"), String(limitBytes));
    await writeFile(join(path, "memory.swap.max"), "0").catch(() => undefined);
  } catch (error) {
    await rmdir(path);
    return { reason: `memory of a cgroup cannot be limited: ${reasonOf(error)}` };
  }
  return {
    made: {
      add: (pid) => writeFile(join(path, "cgroup.procs"), String(pid)),
      remove: () => rmdir(path),
    },
  };
}

export const removeFile = (path: string) => rm(path, { force: true });
