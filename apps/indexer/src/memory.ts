import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { totalmem } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const psTimeoutMs = 2_000;

/** Memory that this machine, or the container around this process, has. Bytes. */
export function physicalMemoryBytes(): number {
  const constrained = process.constrainedMemory();
  const total = totalmem();
  return constrained > 0 && constrained < total ? constrained : total;
}

/** Resident bytes of a process; undefined where it is gone or cannot be read. */
export async function residentBytes(pid: number): Promise<number | undefined> {
  try {
    if (process.platform === "linux") return parseResident(await readFile(`/proc/${pid}/status`, "latin1"));
    const { stdout } = await run("ps", ["-o", "rss=", "-p", String(pid)], { timeout: psTimeoutMs });
    const kib = Number.parseInt(stdout, 10);
    return Number.isFinite(kib) ? kib * 1024 : undefined;
  } catch {
    return undefined;
  }
}

/** `VmRSS` of a /proc/<pid>/status text. Kilobytes there, whatever the machine's page size. */
export function parseResident(status: string): number | undefined {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(status);
  return match ? Number(match[1]) * 1024 : undefined;
}

/**
 * How many processes of our memory cgroup the kernel has killed for want of memory. A rise while a build ran tells its
 * SIGKILL from anybody else's. Undefined where no cgroup tells: none limits memory, or version 1 of a kernel before 4.13.
 */
export async function cgroupOomKills(): Promise<number | undefined> {
  try {
    const [membership, mounts] = await Promise.all([
      readFile("/proc/self/cgroup", "utf8"),
      readFile("/proc/self/mountinfo", "utf8"),
    ]);
    for (const file of oomKillFiles(membership, mounts)) {
      const text = await readFile(file, "utf8").catch(() => undefined);
      if (text !== undefined) return parseOomKills(text);
    }
  } catch {
    // No Linux, or no /proc.
  }
  return undefined;
}

/** `oom_kill` of a memory.events (cgroup version 2) or memory.oom_control (version 1). */
export function parseOomKills(text: string): number | undefined {
  const kills = /^oom_kill (\d+)$/m.exec(text);
  return kills ? Number(kills[1]) : undefined;
}

/**
 * Files that may count this process' OOM kills, likeliest first, by its /proc/self/cgroup and /proc/self/mountinfo. Memory
 * is controlled by version 1 where that has a hierarchy for it, else by version 2.
 */
export function oomKillFiles(membership: string, mountinfo: string): string[] {
  const group = memoryGroup(membership);
  const mount = group && cgroupMount(mountinfo, group.version);
  if (!mount) return [];
  const file = group.version === 1 ? "memory.oom_control" : "memory.events";
  // A container may see its group's path on the host and a mount that begins at it, or elsewhere: then the mount is all it has.
  const inside = relativeTo(mount.root, group.path);
  const folders = inside === undefined ? [mount.point] : [join(mount.point, inside), mount.point];
  return [...new Set(folders.map((folder) => join(folder, file)))];
}

function memoryGroup(membership: string): { version: 1 | 2; path: string } | undefined {
  let unified: string | undefined;
  for (const line of membership.split("\n")) {
    const [, hierarchy, controllers, path] = /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    if (controllers?.split(",").includes("memory")) return { version: 1, path };
    if (hierarchy === "0" && controllers === "") unified = path;
  }
  return unified === undefined ? undefined : { version: 2, path: unified };
}

/** Where the hierarchy is mounted that controls memory, and which of its groups lies there. */
function cgroupMount(mountinfo: string, version: 1 | 2): { root: string; point: string } | undefined {
  for (const line of mountinfo.split("\n")) {
    const [place = "", type = ""] = line.split(" - ");
    const [, , , root, point] = place.split(" ");
    const [kind, , options = ""] = type.split(" ");
    if (root === undefined || point === undefined) continue;
    const fits =
      version === 2 ? kind === "cgroup2" : kind === "cgroup" && options.split(",").includes("memory");
    if (fits) return { root: unescaped(root), point: unescaped(point) };
  }
  return undefined;
}

/** The kernel writes blanks of paths in octal. */
const unescaped = (text: string) =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

function relativeTo(root: string, path: string): string | undefined {
  if (path.split("/").includes("..")) return undefined;
  if (root === "/") return path;
  return path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : undefined;
}
