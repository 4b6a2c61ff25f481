import type { IndexMeta } from "@lim/contracts";
import type { ListState } from "@lim/faces-db";
import type { PublishedIndex, StorageListing } from "@lim/index-storage";

/** A label of the registry: what it serves, if anything. */
export interface ServedView {
  label: string;
  served: { meta: IndexMeta; failed: boolean } | undefined;
}

export type LabelPlan =
  /** Nothing is served: load the first of `candidates` (newest first) that can be. */
  | { kind: "load"; label: string; candidates: PublishedIndex[]; dropFirst: boolean }
  /** Load beside what is served, then swap. */
  | { kind: "replace"; label: string; candidates: PublishedIndex[] }
  | { kind: "unload"; label: string; reason: "list_deleted" | "removed_from_storage" };

/**
 * What must be done so that every label serves its newest index of one descriptor version and dimension. Only
 * indexes of the list's present history, not ahead of it, count: others cannot be brought to its state.
 * Pure; labels that are as they should be are absent.
 */
export function planReconcile(input: {
  listing: StorageListing;
  lists: readonly ListState[];
  registry: readonly ServedView[];
  descriptorVersion: number;
  dim: number;
}): LabelPlan[] {
  const lists = new Map(input.lists.map((list) => [list.listId, list]));
  const stored = new Map<string, PublishedIndex[]>();
  for (const index of input.listing.indexes) {
    const list = lists.get(index.label);
    const { meta } = index;
    const usable =
      list !== undefined &&
      meta.descriptor_version === input.descriptorVersion &&
      meta.dim === input.dim &&
      meta.history_id === list.historyId &&
      meta.revision <= list.revision;
    if (usable) stored.set(index.label, [...(stored.get(index.label) ?? []), index]);
  }
  for (const indexes of stored.values()) indexes.sort((a, b) => (isNewer(a.meta, b.meta) ? -1 : 1));
  const views = new Map(input.registry.map((view) => [view.label, view]));
  const plans: LabelPlan[] = [];
  for (const label of new Set([...stored.keys(), ...views.keys()])) {
    const plan = planLabel(label, {
      usable: stored.get(label) ?? [],
      view: views.get(label),
      listExists: lists.has(label),
      listing: input.listing,
    });
    if (plan) plans.push(plan);
  }
  return plans;
}

function planLabel(
  label: string,
  input: {
    usable: PublishedIndex[];
    view: ServedView | undefined;
    listExists: boolean;
    listing: StorageListing;
  },
): LabelPlan | undefined {
  const { usable, view, listing } = input;
  const served = view?.served;
  if (!input.listExists) return view && { kind: "unload", label, reason: "list_deleted" };
  if (!served || served.failed) {
    if (usable.length > 0)
      return { kind: "load", label, candidates: usable, dropFirst: served !== undefined };
    return view && { kind: "unload", label, reason: "removed_from_storage" };
  }
  const entries = [...listing.indexes, ...listing.refused].filter((entry) => entry.label === label);
  if (entries.length === 0) return { kind: "unload", label, reason: "removed_from_storage" };
  const isStored = entries.some((entry) => entry.indexId === served.meta.index_id);
  // An index that was taken away on purpose gives way to what is left, even to an older one.
  const candidates = usable.filter(
    ({ meta }) => meta.index_id !== served.meta.index_id && (!isStored || isNewer(meta, served.meta)),
  );
  return candidates.length > 0 ? { kind: "replace", label, candidates } : undefined;
}

/** Revisions of two histories cannot be compared: the other one, which the list has now, is newer. */
function isNewer(a: IndexMeta, b: IndexMeta): boolean {
  if (a.history_id !== b.history_id) return true;
  if (a.revision !== b.revision) return a.revision > b.revision;
  if (a.create_time !== b.create_time) return Date.parse(a.create_time) > Date.parse(b.create_time);
  return a.index_id > b.index_id;
}
