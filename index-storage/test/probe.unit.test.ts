import { readUuid } from "@lim/contracts";
import type { KeyedIndex } from "@lim/vector-index";
import { expect, it } from "vitest";
import { NearestByScan } from "../src/nearest.ts";
import { recallSampleSize, sampledRecall, samplePositions } from "../src/probe.ts";

it("recall is exact for small indexes and its sample stays a small share of a build's work above", () => {
  expect([0, 1, 2_000, 2_048].map(recallSampleSize)).toEqual([0, 1, 2_000, 2_048]);
  for (const count of [10_000, 20_000, 50_000, 1_000_000, 10_000_000]) {
    const size = recallSampleSize(count);
    expect(size / count).toBeLessThanOrEqual(0.25);
    expect(size).toBeGreaterThanOrEqual(2_048);
    expect(size).toBeLessThanOrEqual(8_192);
  }
});

it("samples live positions only, each once, spread over the whole index", () => {
  const ids = new Uint8Array(1_000 * 16).fill(7);
  for (let position = 0; position < 1_000; position += 3) ids.fill(0, position * 16, (position + 1) * 16);
  const positions = samplePositions(ids, 100);
  expect(new Set(positions).size).toBe(100);
  expect(positions.every((position) => position % 3 !== 0)).toBe(true);
  expect(Math.min(...positions)).toBeLessThan(10);
  expect(Math.max(...positions)).toBeGreaterThan(980);
  expect(samplePositions(ids, 5_000).length).toBe(666);
});

const dim = 5;
const faces = 300;
const vectors = Float32Array.from({ length: faces * dim }, (_, i) => Math.sin(1 + i * i));
const rowOf = (position: number) => vectors.subarray(position * dim, (position + 1) * dim);
const similarityOf = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);

it("the scan's best are the best, in their order, however they are offered", () => {
  const queries = vectors.slice(0, 7 * dim);
  const scan = new NearestByScan(queries, dim, 10);
  for (let from = 0; from < faces; from += 64) {
    const positions = Uint32Array.from({ length: Math.min(64, faces - from) }, (_, i) => from + i);
    scan.offer(positions, vectors.subarray(from * dim, (from + positions.length) * dim));
  }
  for (let query = 0; query < 7; query++) {
    const all = Array.from({ length: faces }, (_, at) => similarityOf(rowOf(query), rowOf(at)));
    const best = all.toSorted((a, b) => b - a).slice(0, 10);
    const found = scan.of(query);
    expect(found.map(({ similarity }) => similarity)).toEqual(best.map((s) => expect.closeTo(s, 10)));
    for (const { position, similarity } of found) expect(all[position]).toBeCloseTo(similarity, 10);
  }
  const few = new NearestByScan(queries, dim, 10);
  few.offer(Uint32Array.of(3), rowOf(3));
  expect(few.of(6)).toEqual([
    { position: 3, similarity: expect.closeTo(similarityOf(rowOf(6), rowOf(3)), 10) },
  ]);
});

it("recall is the share of the true ten that answers hold", async () => {
  const unit = Float32Array.from(vectors, (x, i) => x / Math.hypot(...rowOf(Math.floor(i / dim))));
  const unitOf = (position: number) => unit.subarray(position * dim, (position + 1) * dim);
  const ids = new Uint8Array(faces * 16);
  for (let position = 0; position < faces; position++)
    new DataView(ids.buffer).setUint32(position * 16, position + 1);
  /** Finds the ten best but for the second and third. */
  const lacking = (from: number, lost: number) =>
    Array.from({ length: faces }, (_, position) => ({
      position,
      s: similarityOf(unitOf(from), unitOf(position)),
    }))
      .toSorted((a, b) => b.s - a.s)
      .filter((_, rank) => rank === 0 || rank > lost)
      .slice(0, 10)
      .map(({ position, s }) => [readUuid(ids, position * 16), Math.max(0, s)] as const);
  const asked = samplePositions(ids, 64);
  const fake = (lost: number) =>
    ({
      count: faces,
      index: {
        dim,
        read: async (positions: Uint32Array) =>
          Float32Array.from([...positions].flatMap((position) => [...unitOf(position)])),
      },
      search: async () => [...asked].map((position) => lacking(position, lost)),
    }) as unknown as KeyedIndex;
  expect(await sampledRecall(fake(0), ids, undefined)).toBe(1);
  expect(await sampledRecall(fake(2), ids, undefined)).toBeCloseTo(0.8, 2);
  await expect(sampledRecall(fake(0), ids, AbortSignal.abort())).rejects.toMatchObject({
    errorName: "aborted",
  });
});
