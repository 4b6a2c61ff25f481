import type { BuildMode } from "@lim/contracts";
import type { ListState } from "@lim/faces-db";

/** What planning knows of a label's newest index of the served descriptor version. */
export interface NewestIndex {
  indexId: string;
  historyId: string;
  revision: number;
  count: number;
  removedSinceRebuild: number;
  /** Same engine, parameters and dimension as new indexes get: an update goes on in its graph. */
  sameBuildSettings: boolean;
}

export interface PlanRules {
  rebuildDefault: boolean;
  /** 0: removals by number never ask for a rebuild. */
  maxRemovalForRebuild: number;
  /** Undefined: removals by share never ask for a rebuild. */
  maxRemovalRatio: number | undefined;
}

export interface PlanState {
  /** Explicit ids, or undefined where every list of at least `minFaces` is wanted. */
  wantedListIds: readonly string[] | undefined;
  minFaces: number;
  lists: readonly ListState[];
  newest: ReadonlyMap<string, NewestIndex>;
  /** Labels that have an index of any descriptor version. */
  indexedLabels: ReadonlySet<string>;
  /** Label → its open task. */
  openTasks: ReadonlyMap<string, string>;
  /** List → task, as indexers report that they build it, whether a record of it exists or not. */
  building: ReadonlyMap<string, string>;
  /** Removals between the newest index's revision and the list's, where the rules need them. */
  pendingRemovals: ReadonlyMap<string, number>;
  rules: PlanRules;
}

export const createReasons = [
  "missing",
  "other descriptor version",
  "history differs",
  "ahead of its list",
  "feed compacted",
  "stale",
] as const;
export const skipReasons = ["unchanged", "open task", "too small", "list gone"] as const;

interface DecisionBase {
  listId: string;
  listRevision: number | null;
  newestIndexId: string | null;
  newestRevision: number | null;
}
export type PlanDecision =
  | (DecisionBase & { action: "create"; mode: BuildMode; reason: (typeof createReasons)[number] })
  | (DecisionBase & { action: "skip"; reason: (typeof skipReasons)[number]; taskId?: string });

/** A decision for every list considered, in the order of their ids. Pure: reads nothing, changes nothing. */
export function buildPlan(state: PlanState): PlanDecision[] {
  const lists = new Map(state.lists.map((list) => [list.listId, list]));
  const considered = state.wantedListIds ?? [...lists.keys()];
  return [...new Set(considered)].toSorted().map((listId) => decide(state, listId, lists.get(listId)));
}

function decide(state: PlanState, listId: string, list: ListState | undefined): PlanDecision {
  const newest = state.newest.get(listId);
  const base = {
    listId,
    listRevision: list?.revision ?? null,
    newestIndexId: newest?.indexId ?? null,
    newestRevision: newest?.revision ?? null,
  };
  if (!list) return { ...base, action: "skip", reason: "list gone" };
  const taskId = state.openTasks.get(listId) ?? state.building.get(listId);
  if (taskId !== undefined) return { ...base, action: "skip", reason: "open task", taskId };
  const least = state.wantedListIds ? 1 : Math.max(1, state.minFaces);
  if (list.faceCount < least) return { ...base, action: "skip", reason: "too small" };
  if (!newest) {
    const reason = state.indexedLabels.has(listId) ? "other descriptor version" : "missing";
    return { ...base, action: "create", mode: "rebuild", reason };
  }
  const gap = gapOf(list, newest);
  if (gap) return { ...base, action: "create", mode: "rebuild", reason: gap };
  if (newest.revision === list.revision) return { ...base, action: "skip", reason: "unchanged" };
  return { ...base, action: "create", mode: modeOf(state, listId, newest), reason: "stale" };
}

/** Why the index can no longer follow its list's feed. */
function gapOf(
  list: ListState,
  index: NewestIndex,
): "history differs" | "ahead of its list" | "feed compacted" | undefined {
  if (index.historyId !== list.historyId) return "history differs";
  if (index.revision > list.revision) return "ahead of its list";
  if (index.revision < list.oldestKeptRevision - 1) return "feed compacted";
  return undefined;
}

function modeOf(state: PlanState, listId: string, newest: NewestIndex): BuildMode {
  const { rebuildDefault, maxRemovalForRebuild, maxRemovalRatio } = state.rules;
  if (rebuildDefault || !newest.sameBuildSettings) return "rebuild";
  const removed = newest.removedSinceRebuild + (state.pendingRemovals.get(listId) ?? 0);
  if (maxRemovalForRebuild > 0 && removed > maxRemovalForRebuild) return "rebuild";
  const built = newest.count + newest.removedSinceRebuild;
  if (maxRemovalRatio !== undefined && removed > maxRemovalRatio * built) return "rebuild";
  return "update";
}

/** Lists whose removals since their newest index `buildPlan` needs to know. */
export function listsWhoseRemovalsMatter(
  state: Omit<PlanState, "pendingRemovals">,
): { listId: string; sinceRevision: number; toRevision: number }[] {
  const { rebuildDefault, maxRemovalForRebuild, maxRemovalRatio } = state.rules;
  if (rebuildDefault || (maxRemovalForRebuild === 0 && maxRemovalRatio === undefined)) return [];
  return buildPlan({ ...state, pendingRemovals: new Map() }).flatMap((decision) =>
    decision.action === "create" && decision.mode === "update" && decision.newestRevision !== null
      ? [
          {
            listId: decision.listId,
            sinceRevision: decision.newestRevision,
            toRevision: decision.listRevision ?? decision.newestRevision,
          },
        ]
      : [],
  );
}
