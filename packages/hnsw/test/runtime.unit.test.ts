import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { coreOf } from "../src/hnsw-index.ts";
import {
  HnswError,
  type HnswErrorCode,
  HnswIndex,
  type HnswOptions,
  HnswPool,
  type Metric,
  planMemory,
  type RowsOption,
} from "../src/index.ts";
import { KeyMap } from "../src/key-map.ts";
import { addressOf, controlAt, segmentSlots } from "../src/layout.ts";
import { lastVersion } from "../src/limits.ts";
import { schedulerOf } from "../src/pool.ts";
import { clustered, difference, keysOf, normalised, randomFrom, range, recall, rowsOf } from "./support.ts";

const dim = 32;
const folder = mkdtempSync(join(tmpdir(), "hnsw-"));
const pools: HnswPool[] = [];
const newPool = (options?: ConstructorParameters<typeof HnswPool>[0]): HnswPool => {
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

const codeOf = async (call: () => unknown): Promise<HnswErrorCode | "none"> => {
  try {
    await call();
    return "none";
  } catch (error) {
    if (error instanceof HnswError) return error.code;
    throw error;
  }
};

const row = (value: number): Float32Array =>
  Float32Array.from({ length: dim }, (_, i) => Math.cos(value + i * (1 + value)));

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

describe("changes", () => {
  test("replace, remove and add again", async () => {
    const index = await create();
    const vectors = clustered(300, dim, 11);
    await index.upsert(range(0, 300), vectors);
    await index.upsert(Uint32Array.of(4), row(3));
    expect(index.size).toBe(300);
    expect(keysOf(await index.search(row(3), { k: 1, exact: false }))).toEqual([4]);
    expect(keysOf(await index.search(rowsOf(vectors, dim, 4, 5), { k: 1 }))).not.toEqual([4]);
    const removed = index.remove(Uint32Array.of(4, 17));
    await removed;
    expect(index.has(4)).toBe(false);
    expect(index.size).toBe(298);
    for (const exact of [true, false])
      expect(keysOf(await index.search(row(3), { k: 300, exact }))).not.toContain(4);
    expect(await codeOf(() => index.get(Uint32Array.of(4)))).toBe("bad_input");
    await index.upsert(Uint32Array.of(4), row(3));
    expect(keysOf(await index.search(row(3), { k: 1, exact: false }))).toEqual([4]);
    await index.close();
  });

  test("of rows with the same key the last counts, within a slice and across slices", async () => {
    const index = await create();
    const count = 3000;
    const vectors = clustered(count, dim, 13);
    const keys = range(0, count);
    keys[1] = 0;
    keys[count - 1] = 2;
    await index.upsert(keys, vectors);
    expect(index.size).toBe(count - 2);
    const held = index.get(Uint32Array.of(0, 2));
    expect(difference(held.subarray(0, dim), normalised(rowsOf(vectors, dim, 1, 2)))).toBeLessThan(1e-6);
    const last = normalised(rowsOf(vectors, dim, count - 1, count));
    expect(difference(held.subarray(dim), last)).toBeLessThan(1e-6);
    await index.close();
  });

  test("a change is seen whole or not at all by searches beside it", async () => {
    const index = await create();
    const count = 400;
    const a = clustered(count, dim, 17);
    const b = clustered(count, dim, 18);
    // Generation g holds the keys g × count .. g × count + count - 1.
    await index.upsert(range(0, count), a);
    let newest = 0;
    let done = false;
    const writer = (async () => {
      for (let g = 1; g <= 12; g++) {
        await index.change({
          remove: range((g - 1) * count, g * count),
          upsert: { keys: range(g * count, (g + 1) * count), vectors: g % 2 ? b : a },
        });
        newest = g;
      }
      done = true;
    })();
    let searched = 0;
    const seen = new Set<number>();
    while (!done) {
      const oldest = newest;
      const exact = searched % 2 === 0;
      const result = await index.search(rowsOf(a, dim, searched % count, (searched % count) + 1), {
        k: exact ? count + 1 : 50,
        exact,
        ef: 500,
      });
      const generations = new Set(keysOf(result).map((key) => Math.floor(key / count)));
      expect(generations.size).toBe(1);
      const [generation] = generations;
      expect(generation).toBeGreaterThanOrEqual(oldest);
      expect(generation).toBeLessThanOrEqual(newest + 1);
      if (exact) expect(new Set(keysOf(result)).size).toBe(count);
      seen.add(generation ?? -1);
      searched++;
    }
    await writer;
    expect(seen.size).toBeGreaterThan(3);
    await index.close();
  });

  test("a replaced key is found exactly once all the while", async () => {
    const index = await create();
    const count = 1200;
    await index.upsert(range(0, count), clustered(count, dim, 19));
    let done = false;
    const writer = index.upsert(range(0, count), clustered(count, dim, 20)).then(() => {
      done = true;
    });
    let searches = 0;
    while (!done || searches === 0) {
      const keys = keysOf(await index.search(row(1), { k: count + 100, exact: true }));
      expect(keys.length).toBe(count);
      expect(new Set(keys).size).toBe(count);
      searches++;
    }
    await writer;
    await index.close();
  });

  test("slots are used again: churn does not make the index grow", async () => {
    const index = await create();
    const count = 1500;
    await index.upsert(range(0, count), clustered(count, dim, 23));
    for (let round = 1; round <= 6; round++) {
      await index.upsert(range(0, count), clustered(count, dim, 23 + round));
      await index.sweep();
      expect(index.slots).toBe(count);
    }
    const { used } = coreOf(index).slots;
    expect(used).toBeLessThan(2.5 * count);
    await index.remove(range(0, count / 2));
    await index.sweep();
    expect(index.slots).toBe(count / 2);
    const report = await index.check();
    expect(report).toMatchObject({ live: count / 2, dead: 0, deadLinks: 0, badLinks: 0, problems: [] });
    expect(report.unreachable).toBe(0);
    await index.upsert(range(0, count / 2), clustered(count / 2, dim, 40));
    expect(coreOf(index).slots.used).toBe(used);
    const queries = clustered(100, dim, 29);
    const truth = await index.search(queries, { k: 10, exact: "rows" });
    expect(recall(await index.search(queries, { k: 10, ef: 128, exact: false }), truth)).toBeGreaterThan(
      0.97,
    );
    await index.close();
  });

  test("what was removed waits for the searches that can still meet it", async () => {
    const index = await create();
    await index.upsert(range(0, 200), clustered(200, dim, 31));
    const core = coreOf(index);
    const { ledger, slots } = core;
    const counts = async () => {
      // The second begins once what is due after the first was done.
      await index.change({});
      await index.change({});
      return { dead: slots.dead, retired: slots.retired, free: slots.free };
    };
    const sees = ledger.begin(core.committed);
    await index.remove(range(0, 100));
    expect(await counts()).toEqual({ dead: 100, retired: 0, free: 0 });
    const crosses = ledger.begin(core.committed);
    ledger.end(sees);
    expect(await counts()).toEqual({ dead: 0, retired: 100, free: 0 });
    ledger.end(crosses);
    expect(await counts()).toEqual({ dead: 0, retired: 0, free: 100 });
    await index.close();
  });

  test("versions are numbered anew before they run out", async () => {
    const index = await create();
    await index.upsert(range(0, 100), clustered(100, dim, 37));
    const core = coreOf(index);
    core.committed = lastVersion - 1;
    await index.remove(range(0, 10));
    await index.upsert(Uint32Array.of(500), row(2));
    expect(core.committed).toBeLessThan(10);
    expect(index.size).toBe(91);
    const keys = keysOf(await index.search(row(2), { k: 200, exact: true }));
    expect(keys.length).toBe(91);
    expect(keys[0]).toBe(500);
    expect(Math.min(...keys)).toBe(10);
    await index.close();
  });

  test("changes run in the order of the calls", async () => {
    const index = await create();
    const all: Promise<void>[] = [];
    for (let i = 0; i < 20; i++) {
      all.push(index.upsert(Uint32Array.of(1), row(i)));
      all.push(index.remove(Uint32Array.of(1)));
    }
    await Promise.all(all);
    expect(index.size).toBe(0);
    await index.close();
  });

  test("one thread builds the same graph every time", async () => {
    const count = 2000;
    const vectors = clustered(count, dim, 41);
    const build = async () => {
      const index = await create({ seed: 5 });
      await index.upsert(range(0, count), vectors, { threads: 1 });
      const core = coreOf(index);
      const { layout } = core;
      const { at, segmentsAt, segmentBytes } = layout;
      const bytes = new Uint8Array(core.memory.memory.buffer.slice(segmentsAt, segmentsAt + segmentBytes));
      // Everything but the marks of visited slots, which are each thread's own.
      bytes.fill(0, at.visited, at.visited + 4096 * 2 * layout.threads);
      // Slots that were never used hold whatever their memory held.
      const parts = (["coarse", "fine", "links", "scale", "row", "key", "born", "died"] as const).map(
        (array) => {
          const start = addressOf(layout, array, 0, 1) - segmentsAt;
          return bytes.slice(
            start,
            start + (addressOf(layout, array, count, sizeOf(array)) - segmentsAt - start),
          );
        },
      );
      await index.close();
      return parts;
    };
    const sizeOf = (array: string): number =>
      array === "links" ? 128 : array === "row" ? 256 : array === "coarse" || array === "fine" ? 32 : 4;
    // Links end with a mark; what lies behind it is of earlier lists of the same build, so it is the same too, except
    // on a memory that was used before: a fresh pool has none.
    const first = await build();
    const second = await build();
    for (const [i, part] of first.entries()) {
      if (i === 2) continue;
      expect(Buffer.compare(part, second[i] as Uint8Array)).toBe(0);
    }
    expect(linkLists(first[2] as Uint8Array)).toEqual(linkLists(second[2] as Uint8Array));
  });
});

function linkLists(bytes: Uint8Array): number[][] {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const lists: number[][] = [];
  for (let at = 0; at < words.length; at += 32) {
    const list = [...words.subarray(at, at + 32)];
    const end = list.indexOf(0xffffffff);
    lists.push(end < 0 ? list : list.slice(0, end));
  }
  return lists;
}

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
    expect(plan.memoryBytes).toBeGreaterThan(index.memoryBytes * 0.9);
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

  test("no more is kept than allowed", async () => {
    const own = newPool({ threads: 1, spareMemoryBytes: 0 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 10), clustered(10, dim, 1));
    await index.close();
    expect(schedulerOf(own).memories.spares).toBe(0);
  });
});

