import { buildPhases, type Task } from "@lim/contracts";
import type { Log, TaskStore } from "@lim/coordination";
import type { IndexStorage } from "@lim/index-storage";
import { createDispatcher, type DispatchDeps, type Dispatcher, isPublished } from "./dispatching.ts";
import type { IndexerClient } from "./indexer-client.ts";
import { createIndexerWatch, type IndexerSources, type IndexerWatch, originsToAsk } from "./indexer-watch.ts";
import { managerLimits } from "./limits.ts";
import type { ManagerMetrics } from "./metrics.ts";
import {
  countSilence,
  holderOf,
  isBuilding,
  type Observed,
  type ObservedIndexer,
  reconcile,
  reportedBuilds,
  silenceKey,
  voiceOf,
} from "./reconcile.ts";

export { observeIndexers } from "./indexer-watch.ts";

export interface LookupDeps extends DispatchDeps, IndexerSources {
  store: TaskStore;
  storage: IndexStorage;
  client: IndexerClient;
}

/** What one master remembers between lookups, besides its watch and its dispatcher. All of it may be lost. */
interface Memory {
  /** `<task>/<attempt>` → lookups without a word about it. */
  silent: ReadonlyMap<string, number>;
  /** Origin → whether it answered last, so that only changes are logged; undefined while it has been late only. */
  answering: ReadonlyMap<string, boolean | undefined>;
}

export interface Lookup {
  once(): Promise<void>;
}

/** The control loop of one leadership: compares what is recorded with what is observed and acts on the difference. */
export function createLookup(deps: LookupDeps, leadership: { epoch: number; signal: AbortSignal }): Lookup {
  const { signal } = leadership;
  const memory: Memory = { silent: new Map(), answering: new Map() };
  const watch = createIndexerWatch(deps.client, signal);
  const dispatcher = createDispatcher(deps, leadership, watch);
  return {
    async once() {
      const stopTimer = deps.metrics.lookupDuration.startTimer();
      const observed = await observe(deps, memory, { watch, dispatcher, signal });
      const running = new Map(observed.indexing.map((task) => [task.task_id, task]));
      for (const action of reconcile(observed)) {
        if (signal.aborted) return;
        await dispatcher.apply(action, "taskId" in action ? running.get(action.taskId) : undefined);
      }
      stopTimer();
    },
  };
}

async function observe(
  deps: LookupDeps,
  memory: Memory,
  by: { watch: IndexerWatch; dispatcher: Dispatcher; signal: AbortSignal },
): Promise<Observed> {
  const { store, metrics } = deps;
  const { watch, dispatcher, signal } = by;
  const { origins, known } = await originsToAsk(deps, await store.indexing({ signal }), signal);
  const indexers = (await watch.look(origins)).map((one) => ({
    ...one,
    known: known.has(one.origin),
    avoid: dispatcher.avoids(one.origin),
  }));
  signal.throwIfAborted();
  // Records are read after the indexers were asked, so they are the newer word.
  const [indexing, ready] = await Promise.all([
    store.indexing({ signal }),
    store.ready({ signal, limit: managerLimits.queueWindow }),
  ]);
  const published = new Set<string>();
  const removed = new Set<string>();
  await lookIntoStorage(deps, { indexing, indexers, published, removed }, signal);
  const otherRecords = await recordsOfOthers(deps, { indexing, indexers, removed }, signal);
  noteAnswers(deps.log, memory, indexers);
  setGauges(metrics, indexers, { ...ready, indexing });
  memory.silent = countSilence(memory.silent, indexing, indexers);
  const silentLookups = new Map(
    indexing.map((task) => [task.task_id, memory.silent.get(silenceKey(task)) ?? 0]),
  );
  return {
    indexers,
    indexing,
    queue: ready.tasks,
    otherRecords,
    published,
    removed,
    silentLookups,
    nowMs: await deps.nowMs(signal),
  };
}

