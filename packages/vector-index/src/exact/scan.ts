/** Rows of one piece of the exact search's memory: vectors, ids, and the versions between which each row is visible. */
export interface Chunk {
  /** chunkRows × dim float32. */
  vectors: SharedArrayBuffer;
  /** chunkRows × 16 bytes. */
  ids: SharedArrayBuffer;
  /** chunkRows × 2 int32: visible from version (inclusive), to version (exclusive). */
  versions: SharedArrayBuffer;
}

export interface ChunkView {
  vectors: Float32Array;
  ids: Uint8Array;
  versions: Int32Array;
}

export function viewOf(chunk: Chunk): ChunkView {
  return {
    vectors: new Float32Array(chunk.vectors),
    ids: new Uint8Array(chunk.ids),
    versions: new Int32Array(chunk.versions),
  };
}

export const neverRemoved = 2 ** 31 - 1;

export interface ScanTask {
  dim: number;
  chunkRows: number;
  /** Rows in use when the search was called. */
  rows: number;
  version: number;
  /** One or more queries of dim float32 each. */
  queries: Float32Array;
  /** Of each query. */
  limits: Uint32Array;
  thresholds: Float64Array;
}

/** What one query found, best first: ids 16 bytes each, and similarities. */
export interface ScanResult {
  ids: Uint8Array;
  similarities: Float64Array;
}

function compareIds(a: Uint8Array, aStart: number, b: Uint8Array, bStart: number): number {
  for (let i = 0; i < 16; i++) {
    const difference = (a[aStart + i] as number) - (b[bStart + i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** The best `limit` rows by (similarity descending, id ascending): a heap whose root is the worst one kept. */
class TopRows {
  size = 0;
  private readonly similarities: Float64Array;
  private readonly ids: Uint8Array;
  private readonly limit: number;
  private readonly threshold: number;

  constructor(limit: number, threshold: number) {
    this.limit = limit;
    this.threshold = threshold;
    this.similarities = new Float64Array(limit);
    this.ids = new Uint8Array(limit * 16);
  }

  offer(similarity: number, ids: Uint8Array, idStart: number): void {
    if (similarity < this.threshold) return;
    if (this.size < this.limit) {
      this.set(this.size, similarity, ids, idStart);
      this.rise(this.size++);
      return;
    }
    const worst = this.similarities[0] as number;
    if (similarity < worst) return;
    if (similarity === worst && compareIds(ids, idStart, this.ids, 0) > 0) return;
    this.set(0, similarity, ids, idStart);
    this.sink(0);
  }

  sorted(): ScanResult {
    const order = Array.from({ length: this.size }, (_, i) => i).sort((a, b) => (this.worse(a, b) ? 1 : -1));
    const ids = new Uint8Array(this.size * 16);
    const similarities = new Float64Array(this.size);
    order.forEach((from, to) => {
      ids.set(this.ids.subarray(from * 16, from * 16 + 16), to * 16);
      similarities[to] = this.similarities[from] as number;
    });
    return { ids, similarities };
  }

  private set(at: number, similarity: number, ids: Uint8Array, idStart: number): void {
    this.similarities[at] = similarity;
    for (let i = 0; i < 16; i++) this.ids[at * 16 + i] = ids[idStart + i] as number;
  }

  private worse(a: number, b: number): boolean {
    const left = this.similarities[a] as number;
    const right = this.similarities[b] as number;
    return left !== right ? left < right : compareIds(this.ids, a * 16, this.ids, b * 16) > 0;
  }

  private swap(a: number, b: number): void {
    const similarity = this.similarities[a] as number;
    const id = this.ids.slice(a * 16, a * 16 + 16);
    this.set(a, this.similarities[b] as number, this.ids, b * 16);
    this.set(b, similarity, id, 0);
  }

  private rise(from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.worse(at, parent)) return;
      this.swap(at, parent);
      at = parent;
    }
  }

  private sink(from: number): void {
    let at = from;
    for (;;) {
      const left = at * 2 + 1;
      if (left >= this.size) return;
      const child = left + 1 < this.size && this.worse(left + 1, left) ? left + 1 : left;
      if (!this.worse(child, at)) return;
      this.swap(at, child);
      at = child;
    }
  }
}

/** Always the same order of additions, so that equal vectors have equal similarities whatever else is searched. */
function dot(query: Float64Array, from: number, row: Float32Array, start: number, dim: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (; i + 4 <= dim; i += 4) {
    a += (query[from + i] as number) * (row[start + i] as number);
    b += (query[from + i + 1] as number) * (row[start + i + 1] as number);
    c += (query[from + i + 2] as number) * (row[start + i + 2] as number);
    d += (query[from + i + 3] as number) * (row[start + i + 3] as number);
  }
  for (; i < dim; i++) a += (query[from + i] as number) * (row[start + i] as number);
  return a + b + (c + d);
}

/** Rows whose vectors stay in a core's cache while all queries of a pass look at them. */
const cachedBytes = 128 << 10;

/**
 * Searches the rows that are visible at the task's version. Rows may be changed meanwhile by the thread
 * that owns them: a row's versions are read atomically and say whether it belongs to this version, and a row that
 * does is not overwritten while the task runs.
 */
export function scan(chunks: readonly ChunkView[], task: ScanTask): ScanResult[] {
  const { dim, chunkRows, rows, version } = task;
  const queryCount = task.limits.length;
  const queries = Float64Array.from(task.queries);
  const best = Array.from(
    { length: queryCount },
    (_, q) => new TopRows(task.limits[q] as number, task.thresholds[q] as number),
  );
  const blockRows = Math.max(1, Math.floor(cachedBytes / (dim * 4)));
  const visible = new Uint32Array(blockRows);
  for (let first = 0; first < rows; ) {
    const chunk = chunks[Math.floor(first / chunkRows)] as ChunkView;
    const chunkStart = first % chunkRows;
    const end = Math.min(chunkStart + blockRows, chunkRows, chunkStart + rows - first);
    let count = 0;
    for (let row = chunkStart; row < end; row++) {
      // The end is read first: a reused row gets its new beginning before its end is taken back.
      if (Atomics.load(chunk.versions, row * 2 + 1) <= version) continue;
      if (Atomics.load(chunk.versions, row * 2) > version) continue;
      visible[count++] = row;
    }
    for (let q = 0; q < queryCount; q++) {
      const top = best[q] as TopRows;
      for (let i = 0; i < count; i++) {
        const row = visible[i] as number;
        const product = dot(queries, q * dim, chunk.vectors, row * dim, dim);
        top.offer(product <= 0 ? 0 : product >= 1 ? 1 : product, chunk.ids, row * 16);
      }
    }
    first += end - chunkStart;
  }
  return best.map((top) => top.sorted());
}
