import { decodeVector, normalize, type SkippedCounts } from "@lim/contracts";

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

/** Float32 little-endian bytes, as Postgres holds them. */
export function vectorBytes(vector: Float32Array): Buffer {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
}
