import type { Match } from "@lim/contracts";
import type { Cancellable } from "./port.ts";

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

export declare function createExactIndex(options: { dim: number; capacity?: number }): ExactIndex;
