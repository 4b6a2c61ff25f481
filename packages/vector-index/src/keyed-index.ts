import type { Match } from "@lim/contracts";
import type { Cancellable, VectorIndex } from "./port.ts";

/** State of one face in a change: its vector, or gone. */
export interface KeyedChange {
  upserts: readonly { faceId: string; vector: Float32Array }[];
  removals: readonly string[];
}

export interface AppliedCounts {
  added: number;
  replaced: number;
  removed: number;
  /** Upserts whose vector already was the indexed one, and removals of faces that were not there. */
  unchanged: number;
}

/**
 * A VectorIndex addressed by face ids. Owns the table of ids (16 bytes a position, all zero = removed position),
 * which `exportIds` and `open` exchange with ids.dat.
 */
export interface KeyedIndex {
  readonly index: VectorIndex;
  readonly count: number;
  has(faceId: string): boolean;
  /** Bulk insertion for builds: `faceIds` n × 16 bytes, distinct and not present yet; `vectors` n × dim. */
  addNew(faceIds: Uint8Array, vectors: Float32Array, options?: Cancellable): Promise<void>;
  /** One atomic step towards searches. A face in both lists is `bad_input`. */
  apply(change: KeyedChange, options?: Cancellable): Promise<AppliedCounts>;
  /** One answer a query (n × dim): at most `limit` faces with similarity ≥ threshold, best first, unique by face. */
  search(
    queries: Float32Array,
    options: Cancellable & { limit: number; ef: number; threshold?: number },
  ): Promise<Match[][]>;
  /** slots × 16 bytes. */
  exportIds(): Uint8Array;
  close(): Promise<void>;
}

/** Wraps a loaded or new index. `ids` must hold index.slots × 16 bytes; duplicates are `index_refused`. */
export declare function createKeyedIndex(index: VectorIndex, ids?: Uint8Array): KeyedIndex;
