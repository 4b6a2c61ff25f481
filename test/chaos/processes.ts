import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { promisify } from "node:util";

/** A process that is told from a later one with its id. */
export interface SeenProcess {
  readonly pid: number;
  /** Its start, in the units of the system. */
  readonly started: string;
  readonly commandLine: string;
}

interface Row {
  pid: number;
  parent: number;
  state: string;
  started: string;
}

const run = promisify(execFile);
const psTimeoutMs = 5_000;
const isLinux = process.platform === "linux";

async function readRow(pid: number): Promise<Row | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => undefined);
  if (text === undefined) return undefined;
  // The name in parentheses may hold spaces and parentheses of its own.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { pid, state: fields[0] ?? "", parent: Number(fields[1]), started: fields[19] ?? "" };
}

async function commandLineOf(pid: number): Promise<string> {
  const text = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return text.replaceAll("\0", " ").trim();
}

/** Processes that `ps` knows, where there is no /proc. */
async function psRows(): Promise<(Row & { commandLine: string })[]> {
  const { stdout } = await run("ps", ["-A", "-o", "pid=,ppid=,state=,lstart=,command="], {
    timeout: psTimeoutMs,
  });
  return stdout.split("\n").flatMap((line) => {
    const match = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(\S+\s+\S+\s+\S+\s+\S+\s+\S+)\s+(.*)$/.exec(line);
    if (!match) return [];
    const [, pid, parent, state = "", started = "", commandLine = ""] = match;
    return [{ pid: Number(pid), parent: Number(parent), state, started, commandLine }];
  });
}

async function linuxChildren(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "latin1").catch(() => undefined);
  if (text !== undefined) return text.split(" ").map(Number).filter(Boolean);
  if ((await readRow(pid)) === undefined) return [];
  const names = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const rows = await Promise.all(names.map((name) => readRow(Number(name))));
  return rows.filter((row) => row?.parent === pid).map((row) => row?.pid ?? 0);
}

/** Living children, the oldest first. */
export async function childrenOf(parent: number): Promise<SeenProcess[]> {
  if (!isLinux) {
    const rows = await psRows();
    return rows.filter((row) => row.parent === parent && !row.state.startsWith("Z"));
  }
  const children: SeenProcess[] = [];
  for (const pid of await linuxChildren(parent)) {
    const row = await readRow(pid);
    if (!row || row.state === "Z" || row.parent !== parent) continue;
    children.push({ pid, started: row.started, commandLine: await commandLineOf(pid) });
  }
  return children.toSorted((a, b) => Number(a.started) - Number(b.started) || a.pid - b.pid);
}

/** One that ended and was not yet waited for by its parent does not live. */
export async function isAlive({ pid, started }: SeenProcess): Promise<boolean> {
  const row = isLinux ? await readRow(pid) : (await psRows()).find((one) => one.pid === pid);
  return row !== undefined && row.started === started && !row.state.startsWith("Z");
}

/** Sends it to this very process; false where it was gone. */
export async function signalProcess(target: SeenProcess, signal: NodeJS.Signals): Promise<boolean> {
  if (!(await isAlive(target))) return false;
  try {
    return process.kill(target.pid, signal);
  } catch {
    return false;
  }
}

/** Living processes whose environment holds `NAME=value`; undefined where the system does not tell. */
export async function processesMarked(mark: string): Promise<SeenProcess[] | undefined> {
  if (!isLinux) return undefined;
  const found: SeenProcess[] = [];
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
    if (!environment.split("\0").includes(mark)) continue;
    const row = await readRow(pid);
    if (row && row.state !== "Z")
      found.push({ pid, started: row.started, commandLine: await commandLineOf(pid) });
  }
  return found;
}

/** Resident MiB; undefined where it is gone or the system does not tell. */
export async function residentMiB(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1];
  return kib === undefined ? undefined : Math.round(Number(kib) / 1024);
}
