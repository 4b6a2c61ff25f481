import {
  type BuildOutcome,
  type ErrorBody,
  type IndexerState,
  LimError,
  type Progress,
  type SkippedCounts,
  type Task,
} from "@lim/contracts";

export interface ObservedIndexer {
  origin: string;
  /** Undefined where it gave no valid answer, or none yet. */
  state: IndexerState | undefined;
  /** A question or command to it is still open: it is neither free nor silent, and its tasks are left alone. */
  late: boolean;
  /** Of its last answer, this one included: two origins with one boot are one indexer under two names. */
  bootId: string | undefined;
  /** Registered, or in the settings: others are asked only because a task names them. */
  known: boolean;
  /** Refused or failed a dispatch moments ago: gets none for now. */
  avoid: boolean;
}

export interface Observed {
  indexers: readonly ObservedIndexer[];
  /** All tasks in status indexing. */
  indexing: readonly Task[];
  /** Pending tasks that may be dispatched now, in dispatch order. */
  queue: readonly Task[];
  /** Records of tasks that indexers report to build and that are not in status indexing. */
  otherRecords: ReadonlyMap<string, Task>;
  /** Task ids whose index is in the storage. */
  published: ReadonlySet<string>;
  /** Task ids that were removed. */
  removed: ReadonlySet<string>;
  /** Task id → lookups, this one included, in which nobody said a word about its current attempt since the last word. */
  silentLookups: ReadonlyMap<string, number>;
  nowMs: number;
}

export type Action =
  | { kind: "progress"; taskId: string; attempt: number; progress: Progress }
  | {
      kind: "finish";
      taskId: string;
      attempt: number;
      error: ErrorBody | null;
      endTime: string;
      /** Of a success the index itself tells. */
      skipped: SkippedCounts | null;
    }
  | { kind: "requeue"; taskId: string; attempt: number; reason: ErrorBody; cause: RequeueCause }
  | {
      kind: "adopt";
      taskId: string;
      listId: string;
      attempt: number;
      origin: string;
      mode: Task["mode"];
      startTime: string;
    }
  | { kind: "stop"; taskId: string; attempt: number; origin: string; why: string }
  | { kind: "dispatch"; task: Task; origin: string };

