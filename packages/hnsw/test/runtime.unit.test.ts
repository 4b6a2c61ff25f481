import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { coreOf } from "../src/hnsw-index.ts";
import { HnswIndex, type Metric, planMemory, type RowsOption } from "../src/index.ts";
import { KeyMap } from "../src/key-map.ts";
import { segmentSlots } from "../src/layout.ts";
import { schedulerOf } from "../src/pool.ts";
import {
  clustered,
  codeOf,
  difference,
  dim,
  keysOf,
  normalised,
  randomFrom,
  range,
  recall,
  row,
  rowsOf,
  setUp,
} from "./support.ts";

const { create, folder, newPool } = setUp();

describe("what is in comes out", () => {
  const layouts: RowsOption[] = ["float32", "float16", "none", { file: join(folder, "rows") }];
  const metrics: Metric[] = ["cosine", "ip", "l2"];
  for (const rows of layouts)
    for (const metric of metrics)
      test(`rows ${typeof rows === "string" ? rows : "in a file"}, ${metric}`, async () => {
        const count = 1500;
        const vectors = clustered(count, dim, 7);
        const index = await create({ rows, metric });
        await index.upsert(range(0, count), vectors);
        expect(index.size).toBe(count);
        expect(index.slots).toBe(count);
        expect(index.keys()).toEqual(range(0, count));
        expect(index.has(count - 1)).toBe(true);
        expect(index.has(count)).toBe(false);
        const queries = rowsOf(vectors, dim, 0, 100);
        const byGraph = await index.search(queries, { k: 10, ef: 128, exact: false });
        const byScan = await index.search(queries, { k: 10, exact: true });
        expect(recall(byGraph, byScan)).toBeGreaterThan(0.97);
        if (metric !== "ip") for (let i = 0; i < 100; i++) expect(keysOf(byScan, i)[0]).toBe(i);
        if (rows === "float32" || rows === "float16") {
          const oracle = await index.search(queries, { k: 10, exact: "rows" });
          expect(recall(byScan, oracle)).toBeGreaterThan(0.97);
        } else expect(await codeOf(() => index.search(queries, { k: 10, exact: "rows" }))).toBe("bad_input");
        const held = index.get(Uint32Array.of(5, 3));
        const before = rowsOf(vectors, dim, 5, 6);
        const wanted = metric === "cosine" ? normalised(before) : before;
        const step = Math.max(...wanted.map(Math.abs)) / 100;
        expect(held.length).toBe(2 * dim);
        expect(difference(held.subarray(0, dim), wanted)).toBeLessThan(
          rows === "none" ? step : rows === "float16" ? 1e-3 : 1e-6,
        );
        const report = await index.check();
        expect(report).toMatchObject({ live: count, dead: 0, free: 0, badLinks: 0, problems: [] });
        expect(report.unreachable).toBeLessThan(3);
        await index.close();
        if (typeof rows !== "string") expect(existsSync(rows.file)).toBe(false);
      });

  test("scores are those of the metric", async () => {
    const a = row(1);
    const b = row(2);
    const dot = a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);
    const square = a.reduce((sum, x, i) => sum + (x - (b[i] ?? 0)) ** 2, 0);
    const scores: Record<Metric, number> = {
      ip: dot,
      l2: square,
      cosine: dot / Math.hypot(...a) / Math.hypot(...b),
    };
    for (const metric of ["ip", "l2", "cosine"] as const) {
      const index = await create({ metric });
      await index.upsert(Uint32Array.of(9), a);
      for (const exact of [true, false, "rows"] as const) {
        const result = await index.search(b, { k: 3, exact });
        expect(keysOf(result)).toEqual([9]);
        expect([...result.keys]).toEqual([9, 0xffffffff, 0xffffffff]);
        expect(result.scores[0]).toBeCloseTo(scores[metric], 4);
        expect(result.scores[1]).toBeNaN();
      }
      await index.close();
    }
  });

  test("an empty index, no queries, no keys", async () => {
    const index = await create();
    for (const exact of [true, false, "rows", undefined] as const)
      expect((await index.search(row(1), { k: 5, exact })).counts[0]).toBe(0);
    expect((await index.search(new Float32Array(), { k: 5 })).counts.length).toBe(0);
    await index.upsert(new Uint32Array(), new Float32Array());
    await index.remove(new Uint32Array());
    await index.change({});
    await index.sweep();
    expect(await index.check()).toMatchObject({ live: 0, problems: [] });
    expect(index.size).toBe(0);
    await index.close();
  });
});

describe("filters", () => {
  test("only allowed keys come back, and all of them", async () => {
    const index = await create();
    const count = 3000;
    const vectors = clustered(count, dim, 43);
    await index.upsert(range(0, count), vectors);
    for (const share of [2, 10, 100, 1000]) {
      const filter = new Uint8Array(Math.ceil(count / 8));
      for (let key = 0; key < count; key += share)
        filter[key >> 3] = (filter[key >> 3] ?? 0) | (1 << (key & 7));
      const queries = rowsOf(vectors, dim, 100, 140);
      const truth = await index.search(queries, { k: 10, exact: "rows", filter });
      const found = await index.search(queries, { k: 10, ef: 100, filter });
      for (const result of [truth, found])
        for (let i = 0; i < 40; i++) {
          expect(keysOf(result, i).length).toBe(Math.min(10, Math.ceil(count / share)));
          expect(keysOf(result, i).every((key) => key % share === 0)).toBe(true);
        }
      expect(recall(found, truth)).toBeGreaterThan(0.97);
    }
    // A shorter filter than the one before it.
    const only = await index.search(row(1), { k: 10, filter: Uint8Array.of(0b100) });
    expect(keysOf(only)).toEqual([2]);
    expect(keysOf(await index.search(row(1), { k: 10, filter: new Uint8Array() }))).toEqual([]);
    await index.close();
  });
});

