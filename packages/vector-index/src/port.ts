import type { EngineName } from "@lim/contracts";

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

export interface EngineParams {
  /** Neighbours per node above level 0 (2 × m on level 0). */
  m: number;
  efConstruction: number;
  /** Seed of the level generator: one seed and one order of insertion give one graph. */
  seed?: number;
}

/** Neighbours of `queryCount` queries, `k` slots each; slots past `counts[q]` hold no neighbour. */
export interface SearchResults {
  k: number;
  counts: Uint32Array;
  /** queryCount × k positions, best first within a query. */
  positions: Uint32Array;
  /** queryCount × k similarities (cosine clipped to 0..1). */
  similarities: Float32Array;
}

/**
 * Approximate index over unit vectors that are addressed by dense positions 0..slots-1. All work runs off
 * the caller's thread; calls on one index are carried out one after another, in call order. One exception: a
 * long `add` goes in slices, between which searches and reads run and its signal is heard; its rows become
 * visible slice by slice, and an abort or failure hides those added so far (their positions stay used).
 * Every method throws LimError: `bad_input` for arguments (checked before any native code sees them),
 * `engine_failed` for what the engine reports or when its thread died, `aborted` when the signal fired
 * before the work began.
 */
export interface VectorIndex {
  readonly engine: { name: EngineName; version: string };
  readonly dim: number;
  /** Positions handed out so far, removed ones included. */
  readonly slots: number;
  /** Positions that a search can return. */
  readonly count: number;
  readonly capacity: number;
  /** Estimated resident bytes, all threads. */
  readonly memoryBytes: number;
  /**
   * Adds `vectors` (n × dim, unit norm, row by row) and returns the first of their n consecutive positions.
   * Grows the capacity when needed. Rows must be finite and of unit norm within 1e-3, else `bad_input`
   * and nothing is added. The array is copied at the call, unless its buffer is shared: then it is not
   * copied and must not change before the promise settles.
   */
  add(vectors: Float32Array, options?: Cancellable): Promise<number>;
  /** Hides positions from all later searches. Unknown or already removed positions are `bad_input`, nothing changes. */
  remove(positions: Uint32Array, options?: Cancellable): Promise<void>;
  /** Adds and removes as one step: no search sees one without the other. Returns the first position of the added. */
  change(change: { add: Float32Array; remove: Uint32Array }, options?: Cancellable): Promise<number>;
  /** `queries` is n × dim. `k` above the count gives fewer results; `ef` below k is raised to k. */
  search(queries: Float32Array, options: Cancellable & { k: number; ef: number }): Promise<SearchResults>;
  /** Vectors as the engine holds them, n × dim. For verification and sampled recall. */
  read(positions: Uint32Array, options?: Cancellable): Promise<Float32Array>;
  /** Writes the engine's file; resolves when its bytes were written and read back by size. Not durable: no fsync. */
  save(path: string, options?: Cancellable): Promise<void>;
  /** Ends its threads and hands its memory back. Pending calls reject with `aborted`. Idempotent. */
  close(): Promise<void>;
}

export interface EngineAdapter {
  readonly name: EngineName;
  readonly version: string;
  create(
    options: Cancellable & { dim: number; capacity: number; params: EngineParams },
  ): Promise<VectorIndex>;
  /**
   * Loads a file into a new object. The caller has verified the file's checksum and keeps it unchanged
   * meanwhile. The header is checked against `dim` and `slots` before the engine reads it;
   * `removed` positions are checked to be hidden. Throws `index_refused` on anything that does not fit.
   */
  load(
    options: Cancellable & {
      path: string;
      dim: number;
      slots: number;
      removed: Uint32Array;
      params: EngineParams;
    },
  ): Promise<VectorIndex>;
  /** Upper estimate of resident bytes of an index. */
  estimateMemoryBytes(options: { dim: number; capacity: number; params: EngineParams }): number;
}
