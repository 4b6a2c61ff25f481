import type { EngineName } from "@lim/contracts";

/** Bytes of one indexed face. */
export interface Footprint {
  /** The vector itself, in full precision. */
  vectorBytes: number;
  /** Neighbours on all levels, and what names the slot. */
  graphBytes: number;
  /** What the engine holds of a face besides: not part of "vectors + graph". */
  besidesBytes: number;
  /** The sum of which it is made, for the report. */
  formula: string;
}

/** Of 2^g slots of @lim/hnsw one is on the next level (packages/hnsw/FORMAT.md). */
function levelBits(m: number): number {
  return Math.min(6, Math.max(2, Math.round(Math.log2(m))));
}

/** By the engines' documented layouts: FORMAT.md of @lim/hnsw; the element of hnswlib's file. */
export function footprintOf(engine: EngineName, dim: number, m: number): Footprint {
  const vectorBytes = dim * 4;
  if (engine === "hnsw") {
    const padded = Math.ceil(dim / 64) * 64;
    const upper = (4 * m) / (2 ** levelBits(m) - 1);
    return {
      vectorBytes,
      graphBytes: 8 * m + upper + 4,
      // The vector once more in 8 bits with its scale, by which it is searched; and what pads the rows.
      besidesBytes: padded + 4 + (padded - dim) * 4,
      formula: "dim × 4 + (8 m links + 4 m / (2^g − 1) upper links + 4 key)",
    };
  }
  return {
    vectorBytes,
    graphBytes: 2 * m * 4 + 4 + 8 + (m * 4 + 4) / (m - 1),
    besidesBytes: 0,
    formula: "dim × 4 + (8 m + 4 links + 8 label + (4 m + 4) / (m − 1) upper links)",
  };
}