describe("memory", () => {
  test("the key map agrees with a Map, and takes 8 bytes a key at most", () => {
    const seed = 97;
    console.log(`seed ${seed}`);
    const random = randomFrom(seed);
    const keys: number[] = [];
    const map = new KeyMap((slot) => keys[slot] as number);
    const model = new Map<number, number>();
    const keyAt = () => Math.floor(random() * 20_000) * 4099;
    for (let i = 0; i < 200_000; i++) {
      const key = keyAt();
      if (random() < (i < 120_000 ? 0.7 : 0.3)) {
        keys.push(key);
        expect(map.set(key, keys.length - 1)).toBe(model.get(key) ?? -1);
        model.set(key, keys.length - 1);
      } else {
        expect(map.delete(key)).toBe(model.get(key) ?? -1);
        model.delete(key);
      }
      if (i === 119_999) expect(map.sizeBytes / map.size).toBeLessThanOrEqual(8);
      const other = keyAt();
      if (map.get(other) !== (model.get(other) ?? -1)) expect.fail(`key ${other} after step ${i}`);
    }
    expect(map.size).toBe(model.size);
    for (const [key, slot] of model) expect(map.get(key)).toBe(slot);
  });

  test("grows by segments, up to what was planned", async () => {
    const index = await create({ capacity: 0, rows: "none", dim: 64, pool: newPool({ threads: 2 }) });
    expect(index.capacity).toBe(0);
    const count = 2 * segmentSlots + 100;
    const vectors = clustered(count, 64, 47);
    const progress: number[] = [];
    await index.upsert(range(0, count), vectors, { onProgress: (rows) => progress.push(rows) });
    expect(index.capacity).toBeGreaterThanOrEqual(3 * segmentSlots);
    expect(progress.at(-1)).toBe(count);
    expect(progress.length).toBeGreaterThan(3);
    const queries = rowsOf(vectors, 64, count - 50, count);
    const found = await index.search(queries, { k: 1, ef: 128, exact: false });
    expect(recall(found, await index.search(queries, { k: 1, exact: true }))).toBeGreaterThan(0.97);
    const plan = planMemory({ dim: 64, rows: "none", threads: 2, capacity: count });
    expect(plan.maxSlots).toBe(index.maxSlots);
    expect(plan.memoryBytes / index.memoryBytes).toBeGreaterThan(0.9);
    expect(plan.memoryBytes / index.memoryBytes).toBeLessThan(1.1);
    expect(await index.check()).toMatchObject({ live: count, badLinks: 0, problems: [] });
    await index.close();
  });

  test("no slot past the last: full, and nothing changed", async () => {
    const index = await create({ capacity: 0 });
    const { layout } = coreOf(index);
    layout.maxSlots = 300;
    await index.upsert(range(0, 290), clustered(290, dim, 51));
    expect(await codeOf(() => index.upsert(range(290, 310), clustered(20, dim, 52)))).toBe("full");
    expect(index.size).toBe(290);
    // Room is made of what was removed.
    await index.remove(range(0, 100));
    await index.upsert(range(290, 390), clustered(100, dim, 53));
    expect(index.size).toBe(290);
    expect(await index.check()).toMatchObject({ badLinks: 0, problems: [] });
    await index.close();
  });

  test("of a closed index serves the next one, of another shape", async () => {
    const own = newPool({ threads: 2 });
    const { memories } = schedulerOf(own);
    const seen = new Set<unknown>();
    for (let round = 0; round < 5; round++) {
      const size = round % 2 === 0 ? 48 : 200;
      const index = await HnswIndex.create({ dim: size, pool: own, m: 8 + round });
      seen.add(coreOf(index).memory.memory);
      const vectors = clustered(1200, size, 60 + round);
      await index.upsert(range(0, 1200), vectors);
      const found = await index.search(vectors.slice(0, 100 * size), { k: 1, ef: 64, exact: false });
      expect(range(0, 100).filter((i) => keysOf(found, i)[0] === i).length).toBeGreaterThan(97);
      expect(await index.check()).toMatchObject({ live: 1200, badLinks: 0, problems: [] });
      await index.close();
      expect(memories.spares).toBe(1);
    }
    expect(seen.size).toBe(1);
    await own.close();
    expect(memories.spares).toBe(0);
  });

  test("of one large index after the other serves the next, however little is to be spare", async () => {
    const own = newPool({ threads: 1, spareMemoryBytes: 1 });
    const { memories } = schedulerOf(own);
    const seen = new Set<unknown>();
    let before: HnswIndex | undefined;
    for (let round = 0; round < 6; round++) {
      // As a reload does: the next one beside the one before.
      const index = await HnswIndex.create({ dim, pool: own });
      await index.upsert(range(0, 10), clustered(10, dim, round));
      seen.add(coreOf(index).memory.memory);
      await before?.close();
      expect(memories.spares).toBe(before ? 1 : 0);
      before = index;
    }
    expect(seen.size).toBe(2);
    await before?.close();
    expect(memories.spares).toBe(1);
    await own.close();
  });

  test("no more is kept than allowed", async () => {
    const own = newPool({ threads: 1, spareMemoryBytes: 0 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 10), clustered(10, dim, 1));
    await index.close();
    expect(schedulerOf(own).memories.spares).toBe(0);
  });
});
