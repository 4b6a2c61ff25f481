import {
  type BuildOutcome,
  type ErrorBody,
  type IndexerState,
  LimError,
  type Progress,
  type Task,
} from "@lim/contracts";

export interface ObservedIndexer {
  origin: string;
  /** Undefined where it gave no valid answer. */
  state: IndexerState | undefined;
  /** Registered, or in the settings: others are asked only because a task names them. */
  known: boolean;
  /** Refused or failed a dispatch moments ago: gets none for now. */
  avoid: boolean;
}

export interface Observed {
  indexers: readonly ObservedIndexer[];
  /** All tasks in status indexing. */
  indexing: readonly Task[];
  /** Pending tasks in dispatch order. */
  queue: readonly Task[];
  /** Records of tasks that indexers report to build and that are not in status indexing. */
  otherRecords: ReadonlyMap<string, Task>;
  /** Task ids whose index is in the storage. */
  published: ReadonlySet<string>;
  /** Task ids that were removed. */
  removed: ReadonlySet<string>;
  /** Task id → lookups in a row, this one included, in which no indexer said a word about its current attempt. */
  silentLookups: ReadonlyMap<string, number>;
  nowMs: number;
}

export type Action =
  | { kind: "progress"; taskId: string; attempt: number; progress: Progress }
  | { kind: "finish"; taskId: string; attempt: number; error: ErrorBody | null; endTime: string }
  | { kind: "requeue"; taskId: string; attempt: number; reason: ErrorBody }
  | {
      kind: "adopt";
      taskId: string;
      listId: string;
      attempt: number;
      origin: string;
      mode: Task["mode"];
      startTime: string;
    }
  | { kind: "stop"; taskId: string; attempt: number; origin: string }
  | { kind: "dispatch"; task: Task; origin: string };

/** Lookups without a word after which a build counts as lost. */
export const lostAfterSilentLookups = {
  /** Its indexer answers and does something else: one lookup of grace for a dispatch that is still on its way. */
  indexerAnswers: 2,
  /** Its indexer does not answer: it may be slow or cut off for a moment. */
  indexerSilent: 5,
} as const;

/** Failures of the surroundings, not of the build: another attempt may fare better. All others end the task. */
const transientCodes = new Set(
  (
    [
      "postgres_unavailable",
      "redis_unavailable",
      "storage_unavailable",
      "retry_transaction",
      "overloaded",
      "timeout",
      "aborted",
    ] as const
  ).map((name) => new LimError(name, "").code),
);
const cancelledCode = new LimError("build_cancelled", "").code;

/** A build that an indexer reports. */
interface Reported {
  origin: string;
  taskId: string;
  listId: string;
  attempt: number;
  state: IndexerState;
}

export function reportedBuilds(indexers: readonly Pick<ObservedIndexer, "origin" | "state">[]): Reported[] {
  return indexers.flatMap(({ origin, state }) =>
    state && state.task_id !== null && state.list_id !== null && state.attempt !== null
      ? [{ origin, taskId: state.task_id, listId: state.list_id, attempt: state.attempt, state }]
      : [],
  );
}

/** Whether its indexer builds, or reports an outcome of, the task's current attempt. */
export function isHeardOf(task: Task, indexers: readonly ObservedIndexer[]): boolean {
  const state = holderOf(task, indexers)?.state;
  return state !== undefined && (isBuilding(task, state) || outcomeOf(task, state) !== undefined);
}

export function isBuilding(task: Task, state: IndexerState): boolean {
  return state.task_id === task.task_id && state.attempt === task.attempt;
}

export function holderOf(task: Task, indexers: readonly ObservedIndexer[]): ObservedIndexer | undefined {
  return indexers.find(({ origin }) => origin === task.indexer);
}

function outcomeOf(task: Task, state: IndexerState): BuildOutcome | undefined {
  return state.outcomes.find((one) => one.task_id === task.task_id && one.attempt === task.attempt);
}

/** What to do so that the records say what is so, and free indexers have work. Pure. */
export function reconcile(observed: Observed): Action[] {
  const actions: Action[] = [];
  for (const task of observed.indexing) {
    const action = followTask(task, observed);
    if (action) actions.push(action);
  }
  actions.push(...judgeOtherBuilds(observed));
  actions.push(...dispatches(observed));
  return actions;
}

