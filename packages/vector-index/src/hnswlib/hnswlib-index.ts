import { LimError } from "@lim/contracts";
import { vectorIndexLimits } from "../limits.ts";
import type {
  Cancellable,
  EngineFiles,
  EngineParams,
  PlacedVectors,
  SearchResults,
  VectorIndex,
} from "../port.ts";
import { assertPlaced } from "../positions.ts";
import type { EngineRequest } from "./protocol.ts";
import { abortedBy, EngineThread, type Steps } from "./thread.ts";

/** Bytes that every index costs whatever its size: the thread, the library's 65,536 label locks. */
const fixedBytes = 12 << 20;

/** Upper estimate for one index: elements, their tables in the library (locks, levels, label map, visited marks), upper links. */
export function estimateBytes(dim: number, capacity: number, m: number): number {
  const element = 2 * m * 4 + 4 + dim * 4 + 8;
  const tables = 40 + 4 + 8 + 2 + 48 + 1;
  const upperLinks = (m * 4 + 24) / (m - 1);
  return Math.ceil(fixedBytes + capacity * (element + tables + upperLinks));
}

function assertCount(name: string, value: number, lowest: number, highest: number): void {
  if (!Number.isInteger(value) || value < lowest || value > highest)
    throw new LimError("bad_input", `${name} must be an integer from ${lowest} to ${highest}, got ${value}`);
}

export function assertShape(dim: number, params: EngineParams): void {
  assertCount("dim", dim, 1, 65_536);
  assertCount("m", params.m, 2, 1_000);
  assertCount("efConstruction", params.efConstruction, 1, 1_000_000);
  if (params.seed !== undefined) assertCount("seed", params.seed, 0, 2 ** 32 - 1);
}

function ownCopy<T extends Float32Array | Uint32Array>(array: T): { copy: T; transfer: ArrayBuffer[] } {
  const copy = array.slice() as T;
  return { copy, transfer: [copy.buffer as ArrayBuffer] };
}

/** The first of consecutive positions, which are all that the library can take. */
function firstOf(positions: Uint32Array): number {
  const first = positions[0] ?? 0;
  positions.forEach((position, i) => {
    if (position !== first + i)
      throw new LimError(
        "bad_input",
        `hnswlib takes consecutive positions only, got ${position} as number ${i} from ${first}`,
      );
  });
  return first;
}

function sharedCopy(vectors: Float32Array): Float32Array {
  if (vectors.buffer instanceof SharedArrayBuffer) return vectors;
  const shared = new Float32Array(new SharedArrayBuffer(vectors.byteLength));
  shared.set(vectors);
  return shared;
}

/** A VectorIndex whose engine object lives in a thread of its own and is never touched by another. */
export class HnswlibIndex implements VectorIndex {
  readonly engine: { name: "hnswlib"; version: string };
  readonly dim: number;
  readonly reusesPositions = false;
  /** Sums of float32 products. */
  readonly similarityTolerance = 1e-4;
  readonly thread: EngineThread;
  private readonly m: number;

  private constructor(thread: EngineThread, version: string, dim: number, m: number) {
    this.thread = thread;
    this.engine = { name: "hnswlib", version };
    this.dim = dim;
    this.m = m;
  }

  static async start(
    version: string,
    dim: number,
    m: number,
    message: EngineRequest,
    signal: AbortSignal | undefined,
  ): Promise<HnswlibIndex> {
    const thread = new EngineThread();
    try {
      const steps = (function* (): Steps<void> {
        yield { message };
      })();
      await thread.call(steps, { signal });
      return new HnswlibIndex(thread, version, dim, m);
    } catch (thrown) {
      await thread.close();
      throw thrown;
    }
  }

  get slots(): number {
    return this.thread.state.slots;
  }

  get count(): number {
    return this.thread.state.count;
  }

  get capacity(): number {
    return this.thread.state.capacity;
  }

  get memoryBytes(): number {
    return estimateBytes(this.dim, this.capacity, this.m);
  }

  async add(positions: Uint32Array, vectors: Float32Array, options: Cancellable = {}): Promise<void> {
    assertPlaced({ positions, vectors }, this.dim);
    if (positions.length <= vectorIndexLimits.addSliceRows)
      return this.change({ add: { positions, vectors }, remove: new Uint32Array() }, options);
    const first = firstOf(positions);
    // Copied now, not when its turn comes: the caller may use the array again meanwhile.
    const shared = sharedCopy(vectors);
    await this.thread.call(addInSlices(first, shared, this.dim, options.signal), {
      signal: options.signal,
      overtakers: vectorIndexLimits.maxQueriesBetweenSlices,
    });
  }

  async remove(positions: Uint32Array, options: Cancellable = {}): Promise<void> {
    const add = { positions: new Uint32Array(), vectors: new Float32Array() };
    await this.change({ add, remove: positions }, options);
  }

