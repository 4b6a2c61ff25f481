import { type BuildRequest, LimError, limits, type Task } from "@lim/contracts";
import type { IndexerRegistry, Log, Refusal, TaskStore } from "@lim/coordination";
import type { IndexStorage } from "@lim/index-storage";
import { mapBounded } from "./concurrency.ts";
import type { IndexerClient } from "./indexer-client.ts";
import { managerLimits } from "./limits.ts";
import type { ManagerMetrics } from "./metrics.ts";
import {
  type Action,
  holderOf,
  isBuilding,
  isHeardOf,
  type Observed,
  type ObservedIndexer,
  reconcile,
  reportedBuilds,
} from "./reconcile.ts";

export interface LookupDeps {
  store: TaskStore;
  registry: IndexerRegistry;
  storage: IndexStorage;
  client: IndexerClient;
  metrics: ManagerMetrics;
  log: Log;
  staticOrigins: readonly string[];
  /** What every build is told besides its task. */
  build: Pick<BuildRequest, "engine" | "params" | "descriptor_version" | "dim">;
}

/** What one master remembers between lookups. All of it may be lost: it only spaces tries and counts them fairly. */
interface Memory {
  /** `<task>/<attempt>` → lookups in a row without a word about it. */
  silent: Map<string, number>;
  /** Task → dispatches that indexers refused. */
  refused: Map<string, number>;
  /** Origin → whether it answered last, so that only changes are logged. */
  answering: Map<string, boolean>;
  /** Origin → until when it gets no dispatch, by performance.now(). */
  avoidUntilMs: Map<string, number>;
}

export interface Lookup {
  once(): Promise<void>;
}

/** The control loop of one leadership: compares what is recorded with what is observed and acts on the difference. */
export function createLookup(deps: LookupDeps, leadership: { epoch: number; signal: AbortSignal }): Lookup {
  const memory: Memory = {
    silent: new Map(),
    refused: new Map(),
    answering: new Map(),
    avoidUntilMs: new Map(),
  };
  return {
    async once() {
      const observed = await observe(deps, memory, leadership.signal);
      for (const action of reconcile(observed)) {
        if (leadership.signal.aborted) return;
        await apply(deps, memory, leadership, action);
      }
    },
  };
}

/** Origins that register or are in the settings, and those that a running task names. */
export async function observeIndexers(
  deps: Pick<LookupDeps, "registry" | "client" | "staticOrigins">,
  indexing: readonly Task[],
  signal: AbortSignal,
): Promise<Omit<ObservedIndexer, "avoid">[]> {
  const known = new Set([...(await deps.registry.origins({ signal })), ...deps.staticOrigins]);
  const origins = new Set([...known, ...indexing.flatMap((task) => (task.indexer ? [task.indexer] : []))]);
  return mapBounded([...origins].toSorted(), managerLimits.parallelIndexerCalls, async (origin) => ({
    origin,
    known: known.has(origin),
    state: await deps.client.state(origin, signal),
  }));
}

async function observe(deps: LookupDeps, memory: Memory, signal: AbortSignal): Promise<Observed> {
  const { store, storage } = deps;
  const nowMs = performance.now();
  const holders = await store.indexing({ signal });
  const indexers = (await observeIndexers(deps, holders, signal)).map((one) => ({
    ...one,
    avoid: (memory.avoidUntilMs.get(one.origin) ?? 0) > nowMs,
  }));
  // Records are read after the indexers were asked: what was removed meanwhile then bears its mark already.
  const [indexing, { count, tasks: queue }] = await Promise.all([
    store.indexing({ signal }),
    store.queue({ signal, limit: managerLimits.queueWindow }),
  ]);
  const published = new Set<string>();
  const removed = new Set<string>();
  for (const task of indexing) {
    const state = holderOf(task, indexers)?.state;
    if (state && isBuilding(task, state)) continue;
    if (await isPublished(deps, task, signal)) published.add(task.task_id);
    else if (await storage.isMarkedRemoved({ indexId: task.task_id, signal })) removed.add(task.task_id);
  }
  const otherRecords = new Map<string, Task>();
  const open = new Set(indexing.map((task) => task.task_id));
  for (const { taskId } of reportedBuilds(indexers)) {
    if (open.has(taskId)) continue;
    // Who removes a task leaves the mark first and takes the record second, so they are asked the other way round.
    const record = await store.get(taskId, { signal });
    if (record) otherRecords.set(taskId, record);
    else if (await storage.isMarkedRemoved({ indexId: taskId, signal })) removed.add(taskId);
  }
  noteAnswers(deps.log, memory, indexers);
  setGauges(deps.metrics, indexers, count, indexing.length);
  forget(memory, new Set([...indexing, ...queue].map((task) => task.task_id)), nowMs);
  const silentLookups = countSilence(memory, indexing, indexers);
  return { indexers, indexing, queue, otherRecords, published, removed, silentLookups, nowMs: Date.now() };
}

