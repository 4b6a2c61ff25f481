// A fault hook, loaded before a matcher by `node --import`: the process kills itself as soon as it is to search for the
// marked descriptor, as a crash of native code would.
import { createKeyedIndex, type VectorIndex } from "@lim/vector-index";

/** Exactly of unit norm, so that nothing on the way changes a bit of it. */
export function poisonVector(dim: number): Float32Array {
  const vector = new Float32Array(dim);
  vector.set([0.5, -0.5, 0.5, -0.5]);
  return vector;
}

function isPoison(matrix: Float32Array, from: number, dim: number): boolean {
  for (let i = 0; i < dim; i++) {
    const expected = i < 4 ? (i % 2 === 0 ? 0.5 : -0.5) : 0;
    if (matrix[from + i] !== expected) return false;
  }
  return true;
}

interface Searching {
  readonly index: VectorIndex;
  search(queries: Float32Array, ...rest: unknown[]): unknown;
}

/** The class is not exported, its prototype is reached through an instance over nothing. */
function arm(): void {
  const probe = createKeyedIndex({ slots: 0, capacity: 0, count: 0 } as VectorIndex);
  const prototype = Object.getPrototypeOf(probe) as Searching;
  const { search } = prototype;
  prototype.search = function searchOrDie(this: Searching, queries, ...rest) {
    const { dim } = this.index;
    for (let from = 0; from < queries.length; from += dim)
      if (isPoison(queries, from, dim)) process.kill(process.pid, "SIGKILL");
    return search.call(this, queries, ...rest);
  };
}

if (process.env.LIM_CHAOS_POISON === "armed") arm();
