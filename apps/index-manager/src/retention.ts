import { isLimError } from "@lim/contracts";
import type { DeadLetters, Log, TaskStore } from "@lim/coordination";
import type { FacesDb, ListState } from "@lim/faces-db";
import type { IndexStorage } from "@lim/index-storage";
import { mapBounded } from "./concurrency.ts";
import { managerLimits } from "./limits.ts";
import type { ManagerMetrics } from "./metrics.ts";
import type { PlanningDeps } from "./planning.ts";
import {
  chooseFeeds,
  chooseRemovals,
  type FeedCut,
  labelsPastGrace,
  nextFeeds,
  type Removal,
} from "./retention-choices.ts";

export interface RetentionDeps {
  store: TaskStore;
  storage: IndexStorage;
  db: FacesDb;
  deadLetters: DeadLetters;
  metrics: ManagerMetrics;
  log: Log;
  /** Redis' clock. */
  nowMs: (signal: AbortSignal) => Promise<number>;
  build: PlanningDeps["build"];
  keepVersions: number;
  keepTasks: number;
  taskRetentionMs: number;
  deletedListGraceMs: number;
  deadLetterRetentionMs: number;
  feedRetentionMs: number;
}

/** What reading for retention needs; a manager that is not the master has it too. */
export type RetentionSources = Omit<RetentionDeps, "metrics" | "log">;

/** What is past its retention in storage and Postgres, and why. */
export interface RetentionFindings {
  removals: Removal[];
  /** Old enough, by list id. */
  feeds: FeedCut[];
  /** Labels with indexes whose list is gone → since when (milliseconds since 1970); undefined where it is not noted yet. */
  missing: Map<string, number | undefined>;
  /** Postgres has no list at all, though the storage has indexes. */
  isDoubtful: boolean;
}

/**
 * Finds what is past its retention; changes nothing itself. `noteMissing` is told which labels miss their list and says
 * since when; undefined where this master was replaced, and then so is the result. Postgres gets two queries, and one
 * for each thousand lists whose feed is longer than any index needs.
 */
export async function findExpired(
  deps: RetentionSources,
  noteMissing: (labels: readonly string[]) => Promise<ReadonlyMap<string, number> | undefined>,
  signal: AbortSignal,
): Promise<RetentionFindings | undefined> {
  const { store, storage, db, keepVersions } = deps;
  const before = (await storage.list({ signal })).indexes;
  const labels = [...new Set(before.map((index) => index.label))];
  const all = await db.listStates({ signal });
  const { missingLabels, isDoubtful } = missingOf(labels, all);
  const sinceMs = await noteMissing(missingLabels);
  if (sinceMs === undefined) return undefined;
  const missing = new Map(missingLabels.map((label) => [label, sinceMs.get(label)]));
  const deletedLabels = labelsPastGrace(missing, {
    graceMs: deps.deletedListGraceMs,
    nowMs: await deps.nowMs(signal),
  });
  const feedsOf = { keepVersions, descriptorVersion: deps.build.descriptor_version };
  const longFeeds = chooseFeeds({ ...feedsOf, lists: all, indexes: before, openLabels: new Set() });
  const oldFeeds = await db.feedsWithOldRows({ feeds: longFeeds, keepMs: deps.feedRetentionMs, signal });
  const concerned = [...new Set([...labels, ...oldFeeds])];
  const openLabels = new Set((await store.openTasks(concerned, { signal })).keys());
  // Listed again after the records: an index that a task has just built from is then seen with its successor.
  const { indexes } = await storage.list({ signal });
  const lists = await db.listStates({ listIds: concerned, signal });
  const removals = chooseRemovals({
    indexes,
    lists: new Map(lists.map((list) => [list.listId, list])),
    keepVersions,
    openLabels,
    deletedLabels,
  });
  const withOldRows = lists.filter((list) => oldFeeds.has(list.listId));
  const feeds = chooseFeeds({ ...feedsOf, lists: withOldRows, indexes, openLabels });
  return { removals, feeds, missing, isDoubtful };
}

/**
 * Labels without their list. A database without any list is more likely the wrong one, or not restored yet, than one
 * whose last list was deleted: all labels count as having theirs then, so that no index is lost over it.
 */
function missingOf(labels: readonly string[], lists: readonly ListState[]) {
  const existing = new Set(lists.map((list) => list.listId));
  const isDoubtful = labels.length > 0 && lists.length === 0;
  return { isDoubtful, missingLabels: isDoubtful ? [] : labels.filter((label) => !existing.has(label)) };
}

/** Arguments of `store.expired` at this moment. */
export async function taskRetention(deps: RetentionSources, signal: AbortSignal) {
  const nowMs = await deps.nowMs(signal);
  return { keep: deps.keepTasks, endedBeforeMs: Math.max(0, nowMs - deps.taskRetentionMs), signal };
}

export interface Retention {
  /** One run: removes what is past its retention, in bounded portions; the next run goes on. */
  once(): Promise<void>;
}

