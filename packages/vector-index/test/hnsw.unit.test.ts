import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { loadEngine } from "../src/engines.ts";
import { rerankKinds } from "../src/port.ts";
import { describeEngineContract } from "./engine-contract.ts";
import { dotOf, range, row, unitVectors } from "./fixtures.ts";
import { describeSpoolContract } from "./spool-contract.ts";

describeEngineContract("hnsw", () => loadEngine("hnsw"), {
  reusesPositions: true,
  savesVectors: true,
  inspects: true,
  isMissing: false,
});
describeSpoolContract("hnsw", () => loadEngine("hnsw"), { spools: true, isMissing: false });

const dim = 64;
const n = 3000;
const params = { m: 16, efConstruction: 100 };
const folder = mkdtempSync(join(tmpdir(), "lim-hnsw-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const filesAt = (at: string) => ({ index: join(folder, at), vectors: join(folder, `${at}.vectors`) });
const workFolders = () => readdirSync(tmpdir()).filter((name) => name.includes(`.${process.pid}.`));

async function saved(at: string, seed: number) {
  const adapter = await loadEngine("hnsw");
  const vectors = unitVectors(n, dim, seed);
  const index = await adapter.create({ dim, capacity: n, params });
  await index.add(range(0, n), vectors);
  await index.remove(Uint32Array.of(7));
  await index.save(filesAt(at));
  await index.close();
  return vectors;
}
const expected = { dim, slots: n, removed: Uint32Array.of(7), params };

describe("engine hnsw", () => {
  it("counts vectors that no search by its graph can find: near copies make islands", async () => {
    const adapter = await loadEngine("hnsw");
    const copies = 100;
    const centres = unitVectors(6, dim, 5);
    const index = await adapter.create({ dim, capacity: 600, params: { m: 4, efConstruction: 40 } });
    const vectors = new Float32Array(600 * dim);
    for (let i = 0; i < 600; i++) vectors.set(row(centres, dim, Math.floor(i / copies)), i * dim);
    await index.add(range(0, 600), vectors, { threads: 1 });
    const { reachable, unreachable } = (await index.inspect?.()) ?? { reachable: 0, unreachable: 0 };
    expect(reachable + unreachable).toBe(600);
    expect(unreachable).toBeGreaterThan(10);
    await index.close();
  });

  it.each(rerankKinds)("re-ranks by vectors held as %s, loaded from one kind of file", async (rerank) => {
    const at = `rerank-${rerank}`;
    const vectors = await saved(at, 41);
    const adapter = await loadEngine("hnsw", { rerank });
    expect(adapter.readsVectors).toBe(rerank !== "off");
    const files = adapter.readsVectors ? filesAt(at) : { index: filesAt(at).index };
    const before = workFolders().length;
    const index = await adapter.load({ ...expected, files });
    expect(workFolders().length - before).toBe(rerank === "file" ? 1 : 0);
    // The files may go once they are loaded.
    rmSync(filesAt(at).index);
    rmSync(filesAt(at).vectors);
    const queries = unitVectors(100, dim, 42);
    const found = await index.search(queries, { k: 10, ef: 128 });
    let hits = 0;
    for (let q = 0; q < 100; q++) {
      const query = row(queries, dim, q);
      const scores = Array.from({ length: n }, (_, i) => (i === 7 ? -1 : dotOf(query, row(vectors, dim, i))));
      const tenth = scores.toSorted((a, b) => b - a)[9] ?? 0;
      for (let i = 0; i < 10; i++) {
        const exact = scores[found.positions[q * 10 + i] ?? 0] ?? 0;
        if (exact >= tenth - 1e-6) hits++;
        expect(Math.abs(exact - (found.similarities[q * 10 + i] ?? 0))).toBeLessThan(
          index.similarityTolerance,
        );
      }
    }
    expect(hits / 1000).toBeGreaterThanOrEqual(rerank === "off" ? 0.9 : 0.97);
    // What it reads back can be searched and added again, and finds itself.
    const known = await index.read(range(100, 50));
    const self = await index.search(known, { k: 1, ef: 64 });
    expect(Array.from(self.positions)).toEqual(Array.from(range(100, 50)));
    expect(self.similarities.every((s) => s > 1 - index.similarityTolerance)).toBe(true);
    await index.change({
      add: { positions: Uint32Array.of(3), vectors: queries.slice(0, dim) },
      remove: range(4, 2),
    });
    expect((await index.search(queries.slice(0, dim), { k: 1, ef: 64 })).positions[0]).toBe(3);
    if (rerank === "float32" || rerank === "file")
      expect(await index.read(Uint32Array.of(3))).toEqual(queries.slice(0, dim));
    await index.close();
    expect(workFolders().length).toBe(before);
  });

  it("I2: an index without its vectors, with those of another, or with damaged ones is refused", async () => {
    await saved("one", 43);
    await saved("other", 44);
    const adapter = await loadEngine("hnsw");
    const one = filesAt("one");
    const refused = { errorName: "index_refused" };
    await expect(adapter.load({ ...expected, files: { index: one.index } })).rejects.toMatchObject(refused);
    const files = { index: one.index, vectors: filesAt("other").vectors };
    await expect(adapter.load({ ...expected, files })).rejects.toMatchObject(refused);
    const whole = readFileSync(one.vectors);
    for (const at of [0, 300, whole.length >> 1, whole.length - 1]) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 4;
      writeFileSync(one.vectors, bytes);
      await expect(adapter.load({ ...expected, files: one })).rejects.toMatchObject(refused);
    }
    writeFileSync(one.vectors, whole.subarray(0, whole.length - 1));
    await expect(adapter.load({ ...expected, files: one })).rejects.toMatchObject(refused);
    rmSync(one.vectors);
    const gone = adapter.load({ ...expected, files: one });
    await expect(gone).rejects.toThrow();
    expect(existsSync(one.index)).toBe(true);
  });

  it("I10: tells what it needs in advance, and refuses what its memory cannot hold, with the numbers", async () => {
    const adapter = await loadEngine("hnsw");
    const shape = { dim: 512, params: { m: 16, efConstruction: 200 } };
    const perVector =
      (adapter.estimateMemoryBytes({ ...shape, capacity: 200_000 }) -
        adapter.estimateMemoryBytes({ ...shape, capacity: 100_000 })) /
      100_000;
    expect(perVector).toBeGreaterThan(512 * 5);
    expect(perVector).toBeLessThan(512 * 5 + 400);
    const needs = await Promise.all(
      rerankKinds.map(async (rerank) =>
        (await loadEngine("hnsw", { rerank })).estimateMemoryBytes({ ...shape, capacity: 200_000 }),
      ),
    );
    const [float32 = 0, float16 = 0, file = 0, off = 0] = needs;
    expect([float32 > float16, float16 > file, file === off, off > 200_000 * 512]).toEqual([
      true,
      true,
      true,
      true,
    ]);
    const huge = { ...shape, capacity: 50_000_000 };
    const refused = {
      errorName: "out_of_memory",
      detail: expect.stringMatching(/50000000 .* holds \d+ in its 4 GiB/),
    };
    expect(() => adapter.estimateMemoryBytes(huge)).toThrow(expect.objectContaining(refused));
    await expect(adapter.create(huge)).rejects.toMatchObject(refused);
  });

  it("I10: past the limit of waiting changes one is refused; those that wait are carried out", async () => {
    const adapter = await loadEngine("hnsw");
    const index = await adapter.create({ dim, capacity: 10, params });
    const vectors = unitVectors(1, dim, 45);
    const changes = await Promise.allSettled(
      Array.from({ length: 4200 }, (_, i) => index.add(Uint32Array.of(i % 10), vectors)),
    );
    expect(changes.filter(({ status }) => status === "fulfilled")).toHaveLength(10);
    expect(
      changes.slice(4096).every((r) => r.status === "rejected" && r.reason.errorName === "overloaded"),
    ).toBe(true);
    await index.close();
  });

  it("keeps the event loop free while it checks, adds and searches much at once", async () => {
    const adapter = await loadEngine("hnsw");
    const index = await adapter.create({ dim, capacity: 20_000, params: { m: 4, efConstruction: 10 } });
    const vectors = unitVectors(20_000, dim, 46);
    let turns = 0;
    const beat = setInterval(() => turns++, 0);
    await index.add(range(0, 20_000), vectors);
    const added = turns;
    const found = await index.search(vectors, { k: 1, ef: 32 });
    clearInterval(beat);
    expect(added).toBeGreaterThan(20);
    expect(turns - added).toBeGreaterThan(5);
    expect(found.counts.every((count) => count === 1)).toBe(true);
    await index.close();
  });

  it("an open index does not hold a process that ends", () => {
    const main = new URL("../dist/index.js", import.meta.url).href;
    const script = `
      const { loadEngine } = await import(${JSON.stringify(main)});
      const index = await (await loadEngine("hnsw")).create({ dim: 8, capacity: 1, params: { m: 4, efConstruction: 10 } });
      const v = Float32Array.of(1, 0, 0, 0, 0, 0, 0, 0);
      await index.add(Uint32Array.of(0), v);
      const found = await index.search(v, { k: 1, ef: 10 });
      const native = process.report.getReport().sharedObjects.some((o) => o.includes("addon.node"));
      console.log(JSON.stringify([found.counts[0], native]));`;
    const run = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
      timeout: 20_000,
    });
    expect([run.stderr, run.status, run.stdout.trim()]).toEqual(["", 0, "[1,false]"]);
  });
});
