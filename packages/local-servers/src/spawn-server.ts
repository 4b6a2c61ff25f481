import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { open, rename, stat } from "node:fs/promises";
import { LimError } from "@lim/contracts";
import type { ProcessLedger } from "./ledger.ts";

export interface ServerSpec {
  name: string;
  command: string;
  args: readonly string[];
  cwd: string;
  /** Appended to; holds standard output and error. */
  logPath: string;
  env?: Readonly<Record<string, string>>;
  account?: { uid: number; gid: number } | undefined;
  /** Asked in this order to end, each with its limit; SIGKILL follows. */
  stopSignals: readonly { signal: NodeJS.Signals; limitMs: number }[];
}

export interface ServerProcess {
  readonly pid: number;
  /** Why it ended; undefined while it runs. */
  ended(): string | undefined;
  stop(): Promise<void>;
}

const running = new Set<{ child: ChildProcess; signal: NodeJS.Signals }>();
let exitHookSet = false;

/** A process that ends without stopping its servers takes them along (a killed one cannot: the ledger is for that). */
function setExitHook(): void {
  if (exitHookSet) return;
  exitHookSet = true;
  process.on("exit", () => {
    for (const { child, signal } of running) child.kill(signal);
  });
}

/** Starts a server in a session of its own, so that Ctrl-C at the terminal reaches it only through its owner's order. */
export async function spawnServer(spec: ServerSpec, ledger: ProcessLedger): Promise<ServerProcess> {
  setExitHook();
  if ((await logSize(spec.logPath)) > maxLogBytes) await rename(spec.logPath, `${spec.logPath}.old`);
  const log = openSync(spec.logPath, "a", 0o600);
  let child: ChildProcess;
  try {
    child = spawn(spec.command, spec.args, {
      cwd: spec.cwd,
      env: { PATH: process.env.PATH ?? "", LC_ALL: "C", ...spec.env },
      stdio: ["ignore", log, log],
      detached: true,
      ...spec.account,
    });
  } finally {
    closeSync(log);
  }
  let reason: string | undefined;
  const signal = spec.stopSignals[0]?.signal ?? "SIGTERM";
  const member = { child, signal };
  const gone = new Promise<void>((resolve) => {
    const end = (why: string) => {
      reason ??= why;
      running.delete(member);
      resolve();
    };
    child.once("error", (error) => end(error.message));
    child.once("exit", (code, by) => end(by === null ? `exit code ${code}` : `killed by ${by}`));
  });
  const pid = child.pid;
  if (pid === undefined) {
    await gone;
    throw new Error(`${spec.command} could not be started: ${reason}`);
  }
  running.add(member);
  child.unref();
  await ledger.record({ pid, name: spec.name, stopSignal: signal });
  return {
    pid,
    ended: () => reason,
    async stop() {
      child.ref();
      for (const step of [...spec.stopSignals, { signal: "SIGKILL" as const, limitMs: killLimitMs }]) {
        if (reason !== undefined) break;
        child.kill(step.signal);
        await within(gone, step.limitMs);
      }
      if (reason === undefined) throw new Error(`${spec.name} (process ${pid}) does not end`);
      await ledger.forget(pid);
    },
  };
}

const killLimitMs = 10_000;
/** A log that is longer at the next start is set aside; one older log is kept. */
const maxLogBytes = 10_000_000;

async function within(gone: Promise<void>, limitMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, limitMs);
  });
  await Promise.race([gone, limit]);
  clearTimeout(timer);
}

/** Throws aborted; the starters look here wherever they wait. */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw new LimError("aborted", `${what} was cancelled while starting`);
}

/** Longest piece of a log that an error carries. */
const tailBytes = 4_096;

/** The end of a log, from byte `start` at the earliest; empty where there is none. */
export async function logTail(path: string, start = 0): Promise<string> {
  const file = await open(path, "r").catch(() => undefined);
  if (!file) return "";
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.max(0, Math.min(size - start, tailBytes)));
    await file.read(buffer, 0, buffer.length, size - buffer.length);
    return buffer.toString("utf8").trim();
  } finally {
    await file.close();
  }
}

export const logSize = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );
