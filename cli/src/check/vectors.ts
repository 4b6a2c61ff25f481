import type { VectorIndex } from "@lim/vector-index";
import { vectorIndexLimits } from "@lim/vector-index";
import { BestOf } from "./best-of.ts";
import type { RecallFacts, VectorFacts } from "./judges.ts";
import { checkLimits } from "./limits.ts";
import { Examples } from "./named.ts";

export interface VectorPass {
  index: Pick<VectorIndex, "dim" | "read">;
  /** Positions to read. */
  positions: Uint32Array;
  textOf: (position: number) => string;
  /** rows × dim; compared with every vector. */
  queries: Float32Array;
  signal: AbortSignal;
  onRead: (vectors: number) => void;
}

/** Norm of the row at `start`; NaN or an infinity where a value is not finite. */
export function normAt(vectors: Float32Array, start: number, dim: number): number {
  let sum = 0;
  for (let i = start; i < start + dim; i++) sum += (vectors[i] as number) ** 2;
  return Math.sqrt(sum);
}

export const isUnit = (norm: number): boolean => Math.abs(norm - 1) <= vectorIndexLimits.normTolerance;

/** Reads every vector once: its norm, and whether it is among the best of a query. Holds one batch at a time. */
export async function passOver(pass: VectorPass): Promise<{ facts: VectorFacts; best: BestOf }> {
  const { index, positions, queries } = pass;
  const { dim } = index;
  const notFinite = new Examples();
  const notUnit = new Examples();
  const best = new BestOf(queries, dim, checkLimits.recallK);
  let worstNormError = 0;
  for (let from = 0; from < positions.length; from += checkLimits.batchRows) {
    const batch = positions.subarray(from, from + checkLimits.batchRows);
    const vectors = await index.read(batch, { signal: pass.signal });
    for (let row = 0; row < batch.length; row++) {
      const norm = normAt(vectors, row * dim, dim);
      const text = () => pass.textOf(batch[row] as number);
      if (!Number.isFinite(norm)) notFinite.add(text);
      else {
        worstNormError = Math.max(worstNormError, Math.abs(norm - 1));
        if (!isUnit(norm)) notUnit.add(text);
      }
    }
    best.offer(batch, vectors);
    pass.onRead(batch.length);
  }
  return { facts: { read: positions.length, notFinite, notUnit, worstNormError }, best };
}

/** The rows that can be asked for: searches take unit vectors only. */
export function unitRows(vectors: Float32Array, dim: number): Float32Array {
  const rows: number[] = [];
  for (let start = 0; start < vectors.length; start += dim)
    if (isUnit(normAt(vectors, start, dim))) rows.push(start);
  const out = new Float32Array(rows.length * dim);
  rows.forEach((start, i) => {
    out.set(vectors.subarray(start, start + dim), i * dim);
  });
  return out;
}

/** Recall of the index's own search for the queries, against the best of all vectors. */
export async function measureRecall(
  index: VectorIndex,
  queries: Float32Array,
  best: BestOf,
  options: { ef: number; signal: AbortSignal },
): Promise<RecallFacts> {
  const count = queries.length / index.dim;
  if (count === 0) return { queries: 0, recall: 1 };
  const k = Math.min(checkLimits.recallK, index.count);
  const found = await index.search(queries, { k, ...options });
  let sum = 0;
  for (let query = 0; query < count; query++) {
    const answers: { position: number; similarity: number }[] = [];
    for (let i = 0; i < (found.counts[query] ?? 0); i++)
      answers.push({
        position: found.positions[query * found.k + i] ?? 0,
        similarity: found.similarities[query * found.k + i] ?? 0,
      });
    sum += best.recallOf(query, answers);
  }
  return { queries: count, recall: sum / count };
}