describe("files, through the pool", () => {
  const kinds: [string, RowsOption, RowsOption | undefined, boolean][] = [
    ["rows in the same file", "float32", undefined, false],
    ["rows beside it", "float32", undefined, true],
    ["rows narrowed", "float32", "float16", false],
    ["rows left out", "float16", "none", false],
    ["no rows", "none", undefined, false],
    ["rows of a working file into memory", { file: join(folder, "a") }, "float32", true],
    ["rows of memory into a working file", "float32", { file: join(folder, "b") }, false],
  ];
  for (const [name, rows, loaded, beside] of kinds)
    test(`saved and loaded: ${name}`, async () => {
      const count = 2500;
      const vectors = clustered(count, dim, 61);
      const index = await create({ rows });
      await index.upsert(range(0, count), vectors);
      await index.remove(range(0, 300));
      const path = join(folder, "saved");
      const rowsPath = beside ? join(folder, "saved-rows") : undefined;
      await index.save(path, { rowsPath });
      const own = newPool({ threads: 1 });
      for (const other of [pool, own]) {
        const copy = await HnswIndex.load(path, { pool: other, rowsPath, rows: loaded });
        expect(copy.size).toBe(count - 300);
        expect([...copy.keys()].sort((a, b) => a - b)).toEqual([...range(300, count)]);
        expect(await copy.check()).toMatchObject({ live: count - 300, dead: 0, badLinks: 0, problems: [] });
        const queries = rowsOf(vectors, dim, 400, 500);
        const before = await index.search(queries, { k: 10, ef: 100, exact: false });
        const after = await copy.search(queries, { k: 10, ef: 100, exact: false });
        expect(recall(after, before)).toBeGreaterThan(loaded === undefined ? 0.999 : 0.95);
        const filter = new Uint8Array(Math.ceil(count / 8)).fill(0xff);
        expect(
          recall(await copy.search(queries, { k: 10, ef: 100, exact: false, filter }), after),
        ).toBeGreaterThan(0.99);
        // What was loaded goes on as if it had been built.
        await copy.change({
          upsert: { keys: range(0, 300), vectors: rowsOf(vectors, dim, 0, 300) },
          remove: range(300, 310),
        });
        expect(copy.size).toBe(count - 10);
        expect(
          keysOf(await copy.search(rowsOf(vectors, dim, 7, 8), { k: 1, ef: 100, exact: false })),
        ).toEqual([7]);
        await copy.sweep();
        expect(copy.slots).toBe(count - 10);
        await copy.close();
        if (typeof loaded === "object") expect(existsSync(loaded.file)).toBe(false);
      }
      await index.close();
    });

  test("what is not an index is refused, and its memory is not lost", async () => {
    const own = newPool({ threads: 1 });
    const path = join(folder, "broken");
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 100), clustered(100, dim, 1));
    await index.save(path);
    await index.close();
    const bytes = readFileSync(path);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    for (let i = 0; i < 3; i++)
      expect(await codeOf(() => HnswIndex.load(path, { pool: own }))).toBe("refused");
    expect(await codeOf(() => HnswIndex.load(folder, { pool: own }))).toBe("refused");
    expect(await codeOf(() => HnswIndex.load(join(folder, "missing"), { pool: own }))).toBe("failed");
    expect(await codeOf(() => HnswIndex.load(path, { pool: own, signal: AbortSignal.abort() }))).toBe(
      "aborted",
    );
    expect(schedulerOf(own).memories.spares).toBe(1);
  });
});

