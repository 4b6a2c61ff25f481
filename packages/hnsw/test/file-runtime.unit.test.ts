// Files through the public interface: several threads, one pool.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { HnswIndex, HnswPool, type SearchResult } from "../src/index.ts";
import { craftWord } from "./file-craft.ts";
import { numbersFrom, randomVector } from "./file-host.ts";

const folder = mkdtempSync(join(tmpdir(), "hnsw-file-runtime-"));
const pool = new HnswPool({ threads: 3 });
afterAll(async () => {
  await pool.close();
  rmSync(folder, { recursive: true });
});
const dim = 96;
const count = 5000;

function vectorsOf(seed: number, n: number): Float32Array {
  const random = numbersFrom(seed);
  const all = new Float32Array(n * dim);
  for (let i = 0; i < n; i++) all.set(randomVector(random, dim), i * dim);
  return all;
}

const keysFrom = (first: number, n: number): Uint32Array =>
  Uint32Array.from({ length: n }, (_, i) => first + i);

async function filled(rows: "float32" | "float16" | "none" | { file: string }): Promise<HnswIndex> {
  const index = await HnswIndex.create({ dim, m: 8, efConstruction: 40, rows, pool });
  await index.upsert(keysFrom(10, count), vectorsOf(1, count), { threads: 1 });
  await index.remove(keysFrom(500, 300));
  // As a save does first: what was removed leaves the graph, which changes answers a little.
  await index.sweep();
  return index;
}

const ask = (index: HnswIndex, exact = false): Promise<SearchResult> =>
  index.search(vectorsOf(77, 20), { k: 10, ef: 64, exact });

test("a save, a load, the same answers, and changes afterwards", async () => {
  const path = join(folder, "whole");
  const index = await filled("float32");
  await index.save(path);
  const loaded = await HnswIndex.load(path, { pool });
  expect(loaded.size).toBe(count - 300);
  expect(await ask(loaded)).toEqual(await ask(index));
  expect(await loaded.get(Uint32Array.of(11, 4000))).toEqual(await index.get(Uint32Array.of(11, 4000)));
  expect((await loaded.check()).problems).toEqual([]);
  for (const one of [index, loaded]) {
    await one.upsert(keysFrom(90_000, 200), vectorsOf(5, 200), { threads: 1 });
    await one.remove(keysFrom(20, 50));
    expect((await one.check()).problems).toEqual([]);
  }
  expect(await ask(loaded, true)).toEqual(await ask(index, true));
  await index.close();
  await loaded.close();
});

test("rows apart, then in a working file, then saved from there", async () => {
  const [path, rowsPath] = [join(folder, "apart"), join(folder, "apart.rows")];
  const index = await filled("float32");
  await index.save(path, { rowsPath });
  const working = join(folder, "working");
  const loaded = await HnswIndex.load(path, { pool, rowsPath, rows: { file: working } });
  expect(await ask(loaded)).toEqual(await ask(index));
  const [again, rowsAgain] = [join(folder, "again"), join(folder, "again.rows")];
  await loaded.save(again, { rowsPath: rowsAgain });
  expect(readFileSync(again).equals(readFileSync(path))).toBe(true);
  expect(readFileSync(rowsAgain).equals(readFileSync(rowsPath))).toBe(true);
  await index.close();
  await loaded.close();
});

test("searches go on beside a save and a load, and a refused file harms nothing", async () => {
  const path = join(folder, "beside");
  const index = await filled("float16");
  const before = await ask(index);
  const saving = index.save(path);
  const during = await Promise.all([ask(index), ask(index), saving.then(() => ask(index))]);
  expect(during).toEqual([before, before, before]);
  const bytes = readFileSync(path);
  const twice = craftWord(bytes, "keys", 1, 10);
  const spoiled = craftWord(bytes, "links", 3, 0x7fff_fff0);
  for (const [changed, message] of [
    [twice, /key 10 is there twice/],
    [spoiled, /outside the index/],
    [bytes.subarray(0, 70_000), /truncated/],
  ] as const) {
    writeFileSync(path, changed);
    await expect(HnswIndex.load(path, { pool })).rejects.toMatchObject({
      code: "refused",
      message: expect.stringMatching(message),
    });
    expect(await ask(index)).toEqual(before);
  }
  // A filter that was at hand before a save still means the same afterwards.
  const filter = new Uint8Array(16).fill(0xff);
  const options = { k: 5, filter };
  const allowed = await index.search(vectorsOf(77, 4), options);
  await index.save(path);
  expect(await index.search(vectorsOf(77, 4), options)).toEqual(allowed);
  await index.close();
});
