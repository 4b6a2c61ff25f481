import { type RandomStream, randomStream } from "./random.ts";

/** One level of look-alikes: into how many families each family above splits, and their share of a face's variance. */
export interface FamilyLevel {
  families: number;
  share: number;
}

/** Apart from the streams of persons and images. */
const streams = { member: 4, family: 5 } as const;
const maxCachedFamilies = 8_192;

/**
 * Nested families of people who look alike. Person p belongs to one family of each level, drawn from (seed, p) alone,
 * so any person can be asked for in any order; a family's direction has its own random stream and is made again when it
 * has fallen out of the cache.
 */
export function createLookAlikes(options: {
  levels: readonly FamilyLevel[];
  dim: number;
  seed: number;
  /** Fills a vector with a random unit vector. */
  direction(random: RandomStream, into: Float64Array): void;
}): { addTo(person: number, into: Float64Array): void } {
  const { levels, dim, seed, direction } = options;
  const cache = new Map<string, Float64Array>();
  const familyVector = (path: readonly number[]) => {
    const key = path.join("/");
    const known = cache.get(key);
    if (known !== undefined) return known;
    const vector = new Float64Array(dim);
    direction(randomStream(seed, streams.family, ...path), vector);
    const oldest = cache.size < maxCachedFamilies ? undefined : cache.keys().next().value;
    if (oldest !== undefined) cache.delete(oldest);
    cache.set(key, vector);
    return vector;
  };
  return {
    addTo(person, into) {
      const random = randomStream(seed, streams.member, person);
      const path: number[] = [];
      for (const { families, share } of levels) {
        path.push(Math.floor(random.uniform() * families));
        const vector = familyVector(path);
        const weight = Math.sqrt(share);
        for (let k = 0; k < dim; k++) into[k] = (into[k] ?? 0) + weight * (vector[k] ?? 0);
      }
    },
  };
}

/** Mean and mean square of the likeness (cosine) that two random people owe to their families. */
export function likenessMoments(levels: readonly FamilyLevel[]): { mean: number; meanSquare: number } {
  let mean = 0;
  let meanSquare = 0;
  let together = 1;
  let likeness = 0;
  for (const { families, share } of levels) {
    together /= families;
    mean += together * share;
    meanSquare += together * ((likeness + share) ** 2 - likeness ** 2);
    likeness += share;
  }
  return { mean, meanSquare };
}
