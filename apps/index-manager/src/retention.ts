import type { Log, TaskStore } from "@lim/coordination";
import type { FacesDb, ListState } from "@lim/faces-db";
import type { IndexStorage, PublishedIndex } from "@lim/index-storage";
import type { ManagerMetrics } from "./metrics.ts";

export interface Removal {
  indexId: string;
  label: string;
  reason: "outdated" | "list deleted";
}

/**
 * Indexes past their retention. Of each label and descriptor version the newest `keepVersions` stay; labels with an
 * open task are left alone, because the task may build upon any of theirs. Indexes that do not fit their list (another
 * history, or ahead of it: the database was restored) rank behind those that do, whatever their revision: matchers
 * serve none of them. Pure.
 */
export function chooseRemovals(state: {
  /** Newest first within a label, as the storage lists them. */
  indexes: readonly Pick<PublishedIndex, "indexId" | "label" | "meta">[];
  keepVersions: number;
  openLabels: ReadonlySet<string>;
  /** Labels whose list has been gone for longer than the grace. */
  deletedLabels: ReadonlySet<string>;
  /** By label, read after the indexes, so that no new index looks ahead of its list. */
  lists: ReadonlyMap<string, Pick<ListState, "historyId" | "revision">>;
}): Removal[] {
  const fits = ({ label, meta }: Pick<PublishedIndex, "label" | "meta">) => {
    const list = state.lists.get(label);
    return list === undefined || (meta.history_id === list.historyId && meta.revision <= list.revision);
  };
  const ranked = [...state.indexes.filter(fits), ...state.indexes.filter((index) => !fits(index))];
  const kept = new Map<string, number>();
  const removals: Removal[] = [];
  for (const { indexId, label, meta } of ranked) {
    if (state.openLabels.has(label)) continue;
    if (state.deletedLabels.has(label)) {
      removals.push({ indexId, label, reason: "list deleted" });
      continue;
    }
    const group = `${label}/${meta.descriptor_version}`;
    const before = kept.get(group) ?? 0;
    if (before >= state.keepVersions) removals.push({ indexId, label, reason: "outdated" });
    kept.set(group, before + 1);
  }
  return removals;
}

export interface RetentionDeps {
  store: TaskStore;
  storage: IndexStorage;
  db: FacesDb;
  metrics: ManagerMetrics;
  log: Log;
  keepVersions: number;
  keepTasks: number;
  deletedListGraceMs: number;
}

export interface Retention {
  once(signal: AbortSignal): Promise<void>;
}

/** Removes what `chooseRemovals` says and old records of tasks, and has the storage collect its garbage. */
export function createRetention(deps: RetentionDeps): Retention {
  /** Label → when this master first missed its list, by performance.now(). */
  const missedSinceMs = new Map<string, number>();
  const existing = existingLists(deps);
  return {
    async once(signal) {
      const { store, storage, log } = deps;
      const labels = [...new Set((await storage.list({ signal })).indexes.map((index) => index.label))];
      const lists = await existing(labels, signal);
      const deletedLabels = overdue(missedSinceMs, labels, lists, deps.deletedListGraceMs);
      const openLabels = new Set((await store.openTasks(labels, { signal })).keys());
      // Listed again after the records: an index that a task has just built from is then seen with its successor.
      const { indexes } = await storage.list({ signal });
      const states = await deps.db.listStates({ listIds: labels, signal });
      const removals = chooseRemovals({
        indexes,
        lists: new Map(states.map((list) => [list.listId, list])),
        keepVersions: deps.keepVersions,
        openLabels,
        deletedLabels,
      });
      for (const { indexId, label, reason } of removals) {
        if (signal.aborted) return;
        const { removed } = await storage.remove({ indexId, signal });
        if (!removed) continue;
        deps.metrics.removedIndexes.inc({ reason });
        log.info({ index_id: indexId, label, reason }, "index removed by retention");
      }
      if (signal.aborted) return;
      await forgetOldTasks(deps, signal);
      const collected = await storage.collect({ signal });
      if (collected.staging.length > 0) log.info(collected, "left-overs of builds collected");
    },
  };
}

/**
 * Which of the labels have a list. A database without any list is more likely the wrong one, or not restored yet, than
 * one whose last list was deleted: all labels count as having theirs then, so that no index is lost over it.
 */
function existingLists({ db, log }: RetentionDeps) {
  let warned = false;
  return async (labels: readonly string[], signal: AbortSignal): Promise<Set<string>> => {
    const found = await db.listStates({ listIds: labels, signal });
    const isDoubtful =
      labels.length > 0 && found.length === 0 && (await db.listStates({ signal })).length === 0;
    if (isDoubtful && !warned)
      log.warn(
        { labels: labels.length },
        "Postgres has no list at all, but the storage has indexes: none is removed until a list exists. Is it the right database?",
      );
    warned = isDoubtful;
    return isDoubtful ? new Set(labels) : new Set(found.map((list) => list.listId));
  };
}

async function forgetOldTasks({ store, log, keepTasks }: RetentionDeps, signal: AbortSignal): Promise<void> {
  const over = await store.list({ statuses: ["success", "error"] }, { signal });
  const old = over.slice(keepTasks).map((task) => task.task_id);
  if (old.length === 0) return;
  await store.remove(old, { signal });
  log.info({ tasks: old.length }, "old tasks forgotten");
}

function overdue(
  missedSinceMs: Map<string, number>,
  labels: readonly string[],
  lists: ReadonlySet<string>,
  graceMs: number,
): Set<string> {
  const nowMs = performance.now();
  const gone = new Set(labels.filter((label) => !lists.has(label)));
  for (const label of missedSinceMs.keys()) if (!gone.has(label)) missedSinceMs.delete(label);
  for (const label of gone) if (!missedSinceMs.has(label)) missedSinceMs.set(label, nowMs);
  return new Set([...gone].filter((label) => nowMs - (missedSinceMs.get(label) ?? nowMs) >= graceMs));
}
