import {
  type BuildRequest,
  isLimError,
  LimError,
  limits,
  type SkippedCounts,
  type Task,
} from "@lim/contracts";
import type { Log, Refusal, TaskStore } from "@lim/coordination";
import type { IndexStorage } from "@lim/index-storage";
import { requestIdOf } from "@lim/service-kit";
import type { IndexerClient } from "./indexer-client.ts";
import type { IndexerWatch } from "./indexer-watch.ts";
import { managerLimits } from "./limits.ts";
import type { ManagerMetrics } from "./metrics.ts";
import type { Action, RequeueCause } from "./reconcile.ts";

export interface DispatchDeps {
  store: Pick<TaskStore, "get" | "dispatch" | "progress" | "finish" | "requeue" | "adopt">;
  storage: Pick<IndexStorage, "find">;
  client: Pick<IndexerClient, "build" | "stop">;
  metrics: ManagerMetrics;
  log: Log;
  /** What every build is told besides its task. */
  build: Pick<BuildRequest, "engine" | "params" | "descriptor_version" | "dim">;
  /** Pause before a second attempt; doubled for each further one, up to `limits.maxRetryBackoffMs`. */
  retryBackoffMs: number;
  /** Redis' clock, by which tasks are created and started. */
  nowMs: (signal: AbortSignal) => Promise<number>;
}

interface Leadership {
  epoch: number;
  signal: AbortSignal;
}

/** Carries out what a lookup decided: transitions at once, commands to indexers without waiting for their answers. */
export interface Dispatcher {
  /** `running`: the task that the action speaks of, as recorded, where it has a running one. */
  apply(action: Action, running: Task | undefined): Promise<void>;
  /** Whether the indexer refused or failed a dispatch moments ago. */
  avoids(origin: string): boolean;
}

/** One leadership's. What it remembers may be lost: it only spaces tries and counts them fairly. */
interface Context extends DispatchDeps, Leadership {
  watch: Pick<IndexerWatch, "command">;
  /** Task → attempts that cost it nothing: refused, or handed back by an indexer that shut down. */
  spared: Map<string, number>;
  /** Origin → until when it gets no dispatch, by performance.now(). */
  avoidUntilMs: Map<string, number>;
}

export function createDispatcher(
  deps: DispatchDeps,
  { epoch, signal }: Leadership,
  watch: Pick<IndexerWatch, "command">,
): Dispatcher {
  const context: Context = { ...deps, epoch, signal, watch, spared: new Map(), avoidUntilMs: new Map() };
  const { avoidUntilMs } = context;
  return {
    apply: (action, running) => apply(context, action, running),
    avoids(origin) {
      const untilMs = avoidUntilMs.get(origin);
      if (untilMs === undefined) return false;
      if (untilMs <= performance.now()) avoidUntilMs.delete(origin);
      return untilMs > performance.now();
    },
  };
}

async function apply(context: Context, action: Action, running: Task | undefined): Promise<void> {
  const { store, epoch, signal } = context;
  switch (action.kind) {
    case "progress": {
      const { taskId, attempt, progress } = action;
      judge(context, action, await store.progress({ taskId, attempt, epoch, progress }, { signal }));
      return;
    }
    case "finish":
      return finish(context, action, running);
    case "requeue": {
      if (!(await requeue(context, action))) return;
      if (running) noteBuild(context.metrics, running, "lost", await nowText(context));
      return;
    }
    case "adopt":
      return adopt(context, action);
    case "stop":
      stopBuild(context, action, action.why);
      return;
    case "dispatch":
      return dispatch(context, action);
    default:
      action satisfies never;
  }
}

/** Whether it was carried out. A refusal means that somebody newer has spoken: it is logged and nothing else ends. */
function judge(
  { log, metrics }: Context,
  action: { kind: string; taskId: string },
  result: { ok: true } | { ok: false; refusal: Refusal },
): boolean {
  if (result.ok) metrics.taskTransitions.inc({ transition: action.kind });
  else {
    metrics.refusals.inc({ transition: action.kind, refusal: result.refusal });
    log.warn(
      { transition: action.kind, task_id: action.taskId, refusal: result.refusal },
      "a stale word was refused",
    );
  }
  return result.ok;
}

