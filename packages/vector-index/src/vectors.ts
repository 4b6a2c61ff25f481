import { vectorIndexLimits } from "./limits.ts";

/**
 * The first fault of `rows` × dim values: not a whole number of rows, a value that is not finite, or a norm that is
 * not 1 within the tolerance. Rows are numbered from `firstRow` on. Imported by worker threads, so it depends on nothing.
 */
export function vectorFault(vectors: Float32Array, dim: number, firstRow = 0): string | undefined {
  if (vectors.length % dim !== 0) return `${vectors.length} values are no multiple of ${dim} dimensions`;
  const lowest = (1 - vectorIndexLimits.normTolerance) ** 2;
  const highest = (1 + vectorIndexLimits.normTolerance) ** 2;
  for (let start = 0; start < vectors.length; start += dim) {
    let sum = 0;
    for (let i = start; i < start + dim; i++) sum += (vectors[i] as number) * (vectors[i] as number);
    // A NaN or an infinity makes the sum fail this comparison too.
    if (!(sum >= lowest && sum <= highest))
      return `row ${firstRow + start / dim} has norm ${Math.sqrt(sum)}, it must be finite and of unit norm`;
  }
  return undefined;
}
