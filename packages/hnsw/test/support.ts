import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import {
  HnswError,
  type HnswErrorCode,
  HnswIndex,
  type HnswOptions,
  HnswPool,
  type HnswPoolOptions,
  type SearchResult,
} from "../src/index.ts";

/** Numbers from 0 to below 1, the same for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let h = state;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
  };
}

/** count × dim around a few centres: neighbourhoods as real data has them. */
export function clustered(count: number, dim: number, seed: number, centres = 20): Float32Array {
  const random = randomFrom(seed);
  const middle = Float32Array.from({ length: centres * dim }, () => random() - 0.5);
  const rows = new Float32Array(count * dim);
  for (let i = 0; i < count; i++) {
    const centre = Math.floor(random() * centres) * dim;
    for (let j = 0; j < dim; j++) rows[i * dim + j] = (middle[centre + j] as number) + 0.6 * (random() - 0.5);
  }
  return rows;
}

export const range = (from: number, to: number): Uint32Array =>
  Uint32Array.from({ length: to - from }, (_, i) => from + i);

export const rowsOf = (rows: Float32Array, dim: number, from: number, to: number): Float32Array =>
  rows.slice(from * dim, to * dim);

/** Keys of one query's results. */
export function keysOf(result: SearchResult, query = 0): number[] {
  const { k, counts, keys } = result;
  return [...keys.subarray(query * k, query * k + (counts[query] ?? 0))];
}

/** Share of the second's keys that the first found. */
export function recall(found: SearchResult, truth: SearchResult): number {
  let hits = 0;
  let total = 0;
  for (let query = 0; query < truth.counts.length; query++) {
    const wanted = new Set(keysOf(truth, query));
    total += wanted.size;
    for (const key of keysOf(found, query)) if (wanted.has(key)) hits++;
  }
  return hits / total;
}

export function normalised(row: Float32Array): Float32Array {
  const norm = Math.hypot(...row);
  return row.map((x) => x / norm);
}

/** Largest difference of two rows' components. */
export const difference = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] ?? Number.NaN))), 0);

/** How a call ended. */
export const codeOf = async (call: () => unknown): Promise<HnswErrorCode | "none"> => {
  try {
    await call();
    return "none";
  } catch (error) {
    if (error instanceof HnswError) return error.code;
    throw error;
  }
};

export const dim = 32;

/** Some vector of `dim` components, another for every value. */
export const row = (value: number): Float32Array =>
  Float32Array.from({ length: dim }, (_, i) => Math.cos(value + i * (1 + value)));

/** A folder and pools that go when the file's tests have run. */
export function setUp() {
  const folder = mkdtempSync(join(tmpdir(), "hnsw-"));
  const pools: HnswPool[] = [];
  const newPool = (options?: HnswPoolOptions): HnswPool => {
    const pool = new HnswPool(options);
    pools.push(pool);
    return pool;
  };
  const pool = newPool({ threads: 2 });
  const create = (options: Partial<HnswOptions> = {}): Promise<HnswIndex> =>
    HnswIndex.create({ dim, pool, ...options });
  afterAll(async () => {
    await Promise.all(pools.map((one) => one.close()));
    rmSync(folder, { recursive: true });
  });
  return { folder, newPool, pool, create };
}
