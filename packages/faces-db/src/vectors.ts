import { decodeVector, normalize, type SkippedCounts } from "@lim/contracts";

/** Of the squared norm. */
const unitTolerance = 1e-6;

export function noneSkipped(): SkippedCounts {
  return { wrong_length: 0, not_finite: 0, zero_norm: 0 };
}

/** A stored descriptor as a unit vector; where it is unusable, undefined, and counted. `data` is null for a wrong length. */
export function usableVector(
  data: Uint8Array | null,
  dim: number,
  skipped: SkippedCounts,
): Float32Array | undefined {
  const vector = data === null || data.byteLength % 4 !== 0 ? undefined : decodeVector(data);
  const fault = vector === undefined ? "wrong_length" : normalize(vector, dim);
  if (fault === undefined) return vector;
  skipped[fault]++;
  return undefined;
}

/**
 * The same for a vector in its place in a larger array, which it makes a unit vector there: false where it is unusable,
 * and counted. Almost all stored ones are unit vectors already and are only looked at, once.
 */
export function isUsable(vectors: Float32Array, at: number, dim: number, skipped: SkippedCounts): boolean {
  // Four sums, because each addition waits for the one before it.
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = at;
  for (const end = at + dim - 3; i < end; i += 4) {
    const p = vectors[i] as number;
    const q = vectors[i + 1] as number;
    const r = vectors[i + 2] as number;
    const s = vectors[i + 3] as number;
    a += p * p;
    b += q * q;
    c += r * r;
    d += s * s;
  }
  for (const end = at + dim; i < end; i++) a += (vectors[i] as number) ** 2;
  // Well within what `normalize` leaves as it is; NaN and infinity are not.
  if (Math.abs(a + b + c + d - 1) < unitTolerance) return true;
  const fault = normalize(vectors.subarray(at, at + dim), dim);
  if (fault !== undefined) skipped[fault]++;
  return fault === undefined;
}

/** Float32 little-endian bytes, as Postgres holds them. */
export function vectorBytes(vector: Float32Array): Buffer {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
}
