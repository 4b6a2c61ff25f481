import type { EngineName } from "@lim/contracts";

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

export interface EngineParams {
  /** Neighbours per node above level 0 (2 × m on level 0). */
  m: number;
  efConstruction: number;
  /** Seed of the level generator: one seed, one order of insertion and one thread give one graph. */
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

/** Vectors (n × dim, unit norm, row by row) and where each goes. */
export interface PlacedVectors {
  /** n distinct positions. */
  positions: Uint32Array;
  vectors: Float32Array;
}

/** Paths of an index's files. */
export interface EngineFiles {
  index: string;
  /** Vectors in full precision, where the engine keeps them apart from the graph. */
  vectors?: string;
}

/** What a walk over an engine's graph found. Counts are of live positions. */
export interface GraphInspection {
  /** Those that links lead to from where a search begins. */
  reachable: number;
  /** Those that no search by the graph can find. */
  unreachable: number;
  links: number;
  /** Links that lead nowhere, to their own vector, or twice to the same: none in a sound graph. */
  badLinks: number;
  /** The first few things that must not be. */
  problems: string[];
}

/**
 * Approximate index over unit vectors at positions that the caller names. All work runs off the caller's thread.
 * Changes of one index are carried out one after another, in call order. Searches and reads run between or beside
 * them: they see every change whose promise had settled when they were called, and of one that runs meanwhile all or
 * nothing. One exception: a long `add` goes in slices, its rows become visible slice by slice, and its signal is heard
 * in between; an abort or failure hides those added so far.
 * Every method throws LimError: `bad_input` for arguments (checked before the engine sees them, nothing changes),
 * `out_of_memory` where a change passes what the engine can hold, `engine_failed` for what the engine reports or when
 * its thread died, `overloaded` past the limit of waiting calls, `aborted` when the signal fired before the work began.
 */
export interface VectorIndex {
  readonly engine: { name: EngineName; version: string };
  readonly dim: number;
  /**
   * Whether a removed position may be given to another vector, and `change` may replace the vector of a live one.
   * Where false every added position must be new and they must be consecutive: slots, slots + 1, …
   */
  readonly reusesPositions: boolean;
  /** One past the highest position that was ever used, also by a change that failed half way. */
  readonly slots: number;
  /** Positions that a search can return. */
  readonly count: number;
  readonly capacity: number;
  /** Estimated resident bytes, all threads. */
  readonly memoryBytes: number;
  /** How far a reported similarity may lie from the exact one. */
  readonly similarityTolerance: number;
  /**
   * Adds vectors at positions that hold none, and grows the capacity when needed. Rows must be finite and of unit norm
   * within 1e-3, else `bad_input` and nothing is added. Arrays are copied at the call, unless their buffer is shared:
   * then they are not copied and must not change before the promise settles.
   * `threads`: that insert at once, where the engine can; default all. With one the graph depends on nothing but the
   * seed and the order of insertion.
   */
  add(
    positions: Uint32Array,
    vectors: Float32Array,
    options?: Cancellable & { threads?: number },
  ): Promise<void>;
  /**
   * Writes vectors (n × dim) behind those in the index's own file of vectors, to be inserted by `addSpooled`: what waits
   * for its turn is in no memory. Calls write one after another, beside whatever runs, and their arrays must not change
   * meanwhile. Nothing is looked at here: rows must be of unit norm. `disk_full` where the disk is, `storage_unavailable`
   * where the system refuses a write. Present where the index is one of `createSpooled`.
   */
  spool?(vectors: Float32Array, options?: Cancellable): Promise<void>;
  /**
   * Inserts the `count` vectors that were spooled first and are not in the index yet, at the positions slots, slots + 1,
   * …; the signal is heard within it. A row that is not finite is `bad_input`. As `add` in all else.
   */
  addSpooled?(count: number, options?: Cancellable & { threads?: number }): Promise<void>;
  /** Hides positions from all later searches. Unknown or already removed positions are `bad_input`, nothing changes. */
  remove(positions: Uint32Array, options?: Cancellable): Promise<void>;
  /**
   * Adds and removes as one step: no search sees one without the other. With `reusesPositions` an added position may
   * be a live one, whose vector is replaced. A position in both lists is `bad_input`.
   */
  change(change: { add: PlacedVectors; remove: Uint32Array }, options?: Cancellable): Promise<void>;
  /**
   * As `change` of each in turn, but the engine begins the next before one is visible. `onApplied` is told the number of
   * each in the turn in which it becomes visible. Where it fails or is aborted those applied stay and nothing of the others is left. No position
   * may be in two of them. Absent where an engine gains nothing by it.
   */
  changeInSteps?(
    changes: readonly { add: PlacedVectors; remove: Uint32Array }[],
    options: Cancellable & { onApplied: (change: number) => void },
  ): Promise<void>;
  /** `queries` is n × dim. `k` above the count gives fewer results; `ef` below k is raised to k. */
  search(queries: Float32Array, options: Cancellable & { k: number; ef: number }): Promise<SearchResults>;
  /** Vectors as the engine holds them, n × dim, of unit norm. For verification and sampled recall. */
  read(positions: Uint32Array, options?: Cancellable): Promise<Float32Array>;
  /** Walks the whole graph, off the caller's thread. Absent where an engine does not tell. */
  inspect?(options?: Cancellable): Promise<GraphInspection>;
  /**
   * Writes the engine's files; resolves when their bytes were written and are whole. Not durable: no fsync. Tells
   * whether there is a file of vectors. That of `createSpooled` is finished where it lies when it is named here: it
   * stays, and the index takes no more vectors.
   */
  save(files: Required<EngineFiles>, options?: Cancellable): Promise<{ vectors: boolean }>;
  /** Ends its threads and hands its memory back. Pending calls reject with `aborted`. Idempotent. */
  close(): Promise<void>;
}

/** Where an engine that keeps vectors apart from its graph holds their full precision, by which it re-ranks. */
export const rerankKinds = ["float32", "float16", "file", "off"] as const;
export type RerankKind = (typeof rerankKinds)[number];
export const defaultRerank: RerankKind = "float32";

/** How an engine is to run. Engines to which an option means nothing ignore it. */
export interface EngineOptions {
  rerank?: RerankKind;
}

export interface EngineAdapter {
  readonly name: EngineName;
  readonly version: string;
  /** Whether `load` reads the file of vectors, where there is one. */
  readonly readsVectors: boolean;
  create(
    options: Cancellable & { dim: number; capacity: number; params: EngineParams },
  ): Promise<VectorIndex>;
  /**
   * As `create`, of an index whose vectors in full precision are in the file `vectors`, which is made anew, and not in
   * memory. They come by `spool` and `addSpooled` alone: what else adds is `bad_input`. Unless `save` has finished the
   * file, `close` deletes it. Absent where an engine has no such file.
   */
  createSpooled?(
    options: Cancellable & { dim: number; capacity: number; params: EngineParams; vectors: string },
  ): Promise<VectorIndex>;
  /**
   * Loads files into a new object. The caller has verified their checksums and keeps them unchanged meanwhile; they
   * may go once the promise has settled. With `inPlace` the engine may go on reading the file of vectors instead of
   * holding or copying it: it stays as it is until `close`, and what would add a vector is `bad_input`. What they hold is checked against `dim`, `slots` and `params.m` before it is
   * used, and the live positions must be 0..slots-1 without `removed`. Throws `index_refused` on anything that does
   * not fit, `out_of_memory` on what the engine cannot hold.
   */
  load(
    options: Cancellable & {
      files: EngineFiles;
      dim: number;
      slots: number;
      removed: Uint32Array;
      params: EngineParams;
      inPlace?: boolean;
    },
  ): Promise<VectorIndex>;
  /** Upper estimate of resident bytes of an index; `spooled`: of one that `createSpooled` made. */
  estimateMemoryBytes(options: {
    dim: number;
    capacity: number;
    params: EngineParams;
    spooled?: boolean;
  }): number;
}
