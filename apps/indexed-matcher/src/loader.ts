import { LimError } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, LoadAdapter, PublishedIndex } from "@lim/index-storage";
import { catchUpPacketFaces, followFeed } from "./follow-feed.ts";
import { IndexHolder } from "./index-holder.ts";
import type { LabelSlot } from "./label-slot.ts";
import { bytesPerFace, estimateLoadBytes, type MemoryBudget } from "./memory-budget.ts";

export interface LoaderDeps {
  source: Pick<IndexStorage, "open">;
  db: Pick<FacesDb, "readPackets" | "listStates">;
  budget: MemoryBudget;
  /** As the storage loads engines. */
  loadAdapter: LoadAdapter;
}

/**
 * Opens a published index into a new object and brings it to the revision that its list has once it is open. The
 * caller owns the holder. `isSeenToFit`: the memory limit is not asked again. Throws memory_limit, index_refused,
 * not_found (it vanished), list_not_found, index_behind (the feed does not reach back to it, a rebuild is the remedy).
 */
export async function loadIndex(
  deps: LoaderDeps,
  slot: LabelSlot,
  index: PublishedIndex,
  signal: AbortSignal,
  { isSeenToFit = false } = {},
): Promise<IndexHolder> {
  const { label, indexId } = index;
  const { budget } = deps;
  const engine = await deps.loadAdapter(index.meta.engine.name);
  const neededBytes = estimateLoadBytes(engine, index.meta);
  const release = isSeenToFit ? budget.reserveAnyway(neededBytes) : budget.reserve(neededBytes);
  try {
    const opened = await deps.source.open({ label, indexId, signal });
    const faceBytes = bytesPerFace(engine, index.meta);
    const holder = new IndexHolder({
      ...opened,
      sizeBytes: index.sizeBytes,
      admit: (added) => budget.assertMayGrow(added * faceBytes),
    });
    try {
      const [state] = await deps.db.listStates({ listIds: [label], signal });
      if (!state) throw new LimError("list_not_found", `list ${label} was deleted`);
      slot.headRevision = Math.max(slot.headRevision, state.revision);
      await catchUp(deps.db, slot, holder, state.revision, signal);
      return holder;
    } catch (thrown) {
      holder.retire();
      throw thrown;
    }
  } finally {
    release();
  }
}

/** Applies the feed in large steps, for an index that nobody searches yet. */
export async function catchUp(
  db: Pick<FacesDb, "readPackets">,
  slot: LabelSlot,
  holder: IndexHolder,
  toRevision: number,
  signal: AbortSignal,
): Promise<void> {
  const gap = await followFeed(db, holder, { toRevision, maxFaces: catchUpPacketFaces, signal });
  if (!gap) return;
  if (gap === "list_deleted") throw new LimError("list_not_found", `list ${slot.label} was deleted`);
  if (!slot.current) slot.gap = gap;
  throw new LimError(
    "index_behind",
    `the change feed (${gap}) does not lead from revision ${holder.revision} of index ${holder.meta.index_id} ` +
      `to ${toRevision}: rebuild it`,
  );
}
