import { type IndexMeta, isLimError, readUuid, uuidBytes } from "@lim/contracts";
import type { FacesDb, ListSnapshot } from "@lim/faces-db";
import { IdTable } from "@lim/vector-index";
import type { IndexIds } from "./ids.ts";
import type { FeedReach, ListFacts } from "./judges.ts";
import { checkLimits } from "./limits.ts";
import { Examples } from "./named.ts";

export interface ListComparison {
  db: Pick<FacesDb, "openSnapshot" | "readPacket">;
  meta: IndexMeta;
  ids: IndexIds;
  /** Vectors of some positions as the index holds them, and how far rounding may take a similarity from one. */
  known: Map<number, Float32Array>;
  tolerance: number;
  signal: AbortSignal;
  onRead: (faces: number) => void;
}

/**
 * Compares an index with its list as it is now, except for faces that the feed names as changed since the index's
 * revision. Holds one batch of descriptors, and 16 bytes and a table's slots for each id. Undefined where the list is gone.
 */
export async function compareWithList(options: ListComparison): Promise<ListFacts | undefined> {
  const { db, meta, signal } = options;
  let snapshot: ListSnapshot;
  try {
    snapshot = await db.openSnapshot({
      listId: meta.label,
      descriptorVersion: meta.descriptor_version,
      dim: meta.dim,
      batchRows: checkLimits.batchRows,
      signal,
    });
  } catch (thrown) {
    if (isLimError(thrown, "list_not_found")) return undefined;
    throw thrown;
  }
  try {
    const { feed, changed } = await changedSince(options, snapshot);
    return await compare(options, snapshot, feed, changed);
  } finally {
    await snapshot.close();
  }
}

/** Faces that changed after the index's revision, at least up to the snapshot's. */
async function changedSince(
  { db, meta, signal }: ListComparison,
  snapshot: ListSnapshot,
): Promise<{ feed: FeedReach; changed: IdTable }> {
  const changed = new IdTable(0);
  if (snapshot.historyId !== meta.history_id) return { feed: "other_history", changed };
  if (meta.revision > snapshot.revision) return { feed: "ahead_of_list", changed };
  if (meta.revision === snapshot.revision) return { feed: "same_revision", changed };
  let entered = 0;
  for (let since = meta.revision; since < snapshot.revision; ) {
    const packet = await db.readPacket({
      listId: meta.label,
      historyId: meta.history_id,
      sinceRevision: since,
      descriptorVersion: meta.descriptor_version,
      dim: meta.dim,
      maxFaces: checkLimits.packetFaces,
      signal,
    });
    if (packet.kind === "gap") return { feed: packet.gap, changed };
    if (packet.kind === "up_to_date") break;
    for (const faceId of [...packet.upserts.map((upsert) => upsert.faceId), ...packet.removals]) {
      if (changed.find(faceId) !== undefined) continue;
      changed.writeText(entered, faceId);
      changed.link(entered++);
    }
    if (entered > checkLimits.maxChangedFaces) return { feed: "too_many", changed };
    since = packet.toRevision;
  }
  return { feed: "followed", changed };
}

async function compare(
  options: ListComparison,
  snapshot: ListSnapshot,
  feed: FeedReach,
  changed: IdTable,
): Promise<ListFacts> {
  const { ids, known, tolerance, onRead } = options;
  const inList = new Uint8Array(ids.slots);
  const missing = new Examples();
  const phantom = new Examples();
  const different = new Examples();
  let faces = 0;
  let compared = 0;
  let leastSimilarity = 1;
  for await (const { count, faceIds, vectors } of snapshot.batches) {
    faces += count;
    onRead(count);
    for (let row = 0; row < count; row++) {
      const position = ids.table.findBytes(faceIds, row);
      if (position !== undefined) inList[position] = 1;
      if (changed.findBytes(faceIds, row) !== undefined) continue;
      if (position === undefined) {
        missing.add(() => readUuid(faceIds, row * uuidBytes));
        continue;
      }
      const held = known.get(position);
      if (held === undefined) continue;
      compared++;
      const similarity = similarityOf(held, vectors, row);
      leastSimilarity = Math.min(leastSimilarity, similarity);
      // A sum that is no number is different too.
      if (!(Math.abs(1 - similarity) <= tolerance)) different.add(() => ids.textOf(position));
    }
  }
  for (const position of ids.positions) {
    if (inList[position] === 1 || ids.repeats[position] === 1) continue;
    if (changed.live > 0 && changed.find(ids.textOf(position)) !== undefined) continue;
    phantom.add(() => ids.textOf(position));
  }
  return {
    revision: snapshot.revision,
    faces,
    indexFaces: ids.live,
    feed,
    changed: feed === "followed" ? changed.live : 0,
    missing,
    phantom,
    compared: { count: compared, different, leastSimilarity },
  };
}

function similarityOf(held: Float32Array, vectors: Float32Array, row: number): number {
  const start = row * held.length;
  let sum = 0;
  for (let i = 0; i < held.length; i++) sum += (held[i] as number) * (vectors[start + i] as number);
  return sum;
}