async function isPublished(deps: LookupDeps, task: Task, signal: AbortSignal): Promise<boolean> {
  try {
    const label = task.content.list_id;
    return (await deps.storage.find({ indexId: task.task_id, label, signal })) !== undefined;
  } catch (thrown) {
    if (!(thrown instanceof LimError) || thrown.errorName !== "index_refused") throw thrown;
    deps.log.error({ task_id: task.task_id, err: thrown }, "the index of a running task is not readable");
    return false;
  }
}

/** Drops what is remembered of tasks that are no longer open and of indexers that may have work again. */
function forget(memory: Memory, open: ReadonlySet<string>, nowMs: number): void {
  for (const taskId of memory.refused.keys()) if (!open.has(taskId)) memory.refused.delete(taskId);
  for (const [origin, untilMs] of memory.avoidUntilMs)
    if (untilMs <= nowMs) memory.avoidUntilMs.delete(origin);
}

function countSilence(
  memory: Memory,
  indexing: readonly Task[],
  indexers: readonly ObservedIndexer[],
): Map<string, number> {
  const next = new Map<string, number>();
  const byTask = new Map<string, number>();
  for (const task of indexing) {
    if (isHeardOf(task, indexers)) continue;
    const key = `${task.task_id}/${task.attempt}`;
    const lookups = (memory.silent.get(key) ?? 0) + 1;
    next.set(key, lookups);
    byTask.set(task.task_id, lookups);
  }
  memory.silent = next;
  return byTask;
}

function noteAnswers(log: Log, memory: Memory, indexers: readonly ObservedIndexer[]): void {
  const before = memory.answering;
  memory.answering = new Map(indexers.map(({ origin, state }) => [origin, state !== undefined]));
  for (const [origin, answers] of memory.answering) {
    if (before.get(origin) === answers) continue;
    if (answers) log.info({ indexer: origin }, "indexer answers");
    else log.warn({ indexer: origin }, "indexer does not answer: is it reachable at its registered origin?");
  }
  for (const origin of before.keys())
    if (!memory.answering.has(origin)) log.info({ indexer: origin }, "indexer is no longer registered");
}

function setGauges(
  metrics: ManagerMetrics,
  indexers: readonly ObservedIndexer[],
  queued: number,
  indexing: number,
): void {
  metrics.queued.set(queued);
  metrics.indexing.set(indexing);
  for (const name of ["idle", "building", "draining", "silent"] as const)
    metrics.indexers.set(
      { state: name },
      indexers.filter(({ state }) => (state?.state ?? "silent") === name).length,
    );
}

