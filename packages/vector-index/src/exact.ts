import { LimError, type Match, readUuid, uuidBytes, writeUuid } from "@lim/contracts";
import { type ChunkSource, scanPool, type WaitingQuery } from "./exact/pool.ts";
import { type Chunk, type ChunkView, neverRemoved, type ScanResult, viewOf } from "./exact/scan.ts";
import { assertIdBytes, IdTable } from "./id-table.ts";
import type { Cancellable } from "./port.ts";
import { vectorFault } from "./vectors.ts";

/**
 * Exact search over unit vectors: the oracle of tests and the fallback of the search plugin. float32, brute force,
 * in worker threads on shared memory, so that the caller's event loop stays free.
 */
export interface ExactIndex {
  readonly dim: number;
  readonly count: number;
  readonly memoryBytes: number;
  upsert(faces: readonly { faceId: string; vector: Float32Array }[]): void;
  /** Bulk form: faceIds n × 16 bytes, vectors n × dim. */
  upsertMany(faceIds: Uint8Array, vectors: Float32Array): void;
  remove(faceIds: readonly string[]): void;
  /** Sees every change made before the call and none made after it. Ties are ordered by face id. */
  search(
    queries: Float32Array,
    options: Cancellable & { limit: number; threshold?: number },
  ): Promise<Match[][]>;
  close(): Promise<void>;
}

export function createExactIndex(options: { dim: number; capacity?: number }): ExactIndex {
  const { dim, capacity = 0 } = options;
  if (!Number.isInteger(dim) || dim < 1 || dim > 65_536)
    throw new LimError("bad_input", `dim must be an integer from 1 to 65536, got ${dim}`);
  return new ScannedIndex(dim, capacity);
}

/** Bytes of vectors in one chunk: growing never moves what is there. */
const chunkBytes = 1 << 20;

/**
 * Rows are never changed in place while a search may read them: a change writes new rows that are visible from the
 * next version on and ends the old ones, whose place is used again once the last search of an older version is over.
 */
class ScannedIndex implements ExactIndex, ChunkSource {
  readonly dim: number;
  readonly chunkRows: number;
  readonly chunks: Chunk[] = [];
  private readonly views: ChunkView[] = [];
  private readonly ids: IdTable;
  private rows = 0;
  private version = 1;
  /** Ended rows, oldest first. */
  private ended: { row: number; version: number }[] = [];
  /** How many of `ended` were used again. */
  private endedTaken = 0;
  /** Searches that run or wait, by the version that they see. */
  private readonly readers = new Map<number, number>();
  private readonly unsettled = new Set<(error: LimError) => void>();
  private closing: Promise<void> | undefined;

  constructor(dim: number, capacity: number) {
    this.dim = dim;
    this.chunkRows = Math.max(16, Math.floor(chunkBytes / (dim * 4)));
    this.ids = new IdTable(capacity);
    scanPool.register();
  }

  get count(): number {
    return this.ids.live;
  }

  get memoryBytes(): number {
    return this.chunks.length * this.chunkRows * (this.dim * 4 + uuidBytes + 8) + this.ids.byteLength;
  }

  upsert(faces: readonly { faceId: string; vector: Float32Array }[]): void {
    const faceIds = new Uint8Array(faces.length * uuidBytes);
    const vectors = new Float32Array(faces.length * this.dim);
    faces.forEach(({ faceId, vector }, i) => {
      if (vector.length !== this.dim)
        throw new LimError("bad_input", `vector of face ${faceId} has ${vector.length} dimensions`);
      writeUuid(faceId, faceIds, i * uuidBytes);
      vectors.set(vector, i * this.dim);
    });
    this.upsertMany(faceIds, vectors);
  }

  upsertMany(faceIds: Uint8Array, vectors: Float32Array): void {
    this.assertOpen();
    const fault = vectorFault(vectors, this.dim);
    if (fault) throw new LimError("bad_input", fault);
    const count = vectors.length / this.dim;
    assertIdBytes(faceIds, count);
    const next = this.nextVersion();
    for (let i = 0; i < count; i++) {
      const held = this.ids.findBytes(faceIds, i);
      const row = this.takeRow();
      const view = this.viewAt(row);
      const at = row % this.chunkRows;
      const id = faceIds.subarray(i * uuidBytes, (i + 1) * uuidBytes);
      view.vectors.set(vectors.subarray(i * this.dim, (i + 1) * this.dim), at * this.dim);
      view.ids.set(id, at * uuidBytes);
      Atomics.store(view.versions, at * 2, next);
      Atomics.store(view.versions, at * 2 + 1, neverRemoved);
      this.ids.write(row, id);
      this.ids.link(row);
      if (held !== undefined) this.endRow(held, next);
    }
    this.version = next;
  }

