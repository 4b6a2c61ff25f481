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

/** Why a stale index is built anew, or updated. */
export type ModeCause =
  | { kind: "rebuild by default" | "build settings changed" | "update by default" }
  | { kind: "removals within limits"; removals: Removals }
  | { kind: "too many removals" | "too large a share removed"; removals: Removals; limit: number };

/** Faces that were removed or replaced since the last full build, of those that it and later updates put in. */
export interface Removals {
  removed: number;
  of: number;
}

interface DecisionBase {
  listId: string;
  faceCount: number | null;
  listRevision: number | null;
  /** Smallest revision that the list's feed still has. */
  oldestKeptRevision: number | null;
  newestIndexId: string | null;
  newestRevision: number | null;
}
export type CreateDecision = DecisionBase & { action: "create"; mode: BuildMode } & (
    | { reason: Exclude<(typeof createReasons)[number], "stale"> }
    | { reason: "stale"; cause: ModeCause }
  );
export type SkipDecision = DecisionBase & { action: "skip" } & (
    | { reason: "unchanged" | "list gone" }
    | { reason: "open task"; taskId: string }
    | { reason: "too small"; leastFaces: number }
  );
export type PlanDecision = CreateDecision | SkipDecision;

/** A decision for every list considered, in the order of their ids. Pure: reads nothing, changes nothing. */
export function buildPlan(state: PlanState): PlanDecision[] {
  const lists = new Map(state.lists.map((list) => [list.listId, list]));
  const considered = state.wantedListIds ?? [...lists.keys()];
  return [...new Set(considered)].toSorted().map((listId) => decide(state, listId, lists.get(listId)));
}

function decide(state: PlanState, listId: string, list: ListState | undefined): PlanDecision {
  const newest = state.newest.get(listId);
  const base: DecisionBase = {
    listId,
    faceCount: list?.faceCount ?? null,
    listRevision: list?.revision ?? null,
    oldestKeptRevision: list?.oldestKeptRevision ?? null,
    newestIndexId: newest?.indexId ?? null,
    newestRevision: newest?.revision ?? null,
  };
  if (!list) return { ...base, action: "skip", reason: "list gone" };
  const taskId = state.openTasks.get(listId) ?? state.building.get(listId);
  if (taskId !== undefined) return { ...base, action: "skip", reason: "open task", taskId };
  const leastFaces = state.wantedListIds ? 1 : Math.max(1, state.minFaces);
  if (list.faceCount < leastFaces) return { ...base, action: "skip", reason: "too small", leastFaces };
  if (!newest) {
    const reason = state.indexedLabels.has(listId) ? "other descriptor version" : "missing";
    return { ...base, action: "create", mode: "rebuild", reason };
  }
  const gap = gapOf(list, newest);
  if (gap) return { ...base, action: "create", mode: "rebuild", reason: gap };
  if (newest.revision === list.revision) return { ...base, action: "skip", reason: "unchanged" };
  return { ...base, action: "create", reason: "stale", ...modeOf(state, listId, newest) };
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

function modeOf(
  state: PlanState,
  listId: string,
  newest: NewestIndex,
): { mode: BuildMode; cause: ModeCause } {
  const { rebuildDefault, maxRemovalForRebuild, maxRemovalRatio } = state.rules;
  if (rebuildDefault) return { mode: "rebuild", cause: { kind: "rebuild by default" } };
  if (!newest.sameBuildSettings) return { mode: "rebuild", cause: { kind: "build settings changed" } };
  if (!areRemovalsRuled(state.rules)) return { mode: "update", cause: { kind: "update by default" } };
  const removals: Removals = {
    removed: newest.removedSinceRebuild + (state.pendingRemovals.get(listId) ?? 0),
    of: newest.count + newest.removedSinceRebuild,
  };
  if (maxRemovalForRebuild > 0 && removals.removed > maxRemovalForRebuild)
    return { mode: "rebuild", cause: { kind: "too many removals", removals, limit: maxRemovalForRebuild } };
  if (maxRemovalRatio !== undefined && removals.removed > maxRemovalRatio * removals.of)
    return {
      mode: "rebuild",
      cause: { kind: "too large a share removed", removals, limit: maxRemovalRatio },
    };
  return { mode: "update", cause: { kind: "removals within limits", removals } };
}

function areRemovalsRuled({ maxRemovalForRebuild, maxRemovalRatio }: PlanRules): boolean {
  return maxRemovalForRebuild > 0 || maxRemovalRatio !== undefined;
}

/** Lists whose removals since their newest index `buildPlan` needs to know. */
export function listsWhoseRemovalsMatter(
  state: Omit<PlanState, "pendingRemovals">,
): { listId: string; sinceRevision: number; toRevision: number }[] {
  if (state.rules.rebuildDefault || !areRemovalsRuled(state.rules)) return [];
  return buildPlan({ ...state, pendingRemovals: new Map() }).flatMap((decision) =>
    decision.action === "create" &&
    decision.reason === "stale" &&
    "removals" in decision.cause &&
    decision.newestRevision !== null
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
