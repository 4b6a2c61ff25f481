/** Queries that pass over a row together: it is read from memory once for all of them. */
const queriesTogether = 4;

/** The best of what is offered to each query, by inner product: exact, and no more in memory than its answers. */
export class NearestByScan {
  readonly #dim: number;
  readonly #k: number;
  readonly #count: number;
  /** Padded with zero queries to a multiple of `queriesTogether`. */
  readonly #queries: Float64Array;
  /** count × k, best first; slots past those offered hold -Infinity. */
  readonly #similarities: Float64Array;
  readonly #positions: Uint32Array;

  constructor(queries: Float32Array, dim: number, k: number) {
    this.#dim = dim;
    this.#k = k;
    this.#count = queries.length / dim;
    const padded = Math.ceil(this.#count / queriesTogether) * queriesTogether;
    this.#queries = new Float64Array(padded * dim);
    this.#queries.set(queries);
    this.#similarities = new Float64Array(this.#count * k).fill(Number.NEGATIVE_INFINITY);
    this.#positions = new Uint32Array(this.#count * k);
  }

  /** `vectors` is positions × dim. */
  offer(positions: Uint32Array, vectors: Float32Array): void {
    const products = new Float64Array(queriesTogether);
    for (let first = 0; first < this.#count; first += queriesTogether)
      for (let row = 0; row < positions.length; row++) {
        this.#multiply(first, vectors, row * this.#dim, products);
        const most = Math.min(queriesTogether, this.#count - first);
        for (let i = 0; i < most; i++)
          this.#enter(first + i, products[i] as number, positions[row] as number);
      }
  }

  /** Best first. */
  of(query: number): { position: number; similarity: number }[] {
    const best: { position: number; similarity: number }[] = [];
    for (let at = query * this.#k; at < (query + 1) * this.#k; at++) {
      const similarity = this.#similarities[at] as number;
      if (similarity === Number.NEGATIVE_INFINITY) break;
      best.push({ position: this.#positions[at] as number, similarity });
    }
    return best;
  }

  #multiply(first: number, vectors: Float32Array, start: number, products: Float64Array): void {
    const dim = this.#dim;
    const queries = this.#queries;
    const q0 = first * dim;
    const q1 = q0 + dim;
    const q2 = q1 + dim;
    const q3 = q2 + dim;
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let i = 0; i < dim; i++) {
      const x = vectors[start + i] as number;
      a += x * (queries[q0 + i] as number);
      b += x * (queries[q1 + i] as number);
      c += x * (queries[q2 + i] as number);
      d += x * (queries[q3 + i] as number);
    }
    products[0] = a;
    products[1] = b;
    products[2] = c;
    products[3] = d;
  }

  #enter(query: number, similarity: number, position: number): void {
    const start = query * this.#k;
    let at = start + this.#k - 1;
    if (similarity <= (this.#similarities[at] as number)) return;
    for (; at > start && (this.#similarities[at - 1] as number) < similarity; at--) {
      this.#similarities[at] = this.#similarities[at - 1] as number;
      this.#positions[at] = this.#positions[at - 1] as number;
    }
    this.#similarities[at] = similarity;
    this.#positions[at] = position;
  }
}
