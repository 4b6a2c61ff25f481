import type { EngineName } from "@lim/contracts";
import type { ListSnapshot } from "@lim/faces-db";
import { createKeyedIndex, type KeyedIndex } from "@lim/vector-index";
import { type BuildContext, type BuiltIndex, emptyList } from "./build-context.ts";
import { type Intake, queuedIntake, spooledIntake } from "./intake.ts";
import { createSnapshotPacer, type SnapshotPacer } from "./pace.ts";
import { type BuildNeed, estimateNeed, preflight } from "./preflight.ts";

/** Rows that are read before they are handed on; an engine without a file of its own inserts as many at once. */
const batchRowsOf: Record<EngineName, number> = { hnsw: 1024, hnswlib: 256 };
/** Batches of large vectors have fewer rows. */
const maxBatchBytes = 4 * 1024 * 1024;

/**
 * Reads the whole list at one revision and inserts it into a new index, whose vectors go to `vectorsPath` where the
 * engine builds out of a file. Reading runs ahead of inserting and ends its transaction as soon as Postgres has sent
 * everything.
 */
export async function rebuildFromSnapshot(context: BuildContext, vectorsPath: string): Promise<BuiltIndex> {
  const { request, db, engine, signal } = context;
  const startedMs = context.nowMs();
  const fittingRows = Math.max(1, Math.floor(maxBatchBytes / (request.dim * Float32Array.BYTES_PER_ELEMENT)));
  const batchRows = Math.min(batchRowsOf[request.engine], fittingRows);
  const pacer = createSnapshotPacer({ bytesPerS: context.snapshotBytesPerS, nowMs: context.nowMs });
  const snapshot = await db.openSnapshot({
    listId: request.list_id,
    descriptorVersion: request.descriptor_version,
    dim: request.dim,
    batchRows,
    pace: pacer.pace,
    signal,
  });
  let keyed: KeyedIndex | undefined;
  try {
    if (snapshot.faceCount === 0) throw emptyList(request);
    context.report("snapshot", 0, snapshot.faceCount);
    const inFile = engine.createSpooled !== undefined;
    const need = estimateNeed(engine, request, snapshot.faceCount, { inFile });
    await preflight(need, {
      faces: snapshot.faceCount,
      dim: request.dim,
      memoryLimitBytes: context.memoryLimitBytes,
      storageRoot: context.storage.root,
    });
    keyed = await createIndex(context, snapshot.faceCount, vectorsPath);
    const intake = intakeOf(context, { keyed, maxFaces: snapshot.faceCount, need, batchRows });
    const phases = await readAndInsert(context, { snapshot, intake, pacer, startedMs });
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

async function createIndex(
  { engine, request, signal }: BuildContext,
  capacity: number,
  vectorsPath: string,
): Promise<KeyedIndex> {
  const params = { m: request.params.m, efConstruction: request.params.ef_construction };
  const options = { dim: request.dim, capacity, params, signal };
  return createKeyedIndex(
    engine.createSpooled
      ? await engine.createSpooled({ ...options, vectors: vectorsPath })
      : await engine.create(options),
  );
}

function intakeOf(
  { signal }: BuildContext,
  input: { keyed: KeyedIndex; maxFaces: number; need: BuildNeed; batchRows: number },
): Intake {
  const { keyed, maxFaces, need, batchRows } = input;
  const { index } = keyed;
  return index.spool
    ? spooledIntake(keyed, index.spool, { maxFaces, signal })
    : queuedIntake(keyed, { batchRows, maxQueuedBytes: need.waitingBytes, signal });
}

/** Returns the milliseconds of `snapshot` and `build`, which overlap. */
async function readAndInsert(
  context: BuildContext,
  input: { snapshot: ListSnapshot; intake: Intake; pacer: SnapshotPacer; startedMs: number },
): Promise<{ snapshot: number; build: number }> {
  const { snapshot, intake, pacer } = input;
  const counts = { read: 0, inserted: 0, drained: false };
  let snapshotMs = 0;

  const read = async () => {
    for await (const batch of snapshot.batches) {
      context.signal.throwIfAborted();
      const { count } = batch;
      await intake.put(batch);
      counts.read += count;
      pacer.read(counts.read);
      context.report("snapshot", counts.read, snapshot.faceCount);
    }
    await intake.end();
    snapshotMs = context.nowMs() - input.startedMs;
    counts.drained = true;
    context.report("snapshot", counts.read, counts.read);
    context.report("build", counts.inserted, counts.read);
  };
  const insertStartedMs = context.nowMs();
  const insert = async () => {
    for (let rows = await intake.insert(); rows !== undefined; rows = await intake.insert()) {
      counts.inserted += rows;
      pacer.inserted(counts.inserted);
      if (counts.drained) context.report("build", counts.inserted, counts.read);
    }
  };
  const tellOther = (work: Promise<void>) =>
    work.catch((failure) => {
      intake.fail(failure);
      throw failure;
    });
  // Both are awaited before anything is released: closing the index under a running insertion is not an end.
  const results = await Promise.allSettled([tellOther(read()), tellOther(insert())]);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return { snapshot: snapshotMs, build: context.nowMs() - insertStartedMs };
}
