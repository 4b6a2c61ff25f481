import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { totalmem } from "node:os";
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
 * How many processes of our cgroup the kernel has killed for want of memory. A rise while a build ran tells its
 * SIGKILL from anybody else's. Undefined where there is no cgroup v2.
 */
export async function cgroupOomKills(): Promise<number | undefined> {
  try {
    const membership = /^0::(.*)$/m.exec(await readFile("/proc/self/cgroup", "utf8"));
    if (!membership) return undefined;
    const events = await readFile(`/sys/fs/cgroup${membership[1]}/memory.events`, "utf8");
    const kills = /^oom_kill (\d+)$/m.exec(events);
    return kills ? Number(kills[1]) : undefined;
  } catch {
    return undefined;
  }
}
