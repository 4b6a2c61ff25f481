import type { EngineName } from "@lim/contracts";
import type { DescriptorBatch, ListSnapshot } from "@lim/faces-db";
import { createKeyedIndex, type KeyedIndex } from "@lim/vector-index";
import { BatchQueue } from "./batch-queue.ts";
import { type BuildContext, type BuiltIndex, emptyList } from "./build-context.ts";
import { type BuildNeed, estimateNeed, preflight } from "./preflight.ts";

/**
 * Rows handed to the engine at once: progress and cancelling are as fine as this. An engine of many threads waits for
 * the last of them at the end of each batch, so its batches are larger.
 */
const batchRowsOf: Record<EngineName, number> = { hnsw: 1024, hnswlib: 256 };
/** Batches of large vectors have fewer rows. */
const maxBatchBytes = 4 * 1024 * 1024;

/**
 * Reads the whole list at one revision and inserts it into a new index. Reading runs ahead of inserting and ends its
 * transaction as soon as Postgres has sent everything.
 */
export async function rebuildFromSnapshot(context: BuildContext): Promise<BuiltIndex> {
  const { request, db, engine, signal } = context;
  const startedMs = context.nowMs();
  const fittingRows = Math.max(1, Math.floor(maxBatchBytes / (request.dim * Float32Array.BYTES_PER_ELEMENT)));
  const batchRows = Math.min(batchRowsOf[request.engine], fittingRows);
  const snapshot = await db.openSnapshot({
    listId: request.list_id,
    descriptorVersion: request.descriptor_version,
    dim: request.dim,
    batchRows,
    signal,
  });
  let keyed: KeyedIndex | undefined;
  try {
    if (snapshot.faceCount === 0) throw emptyList(request);
    context.report("snapshot", 0, snapshot.faceCount);
    const need = estimateNeed(engine, request, snapshot.faceCount);
    await preflight(need, {
      faces: snapshot.faceCount,
      dim: request.dim,
      memoryLimitBytes: context.memoryLimitBytes,
      storageRoot: context.storage.root,
    });
    keyed = createKeyedIndex(
      await engine.create({
        dim: request.dim,
        capacity: snapshot.faceCount,
        params: { m: request.params.m, efConstruction: request.params.ef_construction },
        signal,
      }),
    );
    const phases = await readAndInsert(context, { snapshot, keyed, need, batchRows, startedMs });
    return {
      keyed,
      phases,
      content: {
        historyId: snapshot.historyId,
        revision: snapshot.revision,
        mode: "rebuild",
        removedSinceRebuild: 0,
        skipped: snapshot.skipped,
      },
    };
  } catch (failure) {
    await keyed?.close();
    throw failure;
  } finally {
    await snapshot.close();
  }
}

/** Returns the milliseconds of `snapshot` and `build`, which overlap. */
async function readAndInsert(
  context: BuildContext,
  input: {
    snapshot: ListSnapshot;
    keyed: KeyedIndex;
    need: BuildNeed;
    batchRows: number;
    startedMs: number;
  },
): Promise<{ snapshot: number; build: number }> {
  const { snapshot, keyed } = input;
  const queue = new BatchQueue<HeldBatch>({ maxQueuedBytes: input.need.vectorsBytes });
  const counts = { read: 0, inserted: 0, drained: false };
  let snapshotMs = 0;

  const read = async () => {
    for await (const batch of snapshot.batches) {
      context.signal.throwIfAborted();
      await queue.push(moved(batch));
      counts.read += batch.count;
      context.report("snapshot", counts.read, snapshot.faceCount);
    }
    snapshotMs = context.nowMs() - input.startedMs;
    counts.drained = true;
    context.report("snapshot", counts.read, counts.read);
    context.report("build", counts.inserted, counts.read);
    queue.end();
  };
  const insertStartedMs = context.nowMs();
  const insert = async () => {
    const { dim } = keyed.index;
    const shared = new Float32Array(new SharedArrayBuffer(input.batchRows * dim * 4));
    for (let batch = await queue.take(); batch; batch = await queue.take()) {
      const vectors = shared.subarray(0, batch.count * dim);
      vectors.set(batch.vectors);
      batch.free();
      await keyed.addNew(batch.faceIds, vectors, { signal: context.signal });
      counts.inserted += batch.count;
      if (counts.drained) context.report("build", counts.inserted, counts.read);
    }
  };
  const tellOther = (work: Promise<void>) =>
    work.catch((failure) => {
      queue.fail(failure);
      throw failure;
    });
  // Both are awaited before anything is released: closing the index under a running insertion is not an end.
  const results = await Promise.allSettled([tellOther(read()), tellOther(insert())]);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return { snapshot: snapshotMs, build: context.nowMs() - insertStartedMs };
}

interface HeldBatch extends DescriptorBatch {
  free(): void;
}

/**
 * The batch in pages that go back to the system once it was inserted: while the index grows what waits must shrink, or
 * all vectors would be in memory twice at the end. A collector comes too late for that, and an allocator keeps the pages.
 * The reader's own buffer is given back at once.
 */
function moved({ count, faceIds, vectors }: DescriptorBatch): HeldBatch {
  const { byteLength } = vectors;
  const pages = new ArrayBuffer(byteLength, { maxByteLength: byteLength });
  const own = new Float32Array(pages);
  own.set(vectors);
  if (vectors.buffer instanceof ArrayBuffer) vectors.buffer.transfer(0);
  return { count, faceIds, vectors: own, free: () => pages.resize(0) };
}
