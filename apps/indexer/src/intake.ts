import { uuidBytes } from "@lim/contracts";
import type { DescriptorBatch } from "@lim/faces-db";
import type { KeyedIndex } from "@lim/vector-index";
import { BatchQueue } from "./batch-queue.ts";

/** Between what reads a snapshot and what inserts it, in order. Whoever fails calls `fail`, and the other is told. */
export interface Intake {
  /** Takes what was read, and its arrays; resolves once the next may come. */
  put(batch: DescriptorBatch): Promise<void>;
  /** Everything was put. Resolves once all of it can be inserted. */
  end(): Promise<void>;
  /** Inserts some of what waits; resolves with how many rows, or with undefined once all were inserted. */
  insert(): Promise<number | undefined>;
  fail(reason: unknown): void;
}

/** Rows that are inserted by one call: progress is as fine as this, and threads wait for the last of them at its end. */
const maxSpooledRows = 4096;

/**
 * Vectors go into the index's own file as fast as they are read, and from there into the graph: only their ids wait in
 * memory. `spool` is that of the index.
 */
export function spooledIntake(
  keyed: KeyedIndex,
  spool: NonNullable<KeyedIndex["index"]["spool"]>,
  options: { maxFaces: number; signal: AbortSignal },
): Intake {
  const { signal } = options;
  const ids = new BatchQueue<Uint8Array>({ maxQueuedBytes: options.maxFaces * uuidBytes });
  // One write beside the reading of the next batch.
  let writing: Promise<void> = Promise.resolve();
  const write = async ({ faceIds, vectors }: DescriptorBatch) => {
    await spool(vectors, { signal });
    release(vectors);
    await ids.push(faceIds);
  };
  return {
    async put(batch) {
      await writing;
      writing = write(batch);
      // Heard by the next `put` or by `end`.
      writing.catch(() => {});
    },
    async end() {
      await writing;
      ids.end();
    },
    async insert() {
      const first = await ids.take();
      if (first === undefined) return undefined;
      const parts = [first];
      let room = maxSpooledRows * uuidBytes - first.byteLength;
      for (let next = ids.takeNow(room); next; next = ids.takeNow(room)) {
        parts.push(next);
        room -= next.byteLength;
      }
      const faceIds = new Uint8Array(Buffer.concat(parts));
      await keyed.addNew(faceIds, "spooled", { signal });
      return faceIds.length / uuidBytes;
    },
    fail: (reason) => ids.fail(reason),
  };
}

interface HeldBatch extends DescriptorBatch {
  byteLength: number;
  free(): void;
}

/** Whole batches wait in memory, up to `maxQueuedBytes`: for engines that hold full precision themselves. */
export function queuedIntake(
  keyed: KeyedIndex,
  options: { batchRows: number; maxQueuedBytes: number; signal: AbortSignal },
): Intake {
  const { dim } = keyed.index;
  const queue = new BatchQueue<HeldBatch>(options);
  const shared = new Float32Array(new SharedArrayBuffer(options.batchRows * dim * 4));
  return {
    put: (batch) => queue.push(moved(batch)),
    end: async () => queue.end(),
    async insert() {
      const batch = await queue.take();
      if (batch === undefined) return undefined;
      const vectors = shared.subarray(0, batch.count * dim);
      vectors.set(batch.vectors);
      batch.free();
      await keyed.addNew(batch.faceIds, vectors, { signal: options.signal });
      return batch.count;
    },
    fail: (reason) => queue.fail(reason),
  };
}

/**
 * The batch in pages that go back to the system once it was inserted: while the index grows what waits must shrink, or
 * all vectors would be in memory twice at the end. A collector comes too late for that, and an allocator keeps the pages.
 */
function moved({ count, faceIds, vectors }: DescriptorBatch): HeldBatch {
  const { byteLength } = vectors;
  const pages = new ArrayBuffer(byteLength, { maxByteLength: byteLength });
  const own = new Float32Array(pages);
  own.set(vectors);
  release(vectors);
  return {
    count,
    faceIds,
    vectors: own,
    byteLength: byteLength + faceIds.byteLength,
    free: () => pages.resize(0),
  };
}

/** Gives a reader's buffer back at once. */
function release({ buffer }: Float32Array): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0);
}