  remove(faceIds: readonly string[]): void {
    this.assertOpen();
    const held = new Set<number>();
    for (const faceId of faceIds) {
      const row = this.ids.find(faceId);
      if (row !== undefined) held.add(row);
    }
    const next = this.nextVersion();
    for (const row of held) {
      this.ids.unlink(row);
      this.endRow(row, next);
    }
    this.version = next;
  }

  async search(
    queries: Float32Array,
    options: Cancellable & { limit: number; threshold?: number },
  ): Promise<Match[][]> {
    const { limit, threshold = 0, signal } = options;
    this.assertOpen();
    const fault = vectorFault(queries, this.dim);
    if (fault) throw new LimError("bad_input", fault);
    if (!Number.isInteger(limit) || limit < 1) throw new LimError("bad_input", `limit is ${limit}`);
    if (!(threshold >= 0)) throw new LimError("bad_input", `threshold is ${threshold}`);
    if (signal?.aborted) throw new LimError("aborted", "cancelled by the caller");
    const queryCount = queries.length / this.dim;
    if (this.count === 0 || queryCount === 0) return Array.from({ length: queryCount }, () => []);
    const { version, rows } = this;
    const own = queries.slice();
    this.readers.set(version, (this.readers.get(version) ?? 0) + 1);
    let pending = 0;
    const leave = () => {
      pending--;
      if (pending > 0) return;
      const left = (this.readers.get(version) ?? 1) - 1;
      if (left > 0) this.readers.set(version, left);
      else this.readers.delete(version);
    };
    return new Promise<Match[][]>((resolve, reject) => {
      const answers: Match[][] = new Array(queryCount);
      let answered = 0;
      const settle = () => {
        signal?.removeEventListener("abort", onAbort);
        this.unsettled.delete(fail);
      };
      const fail = (error: LimError) => {
        settle();
        reject(error);
      };
      const waiting: WaitingQuery[] = Array.from({ length: queryCount }, (_, i) => ({
        source: this,
        query: own.subarray(i * this.dim, (i + 1) * this.dim),
        limit: Math.min(limit, this.count),
        threshold,
        rows,
        version,
        done: (result) => {
          leave();
          answers[i] = matchesOf(result);
          answered++;
          if (answered < queryCount) return;
          settle();
          resolve(answers);
        },
        failed: (error) => {
          leave();
          fail(error);
        },
      }));
      const onAbort = () => {
        const cancelled = scanPool.cancel(new Set(waiting));
        for (let i = 0; i < cancelled; i++) leave();
        fail(new LimError("aborted", "cancelled by the caller"));
      };
      pending = queryCount;
      signal?.addEventListener("abort", onAbort, { once: true });
      this.unsettled.add(fail);
      try {
        scanPool.enqueue(waiting);
      } catch (thrown) {
        pending = 1;
        leave();
        fail(LimError.from(thrown));
      }
    });
  }

  close(): Promise<void> {
    this.closing ??= (async () => {
      for (const fail of [...this.unsettled]) fail(new LimError("aborted", "the index was closed"));
      await scanPool.release(this);
    })();
    return this.closing;
  }

  private assertOpen(): void {
    if (this.closing) throw new LimError("aborted", "the index was closed");
  }

  private nextVersion(): number {
    const next = this.version + 1;
    if (next >= neverRemoved)
      throw new LimError("overloaded", "the index has seen too many changes, load it anew");
    return next;
  }

  private viewAt(row: number): ChunkView {
    return this.views[Math.floor(row / this.chunkRows)] as ChunkView;
  }

  private endRow(row: number, version: number): void {
    Atomics.store(this.viewAt(row).versions, (row % this.chunkRows) * 2 + 1, version);
    this.ended.push({ row, version });
  }

  private takeRow(): number {
    const oldest = this.ended[this.endedTaken];
    if (oldest) {
      let oldestReader = this.version;
      for (const version of this.readers.keys()) if (version < oldestReader) oldestReader = version;
      // Rows that this very change has ended are still visible to searches of the version before it.
      if (oldest.version <= oldestReader) {
        this.endedTaken++;
        if (this.endedTaken * 2 > this.ended.length) {
          this.ended = this.ended.slice(this.endedTaken);
          this.endedTaken = 0;
        }
        return oldest.row;
      }
    }
    if (this.rows === this.chunks.length * this.chunkRows) {
      const chunk: Chunk = {
        vectors: new SharedArrayBuffer(this.chunkRows * this.dim * 4),
        ids: new SharedArrayBuffer(this.chunkRows * uuidBytes),
        versions: new SharedArrayBuffer(this.chunkRows * 8),
      };
      this.chunks.push(chunk);
      this.views.push(viewOf(chunk));
    }
    return this.rows++;
  }
}

function matchesOf(result: ScanResult): Match[] {
  return Array.from(
    result.similarities,
    (similarity, i): Match => [readUuid(result.ids, i * uuidBytes), similarity],
  );
}