async function finish(
  context: Context,
  action: Extract<Action, { kind: "finish" }>,
  running: Task | undefined,
): Promise<void> {
  const { store, metrics, log, epoch, signal } = context;
  const { taskId, attempt, error, endTime } = action;
  const skipped = error ? action.skipped : await skippedOf(context, taskId);
  const finished = await store.finish({ taskId, attempt, epoch, error, endTime, skipped }, { signal });
  if (!judge(context, action, finished)) return;
  context.spared.delete(taskId);
  metrics.endedTasks.inc({ status: error ? "error" : "success" });
  if (error) metrics.taskErrors.inc({ error_code: error.error_code });
  if (running) noteBuild(metrics, running, error ? "error" : "success", endTime);
  log.info({ task_id: taskId, attempt, error }, error ? "task failed" : "task succeeded");
}

const nowText = async ({ nowMs, signal }: Context) => new Date(await nowMs(signal)).toISOString();

/** What a published index left out; null where it is gone already or cannot be read: its task succeeded all the same. */
async function skippedOf({ storage, signal }: Context, taskId: string): Promise<SkippedCounts | null> {
  try {
    return (await storage.find({ indexId: taskId, signal }))?.meta.build.skipped ?? null;
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    return null;
  }
}

/** The start is by Redis' clock, the end maybe by the indexer's: where these differ a little, none is negative. */
function noteBuild(
  metrics: ManagerMetrics,
  { mode, start_time }: Task,
  result: "success" | "error" | "lost",
  endTime: string,
): void {
  metrics.builds.inc({ mode, result });
  if (start_time === null) return;
  const seconds = Math.max(0, Date.parse(endTime) - Date.parse(start_time)) / 1000;
  metrics.buildDuration.observe({ mode, result }, seconds);
}

/**
 * Pause before another attempt after this one, milliseconds: doubled with each attempt that cost the task one. What an
 * indexer refused or handed back tells nothing against the task, which waits for a free indexer only.
 */
export function retryDelayMs(
  cause: RequeueCause | "refused",
  { attempt, spared, retryBackoffMs }: { attempt: number; spared: number; retryBackoffMs: number },
): number {
  if (cause === "refused" || cause === "handed back") return 0;
  const failures = Math.max(1, attempt - spared);
  return Math.min(retryBackoffMs * 2 ** (failures - 1), limits.maxRetryBackoffMs);
}

async function requeue(
  context: Context,
  requeued: Omit<Extract<Action, { kind: "requeue" }>, "cause"> & { cause: RequeueCause | "refused" },
): Promise<boolean> {
  const { store, metrics, log, epoch, signal, retryBackoffMs } = context;
  const { taskId, attempt, reason, cause } = requeued;
  const sparing = cause === "refused" || cause === "handed back" ? 1 : 0;
  // Attempts that tell nothing against the task are given back, within their own limit.
  const spared = Math.min((context.spared.get(taskId) ?? 0) + sparing, managerLimits.maxRefusedDispatches);
  const maxAttempts = limits.maxTaskAttempts + spared;
  const delayMs = retryDelayMs(cause, { attempt, spared, retryBackoffMs });
  const result = await store.requeue({ taskId, attempt, epoch, reason, maxAttempts, delayMs }, { signal });
  if (!judge(context, requeued, result) || !result.ok) return false;
  remember(context.spared, taskId, result.status === "error" ? 0 : spared);
  if (result.status === "error") {
    metrics.endedTasks.inc({ status: "error" });
    metrics.taskErrors.inc({ error_code: new LimError("attempts_exhausted", "").code });
  }
  log.warn(
    { task_id: taskId, attempt, reason, cause, delay_ms: delayMs, status: result.status },
    result.status === "error" ? "build was given up" : "build will be tried again",
  );
  return true;
}

/** Removed tasks leave their count behind: past the limit the oldest are forgotten. */
function remember(spared: Map<string, number>, taskId: string, count: number): void {
  spared.delete(taskId);
  if (count === 0) return;
  spared.set(taskId, count);
  const [oldest] = spared.keys();
  if (spared.size > managerLimits.maxSparedTasks && oldest !== undefined) spared.delete(oldest);
}