/** A build that failed or was lost tries again after a pause; what an indexer hands back as it shuts down, at once. */
export type RequeueCause = "failed" | "lost" | "handed back";

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
export interface Reported {
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

/** Whether it builds, or reports an outcome of, the task's current attempt. */
function reportsOn(task: Task, state: IndexerState): boolean {
  return isBuilding(task, state) || outcomeOf(task, state) !== undefined;
}

/** A build of another list under the task's id is not the task's build. */
export function isBuilding(task: Task, state: IndexerState): boolean {
  return (
    state.task_id === task.task_id && state.attempt === task.attempt && state.list_id === task.content.list_id
  );
}

export function holderOf(task: Task, indexers: readonly ObservedIndexer[]): ObservedIndexer | undefined {
  return indexers.find(({ origin }) => origin === task.indexer);
}

/**
 * Who can tell of a running task: its indexer; where that does not answer, one that reports on the very attempt, which
 * is the same indexer under another name.
 */
export function voiceOf(task: Task, indexers: readonly ObservedIndexer[]): IndexerState | undefined {
  const own = holderOf(task, indexers)?.state;
  return own ?? indexers.find(({ state }) => state && reportsOn(task, state))?.state;
}

function outcomeOf(task: Task, state: IndexerState): BuildOutcome | undefined {
  return state.outcomes.find(
    (one) =>
      one.task_id === task.task_id && one.attempt === task.attempt && one.list_id === task.content.list_id,
  );
}

/**
 * Counts the lookups without a word, by `<task>/<attempt>`. A word ends the count. Who is late, or was not asked, is not
 * counted, and the count stays.
 */
export function countSilence(
  before: ReadonlyMap<string, number>,
  indexing: readonly Task[],
  indexers: readonly ObservedIndexer[],
): Map<string, number> {
  const after = new Map<string, number>();
  for (const task of indexing) {
    const holder = holderOf(task, indexers);
    const voice = voiceOf(task, indexers);
    if (voice && reportsOn(task, voice)) continue;
    const lookups = before.get(silenceKey(task)) ?? 0;
    after.set(silenceKey(task), holder && !holder.late ? lookups + 1 : lookups);
  }
  return after;
}

export function silenceKey(task: Task): string {
  return `${task.task_id}/${task.attempt}`;
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
  const holder = holderOf(task, observed.indexers);
  const state = voiceOf(task, observed.indexers);
  if (!state && holder?.late) return undefined;
  const now = new Date(observed.nowMs).toISOString();
  if (state && isBuilding(task, state))
    return state.progress && !sameProgress(state.progress, task.progress)
      ? { kind: "progress", ...at, progress: state.progress }
      : undefined;
  const outcome = state && outcomeOf(task, state);
  // The storage has the last word, whatever became of the indexer that said so.
  if (observed.published.has(task.task_id))
    return { kind: "finish", ...at, error: null, endTime: outcome?.end_time ?? now, skipped: null };
  if (observed.removed.has(task.task_id))
    return {
      kind: "finish",
      ...at,
      error: errorBody("build_cancelled", "its index was removed"),
      endTime: now,
      skipped: null,
    };
  if (outcome?.error) return afterFailure(at, outcome, outcome.error, state?.state === "draining");
  if (outcome)
    return {
      kind: "requeue",
      ...at,
      cause: "lost",
      reason: errorBody(
        "indexer_lost",
        `${task.indexer} reported success, but the storage has no such index`,
      ),
    };
  const silent = observed.silentLookups.get(task.task_id) ?? 0;
  if (silent < lostAfterSilentLookups[state ? "indexerAnswers" : "indexerSilent"]) return undefined;
  const what = state ? "no longer has the build (it restarted or never got it)" : "does not answer";
  return {
    kind: "requeue",
    ...at,
    cause: "lost",
    reason: errorBody("indexer_lost", `${task.indexer} ${what}`),
  };
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
    ? { kind: "requeue", ...at, reason: error, cause: shutDown ? "handed back" : "failed" }
    : { kind: "finish", ...at, error, endTime: outcome.end_time, skipped: outcome.skipped };
}

/** Builds that no record in status indexing stands for: adopted where their record was lost, else stopped. */
function judgeOtherBuilds(observed: Observed): Action[] {
  const current = new Map(observed.indexing.map((task) => [task.task_id, task]));
  const unknown = new Map<string, Reported>();
  const actions: Action[] = [];
  const stop = ({ taskId, attempt, origin }: Reported, why: string) =>
    actions.push({ kind: "stop", taskId, attempt, origin, why });
  for (const build of distinctBuilds(observed.indexers)) {
    const task = current.get(build.taskId);
    if (task) {
      const why = whyForeign(task, build, observed.indexers);
      if (why) stop(build, why);
    } else if (observed.removed.has(build.taskId)) {
      stop(build, "its task was removed");
    } else if (observed.otherRecords.has(build.taskId)) {
      stop(build, "its task is not running: it was given up or has ended");
    } else {
      // Two indexers with the same lost task: the later attempt is the one that counts.
      const why = "another indexer has the task as well";
      const rival = unknown.get(build.taskId);
      if (rival && rival.attempt >= build.attempt) stop(build, why);
      else {
        if (rival) stop(rival, why);
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

/** One report for each build of each boot, under a known name where it has one. */
function distinctBuilds(indexers: readonly ObservedIndexer[]): Reported[] {
  const distinct = new Map<string, Reported>();
  for (const build of reportedBuilds(indexers.toSorted((a, b) => Number(b.known) - Number(a.known)))) {
    const key = `${build.state.boot_id} ${build.taskId} ${build.attempt}`;
    if (!distinct.has(key)) distinct.set(key, build);
  }
  return [...distinct.values()];
}

/** Why a build that bears the id of a running task is not that task's; undefined where it is, or may be. */
function whyForeign(task: Task, build: Reported, indexers: readonly ObservedIndexer[]): string | undefined {
  if (build.listId !== task.content.list_id) return "it is of another list than its task";
  if (build.attempt !== task.attempt) return "another attempt counts";
  if (build.origin === task.indexer) return undefined;
  const holder = holderOf(task, indexers);
  // An indexer that does not answer may be this one under another name.
  if (!holder?.state || holder.bootId === build.state.boot_id) return undefined;
  return "another indexer has the task";
}

/** First come, first served, one build for each indexer that is free and not waited for, one for each label. */
function dispatches(observed: Observed): Action[] {
  const { indexing, indexers, queue } = observed;
  // Origins and boots: one indexer may have several names.
  const held = new Set<string | null>();
  for (const { late, avoid, bootId } of indexers)
    if ((late || avoid) && bootId !== undefined) held.add(bootId);
  for (const task of indexing) {
    const state = voiceOf(task, indexers);
    if (state && outcomeOf(task, state)) continue;
    held.add(task.indexer);
    const bootId = holderOf(task, indexers)?.bootId;
    if (bootId !== undefined) held.add(bootId);
  }
  const free = indexers.filter(({ origin, state, late, known, avoid }) => {
    if (state?.state !== "idle" || state.task_id !== null || late || !known || avoid) return false;
    if (held.has(origin) || held.has(state.boot_id)) return false;
    held.add(state.boot_id);
    return true;
  });
  const labels = new Set(indexing.map((task) => task.content.list_id));
  const next = queue.filter(({ content: { list_id } }) => {
    if (labels.has(list_id)) return false;
    labels.add(list_id);
    return true;
  });
  return next
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
