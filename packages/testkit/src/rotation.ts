import type { RandomStream } from "./random.ts";

const rounds = 2;

/**
 * A fixed random rotation of dim-dimensional vectors, in place: rounds of random signs and a Walsh-Hadamard transform,
 * dim · log dim steps instead of dim². Where dim is no power of two, the transform covers the first and then the last
 * block of the largest power of two within it.
 */
export function createRotation(dim: number, random: RandomStream): (vector: Float64Array) => void {
  const block = 2 ** Math.floor(Math.log2(dim));
  const starts = block === dim ? [0] : [0, dim - block];
  const steps = Array.from({ length: rounds }, () =>
    starts.map((start) => ({
      start,
      signs: Float64Array.from({ length: dim }, () => (random.uniform() < 0.5 ? -1 : 1)),
    })),
  ).flat();
  return (vector) => {
    for (const { start, signs } of steps) {
      for (let k = 0; k < dim; k++) vector[k] = (vector[k] ?? 0) * (signs[k] ?? 1);
      walshHadamard(vector, start, block);
    }
  };
}

function walshHadamard(vector: Float64Array, start: number, length: number): void {
  for (let half = 1; half < length; half *= 2)
    for (let left = start; left < start + length; left += 2 * half)
      for (let k = left; k < left + half; k++) {
        const a = vector[k] ?? 0;
        const b = vector[k + half] ?? 0;
        vector[k] = a + b;
        vector[k + half] = a - b;
      }
  const norm = 1 / Math.sqrt(length);
  for (let k = start; k < start + length; k++) vector[k] = (vector[k] ?? 0) * norm;
}