  async change(
    change: { add: PlacedVectors; remove: Uint32Array },
    options: Cancellable = {},
  ): Promise<void> {
    assertPlaced(change.add, this.dim);
    const first = firstOf(change.add.positions);
    if (change.add.positions.length > vectorIndexLimits.changeSliceRows) {
      const add = sharedCopy(change.add.vectors);
      await this.thread.call(changeInSlices(first, add, change.remove.slice(), this.dim), {
        signal: options.signal,
        overtakers: vectorIndexLimits.maxQueriesInChange,
      });
      return;
    }
    const add = ownCopy(change.add.vectors);
    const remove = ownCopy(change.remove);
    const steps = (function* (): Steps<void> {
      yield {
        message: { op: "change", first, add: add.copy, remove: remove.copy },
        transfer: [...add.transfer, ...remove.transfer],
      };
    })();
    await this.thread.call(steps, options);
  }

  async search(
    queries: Float32Array,
    options: Cancellable & { k: number; ef: number },
  ): Promise<SearchResults> {
    const { k, ef } = options;
    this.assertRows(queries);
    assertCount("k", k, 1, vectorIndexLimits.maxSearchK);
    assertCount("ef", ef, 1, vectorIndexLimits.maxSearchEf);
    assertCount("queries × k", (queries.length / this.dim) * k, 0, vectorIndexLimits.maxSearchResults);
    const { copy, transfer } = ownCopy(queries);
    const steps = (function* (): Steps<SearchResults> {
      const reply = yield { message: { op: "search", queries: copy, k, ef }, transfer };
      const { counts, positions, values } = reply;
      if (!counts || !positions || !values) throw new LimError("engine_failed", "search reply lacks results");
      return { k, counts, positions, similarities: values };
    })();
    const queryCount = queries.length / this.dim;
    return this.thread.call(steps, { signal: options.signal, readOnly: true, queries: queryCount });
  }

  async read(positions: Uint32Array, options: Cancellable = {}): Promise<Float32Array> {
    const { copy, transfer } = ownCopy(positions);
    const steps = (function* (): Steps<Float32Array> {
      const reply = yield { message: { op: "read", positions: copy }, transfer };
      if (!reply.values) throw new LimError("engine_failed", "read reply lacks vectors");
      return reply.values;
    })();
    return this.thread.call(steps, { signal: options.signal, readOnly: true });
  }

  async save({ index: path }: EngineFiles, options: Cancellable = {}): Promise<{ vectors: boolean }> {
    const steps = (function* (): Steps<void> {
      yield { message: { op: "save", path } };
    })();
    await this.thread.call(steps, options);
    return { vectors: false };
  }

  close(): Promise<void> {
    return this.thread.close();
  }

  private assertRows(vectors: Float32Array): void {
    if (vectors.length % this.dim !== 0)
      throw new LimError("bad_input", `${vectors.length} values are no multiple of ${this.dim} dimensions`);
  }
}

/**
 * All rows are checked first, then added slice by slice out of one shared copy. An abort or a failure in
 * between hides what was added: its positions stay used, no search returns them.
 */
function* addInSlices(
  first: number,
  shared: Float32Array,
  dim: number,
  signal: AbortSignal | undefined,
): Steps<void> {
  const none = new Uint32Array();
  yield { message: { op: "check", vectors: shared, remove: none } };
  const sliceValues = vectorIndexLimits.addSliceRows * dim;
  let added = 0;
  try {
    for (let start = 0; start < shared.length; start += sliceValues) {
      if (signal?.aborted) throw abortedBy(signal);
      const slice = shared.subarray(start, start + sliceValues);
      yield { message: { op: "change", first: first + added, add: slice, remove: none } };
      added += slice.length / dim;
    }
  } catch (thrown) {
    const remove = Uint32Array.from({ length: added }, (_, i) => first + i);
    yield { message: { op: "change", first: 0, add: new Float32Array(), remove } };
    throw thrown;
  }
}

/**
 * Rows are inserted slice by slice, with searches in between that do not return them; the last step shows them all and
 * hides what is removed. Where one fails, the thread hides what was inserted: its positions stay used.
 */
function* changeInSlices(first: number, shared: Float32Array, remove: Uint32Array, dim: number): Steps<void> {
  yield { message: { op: "check", vectors: shared, remove } };
  const sliceValues = vectorIndexLimits.changeSliceRows * dim;
  for (let start = 0; start < shared.length; start += sliceValues) {
    const add = shared.subarray(start, start + sliceValues);
    const at = first + start / dim;
    if (start + sliceValues < shared.length) yield { message: { op: "insert", first: at, add } };
    else yield { message: { op: "change", first: at, add, remove } };
  }
}
