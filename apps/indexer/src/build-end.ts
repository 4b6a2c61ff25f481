import { LimError, limits, type Progress } from "@lim/contracts";
import type { BuildReport, PublishedReport } from "./ipc.ts";
import { inMib } from "./preflight.ts";

export interface BuildEnd {
  report: PublishedReport | undefined;
  /** Undefined where it published. */
  error: LimError | undefined;
  /** Most that was seen of the resident memory of one of its processes; 0 where it ended before the first look. */
  peakResidentBytes: number;
}

/** The processes of a build, one after the other: the second verifies and publishes what the first one saved. */
export type BuildStage = "build" | "publish";

/** What was seen of a build; `last`, `exit`, `stderr` and `spawnError` of its latest process. */
export interface Seen {
  stage?: BuildStage;
  progress: Progress | null;
  /** Of one process. */
  peakBytes: number;
  /** Of each process, as they passed the limit together. */
  residentBytes?: Partial<Record<BuildStage, number>>;
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
  const error = seen.killedForMemory ? overLimit(seen, memoryLimitBytes) : errorOf(seen);
  return { report: undefined, error, peakResidentBytes };
}

function phaseOf({ progress }: Seen): string {
  return progress
    ? `in phase ${progress.phase} at ${progress.done} of ${progress.total}`
    : "before its first progress";
}

function overLimit(seen: Seen, memoryLimitBytes: number): LimError {
  const { build = 0, publish = 0 } = seen.residentBytes ?? { build: seen.peakBytes };
  return new LimError(
    "out_of_memory",
    `resident memory of the build reached ${inMib(build + publish)}, the limit is ${inMib(memoryLimitBytes)} ` +
      `(LIM_BUILD_MEMORY_LIMIT_MB; of it the build process ${inMib(build)}, the publish process ${inMib(publish)}), ` +
      phaseOf(seen),
  );
}

function errorOf(seen: Seen): LimError {
  const phase = phaseOf(seen);
  const stage = seen.stage ?? "build";
  if (seen.cancelled) return new LimError("build_cancelled", `cancelled ${phase}`);
  if (seen.last?.type === "failed") {
    const error = LimError.fromBody(seen.last.error);
    if (error.errorName !== "aborted") return error;
    return new LimError("build_crashed", `the ${stage} process was told to end by someone else, ${phase}`);
  }
  const how = seen.spawnError
    ? `could not be started: ${seen.spawnError.message}`
    : seen.exit?.signal
      ? `was killed by ${seen.exit.signal}`
      : `exited with code ${seen.exit?.code ?? "unknown"}`;
  const detail = `the ${stage} process ${how} ${phase}`;
  const tail = seen.stderr.trim();
  const withTail = (tail ? `${detail}; its last words: ${tail}` : detail).slice(
    0,
    limits.maxErrorDetailChars,
  );
  if (seen.killedByKernel && seen.exit?.signal === "SIGKILL")
    return new LimError(
      "out_of_memory",
      `the kernel killed the ${stage} process for want of memory, ${phase}`,
    );
  if (/out of memory|not enough memory|std::bad_alloc|cannot allocate memory|allocation failed/i.test(tail))
    return new LimError("out_of_memory", withTail);
  return new LimError("build_crashed", withTail);
}
