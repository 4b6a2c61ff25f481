import { randomUUID } from "node:crypto";
import { type BuildRequest, LimError } from "@lim/contracts";
import type { Log, TaskStore } from "@lim/coordination";
import type { FacesDb, ListState } from "@lim/faces-db";
import { type IndexStorage, newestOf, type PublishedIndex, type StorageListing } from "@lim/index-storage";
import { mapBounded } from "./concurrency.ts";
import { explain } from "./explain.ts";
import { managerLimits } from "./limits.ts";
import { type LookupDeps, observeIndexers } from "./lookup.ts";
import type { ManagerMetrics } from "./metrics.ts";
import {
  buildPlan,
  type CreateDecision,
  listsWhoseRemovalsMatter,
  type NewestIndex,
  type PlanDecision,
  type PlanRules,
  type PlanState,
} from "./plan.ts";
import { reportedBuilds } from "./reconcile.ts";
import { isPlanDue, type Schedule } from "./schedule.ts";
import type { WantedLists } from "./settings.ts";
import { assertStorageThere } from "./storage-check.ts";

export interface PlanningDeps extends Pick<LookupDeps, "registry" | "client" | "staticOrigins"> {
  store: TaskStore;
  storage: IndexStorage;
  db: FacesDb;
  metrics: ManagerMetrics;
  log: Log;
  /** Redis' clock, so that managers whose clocks differ agree on whether a plan is due. */
  nowMs: (signal: AbortSignal) => Promise<number>;
  schedule: Schedule;
  /** How long indexers may need to register anew where Redis has lost everything. */
  settleMs: number;
  wanted: WantedLists;
  minFaces: number;
  rules: PlanRules;
  build: Pick<BuildRequest, "engine" | "params" | "descriptor_version" | "dim">;
}

/** What reading for a plan needs; a manager that is not the master has it too. */
export type PlanSources = Pick<
  PlanningDeps,
  | "registry"
  | "client"
  | "staticOrigins"
  | "store"
  | "storage"
  | "db"
  | "wanted"
  | "minFaces"
  | "rules"
  | "build"
>;

/**
 * Everything that a plan rests on, in an order that makes a change in between harmless: indexers before records,
 * records before storage, storage before lists. So a build that ends meanwhile is seen in one place at least, and no
 * list looks older than its index.
 *
 * Postgres gets a bounded number of queries, whatever the number of lists: one for the states of explicit lists, two
 * of `dynamic` ones, and one for each thousand lists whose removals matter to the rules.
 */
export async function readPlanState(deps: PlanSources, signal: AbortSignal): Promise<PlanState> {
  const { store, storage, db, wanted, minFaces, rules } = deps;
  const explicit = wanted.kind === "lists" ? wanted.listIds : undefined;
  const indexers = await observeIndexers(deps, await store.indexing({ signal }), signal);
  const listIds =
    explicit ?? (await db.listStates({ minFaceCount: minFaces, signal })).map((list) => list.listId);
  const openTasks = await store.openTasks(listIds, { signal });
  const listing = await storage.list({ signal });
  // After the listing: a folder that went away during it must not make every list look unindexed.
  await assertStorageThere(storage.root);
  const lists = await db.listStates({ listIds, signal });
  const known: Omit<PlanState, "pendingRemovals"> = {
    wantedListIds: explicit,
    minFaces,
    lists,
    newest: newestIndexes(deps, listing, lists),
    indexedLabels: new Set(listing.indexes.map((index) => index.label)),
    openTasks,
    building: new Map(reportedBuilds(indexers).map((build) => [build.listId, build.taskId])),
    rules,
  };
  const ranges = listsWhoseRemovalsMatter(known);
  return { ...known, pendingRemovals: await db.removalsOf({ ranges, signal }) };
}

function newestIndexes(
  deps: PlanSources,
  listing: StorageListing,
  lists: readonly ListState[],
): Map<string, NewestIndex> {
  const byLabel = Map.groupBy(listing.indexes, (index) => index.label);
  const newest = new Map<string, NewestIndex>();
  for (const list of lists) {
    const ofLabel: StorageListing = { indexes: byLabel.get(list.listId) ?? [], refused: [] };
    const index = newestOf(ofLabel, list.listId, deps.build.descriptor_version, list);
    if (index) newest.set(list.listId, toNewest(deps.build, index));
  }
  return newest;
}