async function adopt(context: Context, action: Extract<Action, { kind: "adopt" }>): Promise<void> {
  const { store, log, epoch, signal } = context;
  const { taskId, listId, mode, attempt, origin, startTime } = action;
  const result = await store.adopt(
    { taskId, listId, mode, attempt, indexer: origin, startTime, epoch },
    { signal },
  );
  if (judge(context, action, result))
    log.info(
      { task_id: taskId, list_id: listId, attempt, indexer: origin },
      "adopted a build whose record was lost",
    );
  else if (!result.ok && result.refusal !== "stale_epoch" && !(await store.get(taskId, { signal })))
    // No record and still refused: it was removed while it ran, or the label's other open task came first.
    stopBuild(context, action, "its record is gone and its label has another task, or it was removed");
}

async function dispatch(context: Context, action: Extract<Action, { kind: "dispatch" }>): Promise<void> {
  const { store, metrics, log, epoch, signal } = context;
  const { task, origin } = action;
  const taskId = task.task_id;
  const recorded = await store.dispatch({ taskId, indexer: origin, epoch }, { signal });
  if (!judge(context, { kind: "dispatch", taskId }, recorded) || !recorded.ok) return;
  const { attempt } = recorded;
  // An attempt before, of an indexer that was given up, may have come to its end after all.
  if (attempt > 1 && (await isPublished(context, task, signal))) {
    const endTime = await nowText(context);
    const done = { kind: "finish" as const, taskId, attempt, error: null, endTime, skipped: null };
    return finish(context, done, undefined);
  }
  const waitedMs = (await context.nowMs(signal)) - Date.parse(task.create_time);
  if (attempt === 1) metrics.queueWait.observe(Math.max(0, waitedMs) / 1000);
  const listId = task.content.list_id;
  const request = { task_id: taskId, list_id: listId, attempt, epoch, mode: task.mode, ...context.build };
  context.watch.command(origin, async () => {
    try {
      await send(context, origin, request);
    } catch (thrown) {
      // The record says indexing: the next lookups see what came of it.
      if (!signal.aborted) log.error({ task_id: taskId, indexer: origin, err: thrown }, "dispatch failed");
    }
  });
}

async function send(context: Context, origin: string, request: BuildRequest): Promise<void> {
  const { client, log, signal } = context;
  const { task_id: taskId, list_id, attempt } = request;
  const requestId = requestIdOf(undefined);
  const result = await client.build(origin, request, signal, requestId);
  if (signal.aborted) return;
  if (result.sent) {
    log.info(
      { task_id: taskId, list_id, attempt, indexer: origin, luna_request_id: requestId },
      "task dispatched",
    );
    return;
  }
  context.avoidUntilMs.set(origin, performance.now() + managerLimits.avoidIndexerMs);
  log.warn(
    { task_id: taskId, attempt, indexer: origin, luna_request_id: requestId, err: result.error },
    "indexer did not take the task",
  );
  // Without a clear answer it may be building all the same: the next lookups see.
  if (!result.certain) return;
  const reason = result.error.toBody();
  await requeue(context, { kind: "requeue", taskId, attempt, reason, cause: "refused" });
}

/** Not waited for: a stop that is refused or lost is told again by the next lookup that sees the build. */
function stopBuild(
  { client, log, watch, epoch, signal }: Context,
  build: { taskId: string; attempt: number; origin: string },
  why: string,
): void {
  const { taskId, attempt, origin } = build;
  const requestId = requestIdOf(undefined);
  const fields = { task_id: taskId, attempt, indexer: origin, why, luna_request_id: requestId };
  watch.command(origin, async () => {
    const result = await client.stop(origin, { task_id: taskId, attempt, epoch }, signal, requestId);
    if (signal.aborted) return;
    if (result.sent) log.info(fields, "told an indexer to stop a build that nobody waits for");
    else log.warn({ ...fields, err: result.error }, "a build that nobody waits for was not stopped");
  });
}

/** Whether the task's index is in the storage. One that is not readable is logged and counts as not there. */
export async function isPublished(
  { storage, log }: Pick<DispatchDeps, "storage" | "log">,
  task: Task,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const label = task.content.list_id;
    return (await storage.find({ indexId: task.task_id, label, signal })) !== undefined;
  } catch (thrown) {
    if (!isLimError(thrown, "index_refused")) throw thrown;
    log.error({ task_id: task.task_id, err: thrown }, "the index of a running task is not readable");
    return false;
  }
}