function followTask(task: Task, observed: Observed): Action | undefined {
  const at = { taskId: task.task_id, attempt: task.attempt };
  const state = holderOf(task, observed.indexers)?.state;
  const now = new Date(observed.nowMs).toISOString();
  if (state && isBuilding(task, state))
    return state.progress && !sameProgress(state.progress, task.progress)
      ? { kind: "progress", ...at, progress: state.progress }
      : undefined;
  const outcome = state && outcomeOf(task, state);
  // The storage has the last word, whatever became of the indexer that said so.
  if (observed.published.has(task.task_id))
    return { kind: "finish", ...at, error: null, endTime: outcome?.end_time ?? now };
  if (observed.removed.has(task.task_id))
    return {
      kind: "finish",
      ...at,
      error: errorBody("build_cancelled", "its index was removed"),
      endTime: now,
    };
  if (outcome?.error) return afterFailure(at, outcome, outcome.error, state?.state === "draining");
  if (outcome)
    return {
      kind: "requeue",
      ...at,
      reason: errorBody(
        "indexer_lost",
        `${task.indexer} reported success, but the storage has no such index`,
      ),
    };
  const silent = observed.silentLookups.get(task.task_id) ?? 0;
  if (silent < lostAfterSilentLookups[state ? "indexerAnswers" : "indexerSilent"]) return undefined;
  const what = state ? "no longer has the build (it restarted or never got it)" : "does not answer";
  return { kind: "requeue", ...at, reason: errorBody("indexer_lost", `${task.indexer} ${what}`) };
}

function afterFailure(
  at: { taskId: string; attempt: number },
  outcome: BuildOutcome,
  reported: NonNullable<BuildOutcome["error"]>,
  draining: boolean,
): Action {
  const { error_code, desc, detail } = reported;
  const error = { error_code, desc, detail };
  const shutDown = draining && error_code === cancelledCode;
  return transientCodes.has(error_code) || shutDown
    ? { kind: "requeue", ...at, reason: error }
    : { kind: "finish", ...at, error, endTime: outcome.end_time };
}

/** Builds that no record in status indexing stands for: adopted where their record was lost, else stopped. */
function judgeOtherBuilds(observed: Observed): Action[] {
  const current = new Map(observed.indexing.map((task) => [task.task_id, task]));
  const unknown = new Map<string, Reported>();
  const actions: Action[] = [];
  const stop = ({ taskId, attempt, origin }: Reported) =>
    actions.push({ kind: "stop", taskId, attempt, origin });
  for (const build of reportedBuilds(observed.indexers)) {
    const task = current.get(build.taskId);
    if (task) {
      if (task.attempt !== build.attempt || task.indexer !== build.origin) stop(build);
    } else if (observed.otherRecords.has(build.taskId) || observed.removed.has(build.taskId)) {
      stop(build);
    } else {
      // Two indexers with the same lost task: the later attempt is the one that counts.
      const rival = unknown.get(build.taskId);
      if (rival && rival.attempt >= build.attempt) stop(build);
      else {
        if (rival) stop(rival);
        unknown.set(build.taskId, build);
      }
    }
  }
  for (const build of unknown.values())
    actions.push({
      kind: "adopt",
      taskId: build.taskId,
      listId: build.listId,
      attempt: build.attempt,
      origin: build.origin,
      mode: build.state.mode ?? "rebuild",
      startTime: build.state.start_time ?? new Date(observed.nowMs).toISOString(),
    });
  return actions;
}

/** First come, first served, one build for each indexer that is free and not waited for. */
function dispatches(observed: Observed): Action[] {
  const heldBy = new Set(
    observed.indexing
      .filter((task) => {
        const state = holderOf(task, observed.indexers)?.state;
        return !state || outcomeOf(task, state) === undefined;
      })
      .map((task) => task.indexer),
  );
  const boots = new Set<string>();
  const free = observed.indexers.filter(({ origin, state, known, avoid }) => {
    if (state?.state !== "idle" || !known || avoid || heldBy.has(origin)) return false;
    // One indexer under two names (registered and in the settings) still takes one build.
    if (boots.has(state.boot_id)) return false;
    boots.add(state.boot_id);
    return true;
  });
  return observed.queue
    .slice(0, free.length)
    .map((task, i) => ({ kind: "dispatch", task, origin: (free[i] as ObservedIndexer).origin }));
}

function sameProgress(a: Progress, b: Progress | null): boolean {
  return (
    b !== null &&
    a.phase === b.phase &&
    a.done === b.done &&
    a.total === b.total &&
    a.rate_per_s === b.rate_per_s &&
    a.eta_s === b.eta_s
  );
}

function errorBody(...args: ConstructorParameters<typeof LimError>): ErrorBody {
  return new LimError(...args).toBody();
}