function toNewest(build: PlanningDeps["build"], { indexId, meta }: PublishedIndex): NewestIndex {
  return {
    indexId,
    historyId: meta.history_id,
    revision: meta.revision,
    count: meta.count,
    removedSinceRebuild: meta.removed_since_rebuild,
    sameBuildSettings:
      meta.engine.name === build.engine &&
      meta.dim === build.dim &&
      meta.params.m === build.params.m &&
      meta.params.ef_construction === build.params.ef_construction,
  };
}

function loggable(decision: PlanDecision) {
  return {
    list_id: decision.listId,
    reason: decision.reason,
    detail: explain(decision),
    face_count: decision.faceCount,
    list_revision: decision.listRevision,
    newest_index_id: decision.newestIndexId,
    newest_revision: decision.newestRevision,
  };
}

/**
 * Creates the tasks of a plan, several at a time. They are sent in the order of the list ids over one connection, so
 * the queue has them in that order. Ends early where this master was replaced: what is on its way then is refused.
 */
export async function applyPlan(
  deps: Pick<PlanningDeps, "store" | "metrics" | "log">,
  plan: readonly PlanDecision[],
  leadership: { epoch: number; signal: AbortSignal },
): Promise<{ created: number; replaced: boolean }> {
  let created = 0;
  let replaced = leadership.signal.aborted;
  const create = async (decision: CreateDecision) => {
    replaced ||= leadership.signal.aborted;
    if (replaced) return;
    const result = await createPlanned(deps, decision, leadership);
    if (result === "created") created++;
    if (result === "replaced" && !replaced) {
      replaced = true;
      deps.log.warn({ refusal: "stale_epoch" }, "another master has taken over, planning ends");
    }
  };
  const creates: CreateDecision[] = [];
  for (const decision of plan)
    if (decision.action === "create") creates.push(decision);
    else deps.log.debug(loggable(decision), "list skipped");
  await mapBounded(creates, managerLimits.parallelCreates, create);
  return { created, replaced };
}

async function createPlanned(
  { store, metrics, log }: Pick<PlanningDeps, "store" | "metrics" | "log">,
  decision: CreateDecision,
  { epoch, signal }: { epoch: number; signal: AbortSignal },
): Promise<"created" | "conflict" | "replaced"> {
  const { listId, mode, reason } = decision;
  const result = await store.create(
    { taskId: randomUUID(), listId, mode, trigger: "plan", epoch },
    { signal },
  );
  if ("refusal" in result) {
    metrics.refusals.inc({ transition: "create", refusal: result.refusal });
    return "replaced";
  }
  if ("conflict" in result) {
    log.info({ list_id: listId, task_id: result.conflict }, "list has got an open task meanwhile");
    return "conflict";
  }
  if (!("created" in result))
    throw new LimError("internal", "a planned task bears no idempotency key, yet one was found");
  metrics.plannedTasks.inc({ reason });
  log.info({ ...loggable(decision), mode, task_id: result.created.task_id }, "task planned");
  return "created";
}

function countDecisions(metrics: ManagerMetrics, plan: readonly PlanDecision[]): void {
  metrics.planLists.reset();
  let behind = 0;
  for (const { action, reason, listRevision, newestRevision } of plan) {
    metrics.planLists.inc({ action, reason });
    if (listRevision !== null && newestRevision !== null)
      behind = Math.max(behind, listRevision - newestRevision);
  }
  metrics.indexBehind.set(behind);
}

/**
 * Plans where it is due. The time of a plan is stored after its tasks, so a master that dies in between plans again.
 * No last plan means an empty Redis, new or lost: builds may be running whose indexers are not registered yet, so a
 * master plans only once it has led for `settleMs`.
 */
export async function planIfDue(
  deps: PlanningDeps,
  leadership: { epoch: number; signal: AbortSignal; sinceMs: number },
): Promise<boolean> {
  const { store, log } = deps;
  const { signal } = leadership;
  const nowMs = await deps.nowMs(signal);
  const lastPlanMs = await store.lastPlanMs({ signal });
  if (!isPlanDue(lastPlanMs, nowMs, deps.schedule)) return false;
  if (lastPlanMs === undefined && performance.now() - leadership.sinceMs < deps.settleMs) return false;
  const stopTimer = deps.metrics.planDuration.startTimer();
  const plan = buildPlan(await readPlanState(deps, signal));
  countDecisions(deps.metrics, plan);
  const { created, replaced } = await applyPlan(deps, plan, leadership);
  if (replaced) return false;
  const stored = await store.setLastPlanMs({ lastPlanMs: nowMs, epoch: leadership.epoch }, { signal });
  if (!stored.ok) log.warn({ refusal: stored.refusal }, "another master has taken over, its plan counts");
  log.info({ lists: plan.length, created, seconds: stopTimer() }, "planned");
  return true;
}
