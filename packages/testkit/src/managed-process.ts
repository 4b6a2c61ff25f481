import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export interface ManagedProcess {
  readonly name: string;
  readonly pid: number;
  /** What it wrote to standard output and error so far, line by line; of very much, the last `maxLines`. */
  readonly lines: readonly string[];
  /** Resolves with the first line (past or future) that matches; rejects when it ends or timeoutMs pass without one. */
  waitForLine(pattern: RegExp, options: { timeoutMs: number }): Promise<string>;
  kill(signal: NodeJS.Signals): void;
  /** Exit code or signal. */
  readonly exited: Promise<number | NodeJS.Signals>;
  /** SIGTERM, then SIGKILL after graceMs (default 10 s). */
  stop(options?: { graceMs?: number }): Promise<void>;
}

/** Lines kept of one process. */
const maxLines = 20_000;
/** Lines quoted in an error. */
const quotedLines = 20;

const running = new Set<() => void>();
let exitHookSet = false;

/** A test process that ends takes its children along. */
function setExitHook(): void {
  if (exitHookSet) return;
  exitHookSet = true;
  process.on("exit", () => {
    for (const kill of running) kill();
  });
}

interface LineWaiter {
  offer(line: string): void;
  giveUp(reason: string): void;
}

/** Runs a module under this Node. `env` is added to this process's environment. */
export function startProcess(options: {
  name: string;
  /** Module to run under this Node. */
  script: string;
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Flags for Node itself. */
  nodeArgs?: readonly string[];
  cwd?: string;
}): ManagedProcess {
  setExitHook();
  const { name } = options;
  const child = spawn(
    process.execPath,
    [...(options.nodeArgs ?? []), options.script, ...(options.args ?? [])],
    {
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
      // A session of its own: Ctrl-C in a terminal reaches who started it, and that one decides.
      detached: true,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    },
  );
  const { pid } = child;
  if (pid === undefined) throw new Error(`${name} could not be started: ${process.execPath}`);
  const killNow = () => {
    child.kill("SIGKILL");
  };
  running.add(killNow);

  const lines: string[] = [];
  const waiters = new Set<LineWaiter>();
  const take = (line: string) => {
    lines.push(line);
    if (lines.length > maxLines) lines.splice(0, lines.length - maxLines);
    for (const waiter of [...waiters]) waiter.offer(line);
  };
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on("line", take);

  let ended: number | NodeJS.Signals | undefined;
  const exited = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once("exit", (code, signal) => {
      ended = signal ?? code ?? 0;
      running.delete(killNow);
      resolve(ended);
    });
    // Unlike exit, close comes after the last line.
    child.once("close", () => {
      for (const waiter of [...waiters]) waiter.giveUp(`it ended with ${ended}`);
    });
  });
  return {
    name,
    pid,
    lines,
    exited,
    kill: (signal) => {
      child.kill(signal);
    },
    waitForLine: (pattern, { timeoutMs }) => waitForLine({ name, lines, waiters, child, pattern, timeoutMs }),
    async stop({ graceMs = 10_000 } = {}) {
      if (ended !== undefined) return;
      child.kill("SIGTERM");
      const timer = setTimeout(killNow, graceMs);
      await exited;
      clearTimeout(timer);
    },
  };
}

function waitForLine(options: {
  name: string;
  lines: readonly string[];
  waiters: Set<LineWaiter>;
  child: { exitCode: number | null; signalCode: string | null; stdout: { closed: boolean } };
  pattern: RegExp;
  timeoutMs: number;
}): Promise<string> {
  const { name, lines, waiters, child, timeoutMs } = options;
  // A global or sticky pattern keeps a position between calls.
  const pattern = new RegExp(options.pattern.source, options.pattern.flags.replace(/[gy]/g, ""));
  const past = lines.find((line) => pattern.test(line));
  if (past !== undefined) return Promise.resolve(past);
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void) => {
      clearTimeout(timer);
      waiters.delete(waiter);
      finish();
    };
    const waiter: LineWaiter = {
      offer: (line) => {
        if (pattern.test(line)) settle(() => resolve(line));
      },
      giveUp: (reason) =>
        settle(() => {
          const end = lines.slice(-quotedLines).join("\n");
          reject(new Error(`${name} wrote no line like ${pattern}: ${reason}; its last lines:\n${end}`));
        }),
    };
    const timer = setTimeout(() => waiter.giveUp(`${timeoutMs} ms passed`), timeoutMs);
    waiters.add(waiter);
    const isOver = (child.exitCode !== null || child.signalCode !== null) && child.stdout.closed;
    if (isOver) waiter.giveUp(`it ended with ${child.signalCode ?? child.exitCode}`);
  });
}