async function apply(
  deps: LookupDeps,
  memory: Memory,
  { epoch, signal }: { epoch: number; signal: AbortSignal },
  action: Action,
): Promise<void> {
  const { store, log } = deps;
  switch (action.kind) {
    case "progress": {
      const { taskId, attempt, progress } = action;
      judge(deps, action, await store.progress({ taskId, attempt, epoch, progress }, { signal }));
      return;
    }
    case "finish": {
      const { taskId, attempt, error, endTime } = action;
      const result = await store.finish({ taskId, attempt, epoch, error, endTime }, { signal });
      if (!judge(deps, action, result)) return;
      if (error) deps.metrics.taskErrors.inc({ error_code: error.error_code });
      log.info({ task_id: taskId, attempt, error }, error ? "task failed" : "task succeeded");
      return;
    }
    case "requeue":
      await requeue(deps, memory, epoch, action, signal);
      return;
    case "adopt": {
      const { taskId, listId, mode, attempt, origin, startTime } = action;
      const result = await store.adopt(
        { taskId, listId, mode, attempt, indexer: origin, startTime, epoch },
        { signal },
      );
      if (judge(deps, action, result))
        log.info(
          { task_id: taskId, list_id: listId, attempt, indexer: origin },
          "adopted a build whose record was lost",
        );
      else if (!result.ok && result.refusal !== "stale_epoch" && !(await store.get(taskId, { signal })))
        // No record and still refused: the label has another open task, which came first.
        await stopBuild(deps, epoch, action, signal);
      return;
    }
    case "stop":
      await stopBuild(deps, epoch, action, signal);
      return;
    case "dispatch":
      await dispatch(deps, memory, epoch, action, signal);
      return;
    default:
      action satisfies never;
  }
}

/** Whether it was carried out. A refusal means that somebody newer has spoken: it is logged and nothing else ends. */
function judge(
  { log, metrics }: LookupDeps,
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

async function requeue(
  deps: LookupDeps,
  memory: Memory,
  epoch: number,
  action: Extract<Action, { kind: "requeue" }>,
  signal: AbortSignal,
): Promise<void> {
  const { taskId, attempt, reason } = action;
  // Attempts that never began, because the indexer refused, are given back within their own limit.
  const maxAttempts = limits.maxTaskAttempts + (memory.refused.get(taskId) ?? 0);
  const result = await deps.store.requeue({ taskId, attempt, epoch, reason, maxAttempts }, { signal });
  if (!judge(deps, action, result) || !result.ok) return;
  if (result.status === "error")
    deps.metrics.taskErrors.inc({ error_code: new LimError("attempts_exhausted", "").code });
  deps.log.warn({ task_id: taskId, attempt, reason, status: result.status }, "build was lost");
}

async function dispatch(
  deps: LookupDeps,
  memory: Memory,
  epoch: number,
  action: Extract<Action, { kind: "dispatch" }>,
  signal: AbortSignal,
): Promise<void> {
  const { task, origin } = action;
  const taskId = task.task_id;
  const recorded = await deps.store.dispatch({ taskId, indexer: origin, epoch }, { signal });
  if (!judge(deps, { kind: "dispatch", taskId }, recorded) || !recorded.ok) return;
  const { attempt } = recorded;
  const request: BuildRequest = {
    task_id: taskId,
    list_id: task.content.list_id,
    attempt,
    epoch,
    mode: task.mode,
    ...deps.build,
  };
  const result = await deps.client.build(origin, request, signal);
  if (result.sent) {
    deps.log.info({ task_id: taskId, list_id: request.list_id, attempt, indexer: origin }, "task dispatched");
    return;
  }
  memory.avoidUntilMs.set(origin, performance.now() + managerLimits.avoidIndexerMs);
  deps.log.warn({ task_id: taskId, indexer: origin, err: result.error }, "indexer did not take the task");
  // Without an answer it may be building all the same: the next lookups see.
  if (!result.certain) return;
  const refused = Math.min((memory.refused.get(taskId) ?? 0) + 1, managerLimits.maxRefusedDispatches);
  memory.refused.set(taskId, refused);
  await requeue(
    deps,
    memory,
    epoch,
    { kind: "requeue", taskId, attempt, reason: result.error.toBody() },
    signal,
  );
}

async function stopBuild(
  deps: LookupDeps,
  epoch: number,
  build: { taskId: string; attempt: number; origin: string },
  signal: AbortSignal,
): Promise<void> {
  const { taskId, attempt, origin } = build;
  const result = await deps.client.stop(origin, { task_id: taskId, attempt, epoch }, signal);
  const fields = { task_id: taskId, attempt, indexer: origin };
  if (result.sent) deps.log.info(fields, "told an indexer to stop a build that nobody waits for");
  else deps.log.warn({ ...fields, err: result.error }, "a build that nobody waits for was not stopped");
}