/** Which running tasks that nobody builds have their index published, or were removed. */
async function lookIntoStorage(
  deps: LookupDeps,
  seen: {
    indexing: readonly Task[];
    indexers: readonly ObservedIndexer[];
    published: Set<string>;
    removed: Set<string>;
  },
  signal: AbortSignal,
): Promise<void> {
  for (const task of seen.indexing) {
    const state = voiceOf(task, seen.indexers);
    if (state ? isBuilding(task, state) : holderOf(task, seen.indexers)?.late) continue;
    if (await isPublished(deps, task, signal)) seen.published.add(task.task_id);
    else if (await deps.storage.isMarkedRemoved({ indexId: task.task_id, signal }))
      seen.removed.add(task.task_id);
  }
}

/** Records of tasks that indexers report to build and that do not run; notes those that were removed. */
async function recordsOfOthers(
  { store, storage }: LookupDeps,
  seen: { indexing: readonly Task[]; indexers: readonly ObservedIndexer[]; removed: Set<string> },
  signal: AbortSignal,
): Promise<Map<string, Task>> {
  const records = new Map<string, Task>();
  const running = new Set(seen.indexing.map((task) => task.task_id));
  for (const taskId of new Set(reportedBuilds(seen.indexers).map((build) => build.taskId))) {
    if (running.has(taskId)) continue;
    // Who removes a task takes the record first and marks second; in between Redis refuses the adoption (task_adopt.lua).
    const record = await store.get(taskId, { signal });
    if (record) records.set(taskId, record);
    else if (await storage.isMarkedRemoved({ indexId: taskId, signal })) seen.removed.add(taskId);
  }
  return records;
}

function noteAnswers(log: Log, memory: Memory, indexers: readonly ObservedIndexer[]): void {
  const before = memory.answering;
  const after = new Map(
    indexers.map(({ origin, state, late }) => [origin, late ? before.get(origin) : state !== undefined]),
  );
  memory.answering = after;
  for (const [origin, answers] of after) {
    if (answers === undefined || before.get(origin) === answers) continue;
    if (answers) log.info({ indexer: origin }, "indexer answers");
    else
      log.warn(
        { indexer: origin },
        "indexer does not answer: is it reachable at its registered origin, with the same LIM_API_TOKEN?",
      );
  }
  for (const origin of before.keys())
    if (!after.has(origin)) log.info({ indexer: origin }, "indexer is no longer registered");
}

const indexerStates = ["idle", "building", "draining", "late", "silent"] as const;

/** Every label's value each time, so that none goes stale. */
function setGauges(
  metrics: ManagerMetrics,
  indexers: readonly ObservedIndexer[],
  tasks: { queued: number; waiting: number; oldestWaitMs: number; indexing: readonly Task[] },
): void {
  metrics.queued.set(tasks.queued);
  metrics.waiting.set(tasks.waiting);
  metrics.oldestQueued.set(tasks.oldestWaitMs / 1000);
  metrics.indexing.set(tasks.indexing.length);
  const phases = Map.groupBy(tasks.indexing, ({ progress }) => progress?.phase ?? "unknown");
  for (const phase of [...buildPhases, "unknown"] as const)
    metrics.indexingPhases.set({ phase }, phases.get(phase)?.length ?? 0);
  const stateOf = ({ state, late }: ObservedIndexer) => state?.state ?? (late ? "late" : "silent");
  for (const name of indexerStates)
    metrics.indexers.set({ state: name }, indexers.filter((one) => stateOf(one) === name).length);
}

/** Once a leadership has ended: a replaced master must not go on exporting its last view of things. */
export function clearMasterGauges(metrics: ManagerMetrics): void {
  const { queued, waiting, oldestQueued, indexing, indexers, planLists, deadLetters, missingLists } = metrics;
  for (const gauge of [queued, waiting, oldestQueued, indexing, deadLetters, missingLists]) gauge.reset();
  for (const gauge of [indexers, planLists, metrics.indexingPhases]) gauge.reset();
  metrics.indexBehind.reset();
}
