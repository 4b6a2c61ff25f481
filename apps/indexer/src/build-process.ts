import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { LimError, limits, type Progress } from "@lim/contracts";
import { type BuildOrder, type BuildReport, buildReportSchema } from "./ipc.ts";
import { cgroupOomKills, residentBytes } from "./memory.ts";
import { inMib } from "./preflight.ts";

const memoryWatchMs = 250;
/** From SIGTERM to SIGKILL of a build that was cancelled. */
export const cancelGraceMs = 5_000;
/** From a build's last word to SIGKILL: its exit waits for threads in native code, and the service waits for it. */
const exitGraceMs = 10_000;
/** Once the process is gone, how long its pipes may stay open (another process may have inherited them). */
const pipesGraceMs = 2_000;
const stderrTailChars = 1_500;

export interface BuildEnd {
  report: (BuildReport & { type: "published" }) | undefined;
  /** Undefined where it published. */
  error: LimError | undefined;
  /** Most that was seen of its resident memory; 0 where it ended before the first look. */
  peakResidentBytes: number;
}

export interface RunningBuild {
  readonly pid: number | undefined;
  progress(): Progress | null;
  /** SIGTERM, then SIGKILL. Safe to repeat. */
  cancel(): void;
  /** Settles once the process is gone. Never rejects. */
  readonly ended: Promise<BuildEnd>;
}

const childModule = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "./build-child.ts" : "./build-child.js", import.meta.url),
);

/**
 * Runs one build in a process of its own, watches its memory, and names the way it ended. `parts` are for tests: the
 * module to run, and the milliseconds that the process may live on after its last word.
 */
export function startBuildProcess(
  order: BuildOrder,
  parts: { module?: string; exitGraceMs?: number } = {},
): RunningBuild {
  const child = fork(parts.module ?? childModule, [], {
    stdio: ["ignore", "inherit", "pipe", "ipc"],
    execArgv: [],
  });
  const seen: Seen = { progress: null, peakBytes: 0, stderr: "" };
  child.on("message", (message) => {
    const parsed = buildReportSchema.safeParse(message);
    if (!parsed.success) return;
    if (parsed.data.type === "progress") seen.progress = parsed.data.progress;
    else if (!seen.last) {
      seen.last = parsed.data;
      const timer = setTimeout(() => child.kill("SIGKILL"), parts.exitGraceMs ?? exitGraceMs);
      void gone.then(() => clearTimeout(timer));
    }
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    process.stderr.write(text);
    seen.stderr = (seen.stderr + text).slice(-stderrTailChars);
  });
  const gone = awaitEnd(child, seen);
  const watch = watchMemory(child, seen, order.memoryLimitBytes);
  const oomKillsBefore = cgroupOomKills();
  child.send(order, (error) => {
    // A child that died at once closes the channel: its exit tells more than this error would.
    if (error) child.kill("SIGKILL");
  });
  return {
    pid: child.pid,
    progress: () => seen.progress,
    cancel() {
      if (seen.cancelled) return;
      seen.cancelled = true;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), cancelGraceMs);
      void gone.then(() => clearTimeout(timer));
    },
    ended: gone.then(async () => {
      clearInterval(watch);
      const before = await oomKillsBefore;
      const after = await cgroupOomKills();
      if (before !== undefined && after !== undefined && after > before) seen.killedByKernel = true;
      return nameEnd(seen, order.memoryLimitBytes);
    }),
  };
}

export interface Seen {
  progress: Progress | null;
  peakBytes: number;
  stderr: string;
  last?: BuildReport;
  exit?: { code: number | null; signal: NodeJS.Signals | null };
  spawnError?: Error;
  cancelled?: boolean;
  killedForMemory?: boolean;
  killedByKernel?: boolean;
}

/** The outcome by what was seen, the surest sign first. */
export function nameEnd(seen: Seen, memoryLimitBytes: number): BuildEnd {
  const peakResidentBytes = seen.peakBytes;
  if (seen.last?.type === "published") return { report: seen.last, error: undefined, peakResidentBytes };
  const fail = (error: LimError): BuildEnd => ({ report: undefined, error, peakResidentBytes });
  const phase = seen.progress
    ? `in phase ${seen.progress.phase} at ${seen.progress.done} of ${seen.progress.total}`
    : "before its first progress";
  if (seen.killedForMemory)
    return fail(
      new LimError(
        "out_of_memory",
        `resident memory of the build reached ${inMib(seen.peakBytes)}, the limit is ${inMib(memoryLimitBytes)} ` +
          `(LIM_BUILD_MEMORY_LIMIT_MB), ${phase}`,
      ),
    );
  if (seen.cancelled) return fail(new LimError("build_cancelled", `cancelled ${phase}`));
  if (seen.last?.type === "failed") {
    const error = LimError.fromBody(seen.last.error);
    if (error.errorName !== "aborted") return fail(error);
    return fail(new LimError("build_crashed", `the build process was told to end by someone else, ${phase}`));
  }
  const how = seen.spawnError
    ? `could not be started: ${seen.spawnError.message}`
    : seen.exit?.signal
      ? `was killed by ${seen.exit.signal}`
      : `exited with code ${seen.exit?.code ?? "unknown"}`;
  const detail = `the build process ${how} ${phase}`;
  const tail = seen.stderr.trim();
  const withTail = (tail ? `${detail}; its last words: ${tail}` : detail).slice(
    0,
    limits.maxErrorDetailChars,
  );
  if (seen.killedByKernel && seen.exit?.signal === "SIGKILL")
    return fail(
      new LimError("out_of_memory", `the kernel killed the build process for want of memory, ${phase}`),
    );
  if (/heap out of memory|std::bad_alloc|Cannot allocate memory|allocation failed/i.test(tail))
    return fail(new LimError("out_of_memory", withTail));
  return fail(new LimError("build_crashed", withTail));
}

/** Resolves when the process is gone and all it sent was read. */
function awaitEnd(child: ChildProcess, seen: Seen): Promise<void> {
  return new Promise((resolve) => {
    child.once("close", () => resolve());
    child.once("exit", (code, signal) => {
      seen.exit = { code, signal };
      setTimeout(resolve, pipesGraceMs).unref();
    });
    child.on("error", (error) => {
      if (child.pid !== undefined) return;
      seen.spawnError = error;
      resolve();
    });
  });
}

function watchMemory(child: ChildProcess, seen: Seen, limitBytes: number): NodeJS.Timeout {
  let reading = false;
  return setInterval(async () => {
    if (reading || child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    reading = true;
    const bytes = await residentBytes(child.pid);
    reading = false;
    if (bytes === undefined) return;
    seen.peakBytes = Math.max(seen.peakBytes, bytes);
    if (bytes <= limitBytes || seen.killedForMemory || seen.last) return;
    seen.killedForMemory = true;
    child.kill("SIGKILL");
  }, memoryWatchMs);
}