describe("calls that cannot be", () => {
  test("bad options", async () => {
    const bad: Partial<Record<keyof HnswOptions, unknown>>[] = [
      { dim: 0 },
      { dim: 4097 },
      { dim: 1.5 },
      { dim: "64" },
      { m: 3 },
      { m: 129 },
      { efConstruction: 0 },
      { seed: -1 },
      { metric: "hamming" },
      { rows: "float64" },
      { rows: {} },
      { capacity: -1 },
      { capacity: 2 ** 32 },
      { pool: {} },
    ];
    for (const options of bad)
      expect(await codeOf(() => create(options as Partial<HnswOptions>)), JSON.stringify(options)).toBe(
        "bad_input",
      );
    expect(await codeOf(() => new HnswPool({ threads: 0 }))).toBe("bad_input");
    expect(await codeOf(() => new HnswPool({ threads: 17 }))).toBe("bad_input");
    expect(await codeOf(() => new HnswPool({ maxQueuedCalls: 0 }))).toBe("bad_input");
  });

  test("bad vectors and keys change nothing", async () => {
    for (const metric of ["cosine", "l2", "ip"] as const) {
      const index = await create({ metric });
      await index.upsert(range(0, 5), clustered(5, dim, 71));
      const with_ = (value: number): Float32Array => {
        const rows = clustered(1500, dim, 72);
        rows[1400 * dim + 3] = value;
        return rows;
      };
      const keys = range(0, 1500);
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1e20])
        expect(await codeOf(() => index.upsert(keys, with_(value)))).toBe("bad_input");
      const zero = await codeOf(() => index.upsert(Uint32Array.of(1), new Float32Array(dim)));
      expect(zero).toBe(metric === "cosine" ? "bad_input" : "none");
      expect(await codeOf(() => index.upsert(Uint32Array.of(0xffffffff), row(1)))).toBe("bad_input");
      expect(await codeOf(() => index.upsert(Uint32Array.of(1, 2), row(1)))).toBe("bad_input");
      expect(await codeOf(() => index.upsert([1] as unknown as Uint32Array, row(1)))).toBe("bad_input");
      expect(
        await codeOf(() => index.upsert(Uint32Array.of(1), [...row(1)] as unknown as Float32Array)),
      ).toBe("bad_input");
      expect(await codeOf(() => index.upsert(Uint32Array.of(1), row(1), { threads: 0 }))).toBe("bad_input");
      expect(await codeOf(() => index.remove(Uint32Array.of(1, 99)))).toBe("bad_input");
      expect(await codeOf(() => index.remove(Uint32Array.of(1, 1)))).toBe("bad_input");
      expect(
        await codeOf(() =>
          index.change({ remove: Uint32Array.of(1), upsert: { keys: Uint32Array.of(1), vectors: row(1) } }),
        ),
      ).toBe("bad_input");
      expect(await codeOf(() => index.change({ remove: range(0, 70_000) }))).toBe("bad_input");
      expect(index.size).toBe(5);
      expect(index.keys().length).toBe(5);
      await index.close();
    }
  });

  test("bad searches", async () => {
    const index = await create();
    await index.upsert(range(0, 5), clustered(5, dim, 73));
    const bad: unknown[] = [
      undefined,
      {},
      { k: 0 },
      { k: 65_537 },
      { k: 1, ef: 0 },
      { k: 1, ef: 1e9 },
      { k: 1, depth: -1 },
      { k: 1, filter: [1] },
      { k: 1, filter: new Uint8Array(2 ** 24) },
      { k: 1, exact: "yes" },
    ];
    for (const [i, options] of bad.entries())
      expect(await codeOf(() => index.search(row(1), options as { k: number })), `search ${i}`).toBe(
        "bad_input",
      );
    expect(await codeOf(() => index.search(new Float32Array(dim + 1), { k: 1 }))).toBe("bad_input");
    expect(await codeOf(() => index.search(new Float32Array(dim), { k: 1 }))).toBe("bad_input");
    const many = clustered(100, dim, 74);
    many[99 * dim] = Number.NaN;
    expect(await codeOf(() => index.search(many, { k: 1 }))).toBe("bad_input");
    expect(await codeOf(() => index.search(clustered(300, dim, 75), { k: 65_536 }))).toBe("bad_input");
    const { ledger } = coreOf(index);
    await ledger.drained(ledger.next);
    expect(schedulerOf(pool).calls).toBe(0);
    await index.close();
  });
});

