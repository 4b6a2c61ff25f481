// Pure arithmetic on measured figures.

/** Value below which a share of the samples lies; NaN without samples. */
export function quantile(samples: ArrayLike<number>, share: number): number {
  const sorted = Float64Array.from(samples).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Median of several rounds, with the least and the greatest. */
export interface Spread {
  median: number;
  min: number;
  max: number;
  rounds: number;
}

/** Rounds that gave nothing are left out; undefined where none gave anything. */
export function spreadOf(values: readonly (number | undefined)[]): Spread | undefined {
  const known = values.filter((value): value is number => value !== undefined && Number.isFinite(value));
  if (known.length === 0) return undefined;
  return { median: median(known), min: Math.min(...known), max: Math.max(...known), rounds: known.length };
}

/** Round by round a / b: neighbours in time, so that a slow moment of the machine weighs on both. */
export function ratios(
  a: readonly (number | undefined)[],
  b: readonly (number | undefined)[],
): Spread | undefined {
  return spreadOf(
    a.map((value, round) => {
      const other = b[round];
      return value === undefined || other === undefined ? undefined : value / other;
    }),
  );
}

export interface Latency {
  p50Us: number;
  p99Us: number;
  p999Us: number;
  samples: number;
}

export function latencyOf(samplesMs: ArrayLike<number>): Latency {
  const us = (share: number) => quantile(samplesMs, share) * 1000;
  return { p50Us: us(0.5), p99Us: us(0.99), p999Us: us(0.999), samples: samplesMs.length };
}

/** Share of the exact neighbours that were found; both are queries × k keys. */
export function recallOf(found: Uint32Array, truth: Uint32Array, k: number): number {
  let hits = 0;
  for (let at = 0; at < truth.length; at += k) {
    const exact = new Set(truth.subarray(at, at + k));
    for (let i = at; i < at + k; i++) if (exact.delete(found[i] ?? missingKey)) hits++;
  }
  return hits / truth.length;
}

/** Fills places for which an engine found nothing; no engine has this key. */
export const missingKey = 0xffffffff;

/** Takes each query's own key out of its row of k, or the last key where it is not there: queries × (k − 1). */
export function withoutSelf(keys: Uint32Array, self: Uint32Array, k: number): Uint32Array {
  const out = new Uint32Array(self.length * (k - 1)).fill(missingKey);
  for (let q = 0; q < self.length; q++) {
    let at = q * (k - 1);
    for (let i = q * k; i < (q + 1) * k && at < (q + 1) * (k - 1); i++) {
      const key = keys[i] ?? missingKey;
      if (key !== self[q]) out[at++] = key;
    }
  }
  return out;
}

/** Share of queries whose nearest other key is of the query's identity. */
export function rankOneOf(keys: Uint32Array, self: Uint32Array, identities: Uint32Array, k: number): number {
  const others = withoutSelf(keys, self, k);
  let hits = 0;
  for (let q = 0; q < self.length; q++) {
    const first = others[q * (k - 1)] ?? missingKey;
    if (first !== missingKey && identities[first] === identities[self[q] ?? missingKey]) hits++;
  }
  return hits / self.length;
}
