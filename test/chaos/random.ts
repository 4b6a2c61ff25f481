import { type RandomStream, randomStream } from "@lim/testkit";

/** Chances of one seed. What each part draws follows from the seed; in which order parts draw, from the machine. */
export interface Chances {
  /** True with this probability. */
  hits(probability: number): boolean;
  /** Evenly in [low, high). */
  between(low: number, high: number): number;
  whole(below: number): number;
  /** Undefined where there is nothing to pick. */
  pick<T>(items: readonly T[]): T | undefined;
}

export function chancesOf(...keys: readonly number[]): Chances {
  const stream: RandomStream = randomStream(...keys);
  const between = (low: number, high: number) => low + (high - low) * stream.uniform();
  const whole = (below: number) => Math.min(below - 1, Math.floor(stream.uniform() * below));
  return {
    hits: (probability) => stream.uniform() < probability,
    between,
    whole,
    pick: (items) => (items.length === 0 ? undefined : items[whole(items.length)]),
  };
}
