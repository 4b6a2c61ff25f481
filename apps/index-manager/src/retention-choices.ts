import type { ListState } from "@lim/faces-db";
import type { PublishedIndex } from "@lim/index-storage";

export interface Removal {
  indexId: string;
  label: string;
  reason: "outdated" | "list deleted";
}

type RankedIndex = Pick<PublishedIndex, "indexId" | "label" | "meta">;
type KnownList = Pick<ListState, "historyId" | "revision">;

/**
 * Indexes past their retention. Of each label and descriptor version the newest `keepVersions` stay; labels with an
 * open task are left alone, because the task may build upon any of theirs. Indexes that do not fit their list (another
 * history, or ahead of it: the database was restored) rank behind those that do, whatever their revision: matchers
 * serve none of them. Pure.
 */
export function chooseRemovals(state: {
  /** Newest first within a label, as the storage lists them. */
  indexes: readonly RankedIndex[];
  keepVersions: number;
  openLabels: ReadonlySet<string>;
  /** Labels whose list has been gone for longer than the grace. */
  deletedLabels: ReadonlySet<string>;
  /** By label, read after the indexes, so that no new index looks ahead of its list. */
  lists: ReadonlyMap<string, KnownList>;
}): Removal[] {
  const fits = (index: RankedIndex) => fitsList(index, state.lists.get(index.label));
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

/** Without its list nothing is known against an index. */
function fitsList({ meta }: Pick<RankedIndex, "meta">, list: KnownList | undefined): boolean {
  return list === undefined || (meta.history_id === list.historyId && meta.revision <= list.revision);
}

/** Labels whose list has been missing for at least the grace; since when may not be noted yet. Pure. */
export function labelsPastGrace(
  sinceMs: ReadonlyMap<string, number | undefined>,
  { graceMs, nowMs }: { graceMs: number; nowMs: number },
): Set<string> {
  const past = [...sinceMs].filter(([, since]) => since !== undefined && nowMs - since >= graceMs);
  return new Set(past.map(([label]) => label));
}

/** A list whose feed may be shortened: its rows up to this revision, where they are old enough. */
export interface FeedCut {
  listId: string;
  upToRevision: number;
}

/**
 * How far each list's feed may be shortened: up to the lowest revision among the newest `keepVersions` indexes of the
 * served descriptor version that fit the list, so that a matcher with any of them, and an update of any of them, still
 * finds all that came after. A list without such an index is shortened by age alone: nothing that is stored needs its
 * older rows, and who follows the feed itself (matchers, the search plugin) has the age to catch up. Lists with an open
 * task are left alone. Lists with nothing to cut are left out. By list id. Pure.
 */
export function chooseFeeds(state: {
  lists: readonly Pick<ListState, "listId" | "historyId" | "revision" | "oldestKeptRevision">[];
  /** Newest first within a label. */
  indexes: readonly RankedIndex[];
  descriptorVersion: number;
  keepVersions: number;
  openLabels: ReadonlySet<string>;
}): FeedCut[] {
  const byLabel = Map.groupBy(state.indexes, (index) => index.label);
  const cuts = state.lists.flatMap((list): FeedCut[] => {
    if (state.openLabels.has(list.listId)) return [];
    const needed = (byLabel.get(list.listId) ?? [])
      .filter((index) => index.meta.descriptor_version === state.descriptorVersion && fitsList(index, list))
      .slice(0, state.keepVersions)
      .map((index) => index.meta.revision);
    // The newest row of a list stays for ever: the list's revision is read from it.
    const upToRevision = Math.min(list.revision - 1, ...needed);
    const oldest = Math.max(1, list.oldestKeptRevision);
    return upToRevision >= oldest ? [{ listId: list.listId, upToRevision }] : [];
  });
  return cuts.toSorted((a, b) => (a.listId < b.listId ? -1 : 1));
}

/** At most `max` of the cuts, going on after `afterListId` and around: so every list comes in turn. Pure. */
export function nextFeeds(cuts: readonly FeedCut[], afterListId: string | undefined, max: number): FeedCut[] {
  const at = afterListId === undefined ? 0 : cuts.findIndex((cut) => cut.listId > afterListId);
  const from = Math.max(0, at);
  return [...cuts.slice(from), ...cuts.slice(0, from)].slice(0, max);
}
