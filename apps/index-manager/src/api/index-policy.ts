import type { removalPolicySchema } from "@lim/contracts";
import type { ListState } from "@lim/faces-db";
import type { PublishedIndex } from "@lim/index-storage";
import type { z } from "zod";

export type RemovalPolicy = z.infer<typeof removalPolicySchema>;
export type Candidate = Pick<PublishedIndex, "indexId" | "label" | "meta">;

/**
 * What a removal by policy takes. `all`: everything. `outdated`: indexes with a newer one of the same label and
 * descriptor version; both the newest of all and the newest that fits its list stay, because after a restored backup
 * the indexes of the time after it look newer, while matchers serve one of before. Labels in `busyLabels` keep
 * everything: a task may be building from any of theirs. Pure.
 */
export function chooseByPolicy<Index extends Candidate>(state: {
  policy: RemovalPolicy;
  /** Newest first within a label, as the storage lists them. */
  indexes: readonly Index[];
  /** By label, read after the indexes, so that no new index looks ahead of its list. */
  lists: ReadonlyMap<string, Pick<ListState, "historyId" | "revision">>;
  busyLabels: ReadonlySet<string>;
}): Index[] {
  const free = state.indexes.filter(({ label }) => !state.busyLabels.has(label));
  if (state.policy === "all") return free;
  const fits = ({ label, meta }: Candidate) => {
    const list = state.lists.get(label);
    return list === undefined || (meta.history_id === list.historyId && meta.revision <= list.revision);
  };
  const kept = new Set([...firstOfEachGroup(free), ...firstOfEachGroup(free.filter(fits))]);
  return free.filter(({ indexId }) => !kept.has(indexId));
}

function firstOfEachGroup(indexes: readonly Candidate[]): string[] {
  const first = new Map<string, string>();
  for (const { indexId, label, meta } of indexes) {
    const group = `${label}/${meta.descriptor_version}`;
    if (!first.has(group)) first.set(group, indexId);
  }
  return [...first.values()];
}