describe("signals and limits", () => {
  test("an aborted search is rejected at once, and the index goes on", async () => {
    const index = await create();
    await index.upsert(range(0, 100), clustered(100, dim, 81));
    const gone = AbortSignal.abort();
    expect(await codeOf(() => index.search(row(1), { k: 1, signal: gone }))).toBe("aborted");
    const controller = new AbortController();
    const running = codeOf(() =>
      index.search(clustered(2000, dim, 82), { k: 10, signal: controller.signal }),
    );
    const waiting = codeOf(() => index.search(row(1), { k: 10, signal: controller.signal }));
    controller.abort();
    expect(await running).toBe("aborted");
    expect(await waiting).toBe("aborted");
    expect((await index.search(row(1), { k: 1 })).counts[0]).toBe(1);
    const { ledger } = coreOf(index);
    await ledger.drained(ledger.next);
    expect(schedulerOf(pool).calls).toBe(0);
    await index.close();
  });

  test("an aborted change leaves no trace; an aborted addition its finished slices", async () => {
    const index = await create();
    await index.upsert(range(0, 500), clustered(500, dim, 83));
    const before = index.keys();
    const controller = new AbortController();
    const change = codeOf(() =>
      index.change(
        { upsert: { keys: range(0, 3000), vectors: clustered(3000, dim, 84) }, remove: undefined },
        { signal: controller.signal },
      ),
    );
    while (coreOf(index).slots.used < 1000) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    expect(await change).toBe("aborted");
    expect([...index.keys()].sort((a, b) => a - b)).toEqual([...before]);
    await index.sweep();
    expect(index.slots).toBe(500);
    expect(await index.check()).toMatchObject({ live: 500, deadLinks: 0, badLinks: 0, problems: [] });

    const second = new AbortController();
    const upsert = codeOf(() =>
      index.upsert(range(1000, 6000), clustered(5000, dim, 85), {
        signal: second.signal,
        onProgress: () => second.abort(),
      }),
    );
    expect(await upsert).toBe("aborted");
    expect(index.size).toBe(500 + 1024);
    const waiting = new AbortController();
    const first = index.upsert(range(0, 500), clustered(500, dim, 86));
    const third = codeOf(() => index.remove(range(0, 1), { signal: waiting.signal }));
    waiting.abort();
    expect(await third).toBe("aborted");
    await first;
    expect(index.has(0)).toBe(true);
    await index.close();
  });

  test("past the limit calls are refused as overloaded", async () => {
    const own = newPool({ threads: 1, maxQueuedCalls: 3 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 100), clustered(100, dim, 87));
    const searches = Array.from({ length: 5 }, () => codeOf(() => index.search(row(1), { k: 1 })));
    expect(await Promise.all(searches)).toEqual(["none", "none", "none", "overloaded", "overloaded"]);
    const changes = Array.from({ length: 6 }, (_, i) =>
      codeOf(() => index.upsert(Uint32Array.of(i), row(i))),
    );
    const codes = await Promise.all(changes);
    expect(codes.filter((code) => code === "overloaded").length).toBeGreaterThan(0);
    expect(codes.slice(0, 3)).toEqual(["none", "none", "none"]);
    expect((await index.search(row(1), { k: 1 })).counts[0]).toBe(1);
    await own.close();
  });

  test("closing rejects what waits and whatever comes after", async () => {
    const index = await create();
    await index.upsert(range(0, 100), clustered(100, dim, 88));
    const long = codeOf(() => index.upsert(range(0, 20_000), clustered(20_000, dim, 89)));
    const next = codeOf(() => index.remove(range(0, 1)));
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.all([index.close(), index.close()]);
    expect(await long).toBe("closed");
    expect(await next).toBe("closed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("closed");
    expect(await codeOf(() => index.upsert(range(0, 1), row(1)))).toBe("closed");
    expect(await codeOf(() => index.has(1))).toBe("closed");
    expect(await codeOf(() => index.save(join(folder, "closed")))).toBe("closed");
  });

  test("a closed pool rejects too", async () => {
    const own = newPool({ threads: 2 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 100), clustered(100, dim, 90));
    const search = codeOf(() => index.search(clustered(3000, dim, 91), { k: 10 }));
    const upsert = codeOf(() => index.upsert(range(0, 9000), clustered(9000, dim, 92)));
    await new Promise((resolve) => setImmediate(resolve));
    await own.close();
    expect(await search).toBe("closed");
    expect(await upsert).toBe("closed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("closed");
    expect(await codeOf(() => HnswIndex.create({ dim, pool: own }))).toBe("closed");
    await index.close();
  });
});

describe("when the engine breaks", () => {
  test("a trap in a search is an error of that search", async () => {
    const index = await create();
    await index.upsert(range(0, 2000), clustered(2000, dim, 101));
    const entry = new Uint32Array(coreOf(index).memory.memory.buffer, controlAt + 256, 2);
    const [slot, level] = entry;
    entry[0] = 500 * segmentSlots;
    expect(await codeOf(() => index.search(row(1), { k: 1, exact: false }))).toBe("failed");
    entry.set([slot ?? 0, level ?? 0]);
    expect((await index.search(row(1), { k: 1, exact: false })).counts[0]).toBe(1);
    await index.close();
  });

  test("a trap in a change ends the index, and nothing else", async () => {
    const index = await create();
    const other = await create();
    await index.upsert(range(0, 2000), clustered(2000, dim, 102));
    await other.upsert(range(0, 10), clustered(10, dim, 103));
    const entry = new Uint32Array(coreOf(index).memory.memory.buffer, controlAt + 256, 2);
    entry[0] = 500 * segmentSlots;
    expect(await codeOf(() => index.upsert(range(0, 500), clustered(500, dim, 104)))).toBe("failed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("failed");
    expect(await codeOf(() => index.upsert(range(0, 1), row(1)))).toBe("failed");
    expect((await other.search(row(1), { k: 1 })).counts[0]).toBe(1);
    await index.close();
    const next = await create();
    await next.upsert(range(0, 2000), clustered(2000, dim, 105));
    expect(await next.check()).toMatchObject({ live: 2000, badLinks: 0, problems: [] });
    await next.close();
    await other.close();
  });

  test("calls of a thread that died are rejected, and it is started again", async () => {
    const own = newPool({ threads: 1 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 500), clustered(500, dim, 106));
    const search = codeOf(() => index.search(clustered(5000, dim, 107), { k: 10 }));
    await new Promise((resolve) => setImmediate(resolve));
    schedulerOf(own).killThread(0);
    expect(await search).toBe("failed");
    expect((await index.search(row(1), { k: 1 })).counts[0]).toBe(1);
    await index.upsert(Uint32Array.of(7), row(7));
    expect(index.size).toBe(500);
    await index.close();
  });

  test("a thread that dies in a change ends the index", async () => {
    const own = newPool({ threads: 2 });
    const index = await HnswIndex.create({ dim, pool: own });
    const upsert = codeOf(() => index.upsert(range(0, 50_000), clustered(50_000, dim, 108)));
    while (index.size === 0) await new Promise((resolve) => setImmediate(resolve));
    schedulerOf(own).killThread(0);
    expect(await upsert).toBe("failed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("failed");
    await index.close();
    const next = await HnswIndex.create({ dim, pool: own });
    await next.upsert(Uint32Array.of(7), row(7));
    expect(keysOf(await next.search(row(7), { k: 1 }))).toEqual([7]);
    await next.close();
  });
});