/** Retention of one leadership. A run ends where this master was replaced. */
export function createRetention(
  deps: RetentionDeps,
  leadership: { epoch: number; signal: AbortSignal },
): Retention {
  const { store, storage, metrics, log } = deps;
  const { epoch, signal } = leadership;
  let wasDoubtful = false;
  let lastFeed: string | undefined;

  const noteMissing = async (labels: readonly string[]) => {
    const noted = await store.noteMissingLists({ labels, epoch }, { signal });
    if (noted.ok) return noted.sinceMs;
    metrics.refusals.inc({ transition: "note_missing_lists", refusal: noted.refusal });
    log.warn({ refusal: noted.refusal }, "another master has taken over, retention ends");
    return undefined;
  };
  const warnOfDoubt = (found: RetentionFindings) => {
    if (found.isDoubtful && !wasDoubtful)
      log.warn(
        {},
        "Postgres has no list at all, but the storage has indexes: none is removed until a list exists. Is it the right database?",
      );
    wasDoubtful = found.isDoubtful;
  };
  const collect = async () => {
    const collected = await storage.collect({ signal });
    for (const kind of ["staging", "trash", "marks"] as const)
      metrics.collected.inc({ kind }, collected[kind].length);
    if (collected.staging.length > 0) log.info(collected, "left-overs of builds collected");
  };
  return {
    async once() {
      const found = await findExpired(deps, noteMissing, signal);
      if (!found) return;
      warnOfDoubt(found);
      metrics.missingLists.set(found.missing.size);
      if (!(await removeIndexes(deps, found.removals, leadership))) return;
      await forgetTasks(deps, signal);
      await trimDeadLetters(deps, signal);
      const feeds = nextFeeds(found.feeds, lastFeed, managerLimits.maxFeedsPerRetention);
      await compactFeeds(deps, feeds, signal);
      lastFeed = feeds.at(-1)?.listId ?? lastFeed;
      if (!signal.aborted) await collect();
    },
  };
}

/**
 * False where this master was replaced. The storage knows no epoch, so each removal asks again whether this master still
 * leads and the label has no open task: a master that slept since it chose must not remove what a successor builds from.
 */
async function removeIndexes(
  { store, storage, metrics, log }: RetentionDeps,
  removals: readonly Removal[],
  { epoch, signal }: { epoch: number; signal: AbortSignal },
): Promise<boolean> {
  for (const { indexId, label, reason } of removals) {
    if (signal.aborted) return false;
    const [open, isCurrent] = await Promise.all([
      store.openTasks([label], { signal }),
      store.isCurrent({ epoch }, { signal }),
    ]);
    if (!isCurrent) {
      metrics.refusals.inc({ transition: "remove_index", refusal: "stale_epoch" });
      log.warn({ refusal: "stale_epoch" }, "another master has taken over, retention ends");
      return false;
    }
    if (open.size > 0) continue;
    const { removed } = await storage.remove({ indexId, signal });
    if (!removed) continue;
    metrics.removedIndexes.inc({ reason });
    log.info({ index_id: indexId, label, reason }, "index removed by retention");
  }
  return true;
}

async function forgetTasks(deps: RetentionDeps, signal: AbortSignal): Promise<void> {
  const { store, metrics, log } = deps;
  let forgotten = 0;
  while (!signal.aborted && forgotten < managerLimits.maxTasksPerRetention) {
    const { taskIds } = await store.expired(await taskRetention(deps, signal));
    const removed = await store.remove(taskIds.slice(0, managerLimits.maxTasksPerRetention - forgotten), {
      signal,
    });
    forgotten += removed.length;
    metrics.removedTasks.inc(removed.length);
    // Also where somebody else removed them: another look would only race with them.
    if (removed.length === 0) break;
  }
  if (forgotten > 0) log.info({ tasks: forgotten }, "old tasks forgotten");
}

async function trimDeadLetters(deps: RetentionDeps, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { deadLetters, metrics, log } = deps;
  const olderThanMs = deps.deadLetterRetentionMs;
  const removed = await deadLetters.trim({ olderThanMs, signal });
  metrics.removedDeadLetters.inc(removed);
  metrics.deadLetters.set((await deadLetters.count({ olderThanMs, signal })).all);
  if (removed > 0) log.info({ requests: removed }, "old dead letters removed");
}

async function compactFeeds(
  { db, metrics, log, feedRetentionMs }: RetentionDeps,
  feeds: readonly FeedCut[],
  signal: AbortSignal,
): Promise<void> {
  const compacted = await mapBounded(feeds, managerLimits.parallelCompactions, async (feed) => {
    if (signal.aborted) return 0;
    try {
      const rows = await db.compactFeed({
        listId: feed.listId,
        keepMs: feedRetentionMs,
        keepFromRevision: feed.upToRevision,
        signal,
      });
      metrics.compactedFeedRows.inc(rows);
      return rows;
    } catch (thrown) {
      // Its list was deleted meanwhile, and its feed with it.
      if (isLimError(thrown, "list_not_found")) return 0;
      throw thrown;
    }
  });
  const rows = compacted.reduce((sum, of) => sum + of, 0);
  if (rows > 0) log.info({ lists: feeds.length, rows }, "change feeds shortened");
}
