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
  /**
   * Bulk insertion for builds: `faceIds` n × 16 bytes, distinct and not present yet; `vectors` n × dim, or "spooled":
   * those that `index.spool` was given next, in this order. Neither is copied at the call: they must not change before
   * the promise settles. `threads` as in `VectorIndex.add`.
   */
  addNew(
    faceIds: Uint8Array,
    vectors: Float32Array | "spooled",
    options?: Cancellable & { threads?: number },
  ): Promise<void>;
  /** One atomic step towards searches. A face in both lists is `bad_input`. */
  apply(change: KeyedChange, options?: Cancellable): Promise<AppliedCounts>;
  /**
   * As `apply` of each in turn, each one step towards searches; an engine that can works on the next before one is
   * visible. `onApplied` is told of each in the turn in which it is, and must not throw. Where it fails or is aborted, those applied stay
   * and nothing of the others is left. No face may be named in two of them (`bad_input`).
   */
  applyInSteps(
    changes: readonly KeyedChange[],
    options: Cancellable & { onApplied: (change: number, counts: AppliedCounts) => void },
  ): Promise<void>;
  /** One answer a query (n × dim): at most `limit` faces with similarity ≥ threshold, best first, unique by face. */
  search(
    queries: Float32Array,
    options: Cancellable & { limit: number; ef: number; threshold?: number },
  ): Promise<Match[][]>;
  /** slots × 16 bytes. */
  exportIds(): Uint8Array;
  close(): Promise<void>;
}
