import { checkLimits } from "./limits.ts";

/** The k vectors most similar to each query among those offered: exact search over a stream. */
export class BestOf {
  private readonly queries: Float32Array;
  private readonly dim: number;
  private readonly k: number;
  private readonly count: number;
  private readonly positions: Uint32Array;
  private readonly similarities: Float64Array;
  private readonly held: Uint32Array;

  /** `queries` is rows × dim. */
  constructor(queries: Float32Array, dim: number, k: number) {
    this.queries = queries;
    this.dim = dim;
    this.k = k;
    this.count = queries.length / dim;
    this.positions = new Uint32Array(this.count * k);
    this.similarities = new Float64Array(this.count * k);
    this.held = new Uint32Array(this.count);
  }

  offer(positions: Uint32Array, vectors: Float32Array): void {
    for (let row = 0; row < positions.length; row++)
      for (let query = 0; query < this.count; query++) {
        const similarity = this.dot(query * this.dim, vectors, row * this.dim);
        if (!Number.isNaN(similarity)) this.insert(query, positions[row] as number, similarity);
      }
  }

  /** Positions, the best first. */
  of(query: number): number[] {
    const start = query * this.k;
    return [...this.positions.subarray(start, start + (this.held[query] as number))];
  }

  /** Share of the best that the answers hold. One as similar as the last of the best is as good. */
  recallOf(query: number, answers: readonly { position: number; similarity: number }[]): number {
    const best = new Set(this.of(query));
    if (best.size === 0) return 1;
    const last = this.similarities[query * this.k + best.size - 1] as number;
    // Similarities of answers are clipped to 0..1.
    const least = Math.min(1, Math.max(0, last)) - checkLimits.tie;
    const hits = answers.filter(({ position, similarity }) => best.has(position) || similarity >= least);
    return Math.min(hits.length, best.size) / best.size;
  }

  private dot(a: number, vectors: Float32Array, b: number): number {
    const { queries, dim } = this;
    let even = 0;
    let odd = 0;
    let i = 0;
    // Two sums at once: one would wait for its own last addition.
    for (; i + 1 < dim; i += 2) {
      even += (queries[a + i] as number) * (vectors[b + i] as number);
      odd += (queries[a + i + 1] as number) * (vectors[b + i + 1] as number);
    }
    if (i < dim) even += (queries[a + i] as number) * (vectors[b + i] as number);
    return even + odd;
  }

  private insert(query: number, position: number, similarity: number): void {
    const { k, similarities, positions } = this;
    const start = query * k;
    const held = this.held[query] as number;
    if (held === k && similarity <= (similarities[start + k - 1] as number)) return;
    let at = start + Math.min(held, k - 1);
    for (; at > start && (similarities[at - 1] as number) < similarity; at--) {
      similarities[at] = similarities[at - 1] as number;
      positions[at] = positions[at - 1] as number;
    }
    similarities[at] = similarity;
    positions[at] = position;
    this.held[query] = Math.min(held + 1, k);
  }
}
