import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { processIdentity } from "./process-identity.ts";

/**
 * Children of one run, by recorded process id: `record` writes them to `dir`, `reapLeftovers` ends what an earlier
 * run that was killed left behind (checked by start time, so a reused id is never hit), newest first.
 */
export interface ProcessLedger {
  /** `stopSignal` asks the process to end (default SIGTERM). A process that is gone already is not recorded. */
  record(entry: { pid: number; name: string; stopSignal?: NodeJS.Signals }): Promise<void>;
  forget(pid: number): Promise<void>;
}

interface Entry {
  pid: number;
  name: string;
  identity: string;
  stopSignal: NodeJS.Signals;
  ownerPid: number;
  ownerIdentity: string;
  recordedAtMs: number;
}

/** How long a leftover may take to end when asked, unless the caller says otherwise; then it is killed. */
const defaultGraceMs = 5_000;
/** How long the kernel may take to remove a killed process. */
const killLimitMs = 5_000;
const pollMs = 25;

const folderOf = (dir: string) => join(dir, "processes");

/** One file per process, written by rename: no read-modify-write that a second run or a kill could tear. */
export async function openProcessLedger(dir: string): Promise<ProcessLedger> {
  const folder = folderOf(dir);
  await mkdir(folder, { recursive: true });
  const ownerIdentity = (await processIdentity(process.pid)) ?? "";
  return {
    async record({ pid, name, stopSignal = "SIGTERM" }) {
      const identity = await processIdentity(pid);
      if (identity === undefined) return;
      const entry: Entry = {
        pid,
        name,
        identity,
        stopSignal,
        ownerPid: process.pid,
        ownerIdentity,
        recordedAtMs: performance.timeOrigin + performance.now(),
      };
      const path = join(folder, `${pid}.json`);
      const draft = `${path}.${process.pid}.draft`;
      await writeFile(draft, JSON.stringify(entry));
      await rename(draft, path);
    },
    async forget(pid) {
      await rm(join(folder, `${pid}.json`), { force: true });
    },
  };
}

/** Ends recorded processes whose owner is dead; resolves with those that were still running. Default grace 5 s each. */
export async function reapLeftovers(
  dir: string,
  options: { graceMs?: number } = {},
): Promise<{ pid: number; name: string }[]> {
  const { graceMs = defaultGraceMs } = options;
  const folder = folderOf(dir);
  const reaped: { pid: number; name: string }[] = [];
  for (const { path, entry } of (await readEntries(folder)).toSorted(
    (a, b) => b.entry.recordedAtMs - a.entry.recordedAtMs,
  )) {
    if ((await processIdentity(entry.ownerPid)) === entry.ownerIdentity) continue;
    if (await endLeftover(entry, graceMs)) reaped.push({ pid: entry.pid, name: entry.name });
    await rm(path, { force: true });
  }
  return reaped;
}

async function readEntries(folder: string): Promise<{ path: string; entry: Entry }[]> {
  const names = await readdir(folder).catch(() => []);
  const found: { path: string; entry: Entry }[] = [];
  for (const name of names.filter((candidate) => candidate.endsWith(".json"))) {
    const path = join(folder, name);
    const entry = await readFile(path, "utf8").then(parseEntry, () => undefined);
    if (entry) found.push({ path, entry });
  }
  return found;
}

function parseEntry(text: string): Entry | undefined {
  try {
    const entry = JSON.parse(text) as Partial<Entry>;
    const whole =
      Number.isSafeInteger(entry.pid) &&
      Number(entry.pid) > 1 &&
      Number.isSafeInteger(entry.ownerPid) &&
      typeof entry.identity === "string" &&
      entry.identity !== "" &&
      typeof entry.ownerIdentity === "string" &&
      typeof entry.stopSignal === "string" &&
      typeof entry.name === "string" &&
      typeof entry.recordedAtMs === "number";
    return whole ? (entry as Entry) : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the process was still the recorded one. Asks, then kills; every signal follows a look at the identity. */
async function endLeftover(entry: Entry, graceMs: number): Promise<boolean> {
  const runs = async () => (await processIdentity(entry.pid)) === entry.identity;
  if (!(await runs())) return false;
  for (const [signal, limitMs] of [
    [entry.stopSignal, graceMs],
    ["SIGKILL", killLimitMs],
  ] as const) {
    try {
      process.kill(entry.pid, signal);
    } catch {
      // It ended between the look and the signal, or belongs to someone else by now.
    }
    const deadline = performance.now() + limitMs;
    while (performance.now() < deadline) {
      if (!(await runs())) return true;
      await sleep(pollMs);
    }
  }
  return true;
}
