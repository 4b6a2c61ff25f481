import {
  type BuildOutcome,
  type BuildRequest,
  type IndexerState,
  LimError,
  limits,
  maxReportedOutcomes,
  type Progress,
  type stopRequestSchema,
} from "@lim/contracts";
import type { z } from "zod";
import type { BuildEnd } from "./build-process.ts";

export type StopRequest = z.infer<typeof stopRequestSchema>;

/** A running build as this state machine sees it. */
export interface Build {
  progress(): Progress | null;
  cancel(): void;
  readonly ended: Promise<BuildEnd>;
}

export interface BuildSummary extends BuildEnd {
  request: BuildRequest;
  durationMs: number;
}

export interface Indexer {
  state(): IndexerState;
  /**
   * Begins the build, or does nothing where this very attempt runs or has ended here.
   * Throws indexer_busy (another build, or draining) and fenced (stale epoch or attempt).
   */
  submit(request: BuildRequest): void;
  /** Cancels the running build. Throws not_found where it is not the one named, fenced on a stale epoch. */
  stop(request: StopRequest): void;
  /** Takes no more builds. Waits for the running one, cancels it at `timeoutMs`, and returns when it is gone. */
  drain(options: { timeoutMs: number }): Promise<void>;
}

interface Current {
  request: BuildRequest;
  startTime: Date;
  build: Build;
  /** Settles once the build is gone, cleaned up after, and its outcome is reported. */
  settled: Promise<void>;
}

/** Holds at most one build (I3) and refuses stale masters and attempts (I4). */
export function createIndexer(options: {
  bootId: string;
  startBuild: (request: BuildRequest) => Build;
  /** Called between a build's end and its outcome: cleans up, and may find that it succeeded after all. Never rejects. */
  afterBuild: (request: BuildRequest, end: BuildEnd) => Promise<BuildEnd>;
  onEnd: (summary: BuildSummary) => void;
  now: () => Date;
}): Indexer {
  let current: Current | undefined;
  let draining = false;
  let highestEpoch = 0;
  let outcomes: BuildOutcome[] = [];

  const fence = (epoch: number) => {
    if (epoch < highestEpoch)
      throw new LimError("fenced", `epoch ${epoch} is older than ${highestEpoch}, which was seen here`);
    highestEpoch = epoch;
  };

  const run = async (request: BuildRequest, build: Build, startTime: Date) => {
    const end = await options.afterBuild(request, await build.ended);
    const endTime = options.now();
    outcomes = [toOutcome(request, end, endTime), ...outcomes].slice(0, maxReportedOutcomes);
    current = undefined;
    options.onEnd({ ...end, request, durationMs: endTime.getTime() - startTime.getTime() });
  };

  return {
    state: () => ({
      boot_id: options.bootId,
      state: draining ? "draining" : current ? "building" : "idle",
      task_id: current?.request.task_id ?? null,
      list_id: current?.request.list_id ?? null,
      attempt: current?.request.attempt ?? null,
      mode: current?.request.mode ?? null,
      start_time: current?.startTime.toISOString() ?? null,
      progress: current?.build.progress() ?? null,
      outcomes,
    }),
    submit(request) {
      fence(request.epoch);
      const seen = [...(current ? [current.request] : []), ...outcomes].filter(
        ({ task_id }) => task_id === request.task_id,
      );
      if (seen.some(({ attempt }) => attempt === request.attempt)) return;
      const newer = seen.find(({ attempt }) => attempt > request.attempt);
      if (newer)
        throw new LimError("fenced", `attempt ${request.attempt} is older than ${newer.attempt}, seen here`);
      if (current)
        throw new LimError(
          "indexer_busy",
          `building task ${current.request.task_id}, attempt ${current.request.attempt}`,
        );
      if (draining)
        throw new LimError("indexer_busy", "the indexer is shutting down and takes no more builds");
      const startTime = options.now();
      const build = options.startBuild(request);
      const started: Current = { request, startTime, build, settled: Promise.resolve() };
      current = started;
      started.settled = run(request, build, startTime);
    },
    stop(request) {
      fence(request.epoch);
      const running = current?.request;
      if (!current || running?.task_id !== request.task_id || running.attempt !== request.attempt)
        throw new LimError(
          "not_found",
          `attempt ${request.attempt} of task ${request.task_id} is not running`,
        );
      current.build.cancel();
    },
    async drain({ timeoutMs }) {
      draining = true;
      if (!current) return;
      const { build, settled } = current;
      const timer = setTimeout(() => build.cancel(), timeoutMs);
      await settled;
      clearTimeout(timer);
    },
  };
}

function toOutcome(request: BuildRequest, end: BuildEnd, endTime: Date): BuildOutcome {
  const body = end.error?.toBody();
  return {
    task_id: request.task_id,
    list_id: request.list_id,
    attempt: request.attempt,
    status: body ? "error" : "success",
    error: body ? { ...body, detail: body.detail.slice(0, limits.maxErrorDetailChars) } : null,
    end_time: endTime.toISOString(),
    skipped: end.report?.skipped ?? null,
  };
}
