import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { HnswIndex, type RowsOption } from "../src/index.ts";
import { schedulerOf } from "../src/pool.ts";
import { clustered, codeOf, dim, keysOf, range, recall, rowsOf, setUp } from "./support.ts";

const { create, folder, newPool, pool } = setUp();

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
