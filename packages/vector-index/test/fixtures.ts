import { readUuid, writeUuid } from "@lim/contracts";
import type { PlacedVectors } from "../src/port.ts";

/** Small fast generator, so that every run sees the same vectors. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function gaussian(next: () => number): number {
  return Math.sqrt(-2 * Math.log(next() || 1e-12)) * Math.cos(2 * Math.PI * next());
}

/** n × dim unit vectors; with `clusters`, around that many random centres. */
export function unitVectors(n: number, dim: number, seed: number, clusters = 0): Float32Array {
  const next = random(seed);
  const centres = Array.from({ length: clusters * dim }, () => gaussian(next));
  const out = new Float32Array(n * dim);
  for (let row = 0; row < n; row++) {
    const centre = clusters === 0 ? -1 : Math.floor(next() * clusters);
    let sum = 0;
    for (let d = 0; d < dim; d++) {
      const value =
        gaussian(next) * (centre < 0 ? 1 : 0.7) + (centre < 0 ? 0 : (centres[centre * dim + d] ?? 0));
      out[row * dim + d] = value;
      sum += value * value;
    }
    for (let d = 0; d < dim; d++) out[row * dim + d] = (out[row * dim + d] ?? 0) / Math.sqrt(sum);
  }
  return out;
}

/** Face id of a number: distinct, spread over the 16 bytes. */
export function faceId(n: number): string {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint32(0, Math.imul(n + 1, 2654435761) >>> 0);
  new DataView(bytes.buffer).setUint32(12, n + 1);
  return readUuid(bytes);
}

export function faceIds(from: number, count: number): Uint8Array {
  const out = new Uint8Array(count * 16);
  for (let i = 0; i < count; i++) writeUuid(faceId(from + i), out, i * 16);
  return out;
}

export function row(vectors: Float32Array, dim: number, at: number): Float32Array {
  return vectors.slice(at * dim, (at + 1) * dim);
}

export function dotOf(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] ?? 0) * (b[i] ?? 0);
  return sum;
}

/** `count` consecutive positions. */
export function range(from: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => from + i);
}

/** Vectors for consecutive positions from `from` on. */
export function placed(from: number, vectors: Float32Array, dim: number): PlacedVectors {
  return { positions: range(from, vectors.length / dim), vectors };
}

export const nothing = (): PlacedVectors => ({ positions: new Uint32Array(), vectors: new Float32Array() });
