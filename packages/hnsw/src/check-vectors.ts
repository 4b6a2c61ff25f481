import { badInput } from "./errors.ts";
import type { Layout } from "./layout.ts";

/** Largest norm of a vector: its distances stay finite in 32 bits. Under cosine also the smallest. */
export const maxNorm = 1e15;
export const minNorm = 1e-15;

/** Vectors from..to-1 of dim components must be finite and have a norm that 32 bits can hold. */
export function checkVectors(
  what: string,
  vectors: Float32Array,
  { dim, metric }: Pick<Layout, "dim" | "metric">,
  from: number,
  to: number,
): void {
  const least = metric === "cosine" ? minNorm * minNorm : 0;
  for (let i = from; i < to; i++) {
    let sum = 0;
    for (let j = i * dim, end = j + dim; j < end; j++) {
      const x = vectors[j] as number;
      sum += x * x;
    }
    if (sum <= maxNorm * maxNorm && sum >= least) continue;
    if (sum < least) throw badInput(`${what} ${i} has no direction: its norm is below ${minNorm}`);
    throw badInput(`${what} ${i} is not finite, or its norm is above ${maxNorm}`);
  }
}
