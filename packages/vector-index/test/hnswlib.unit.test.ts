import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { availableEngines, loadEngine } from "../src/engines.ts";
import { HnswlibIndex } from "../src/hnswlib/hnswlib-index.ts";
import type { Steps } from "../src/hnswlib/thread.ts";
import type { VectorIndex } from "../src/port.ts";
import { describeEngineContract } from "./engine-contract.ts";
import { range, row, unitVectors } from "./fixtures.ts";
import { describeSpoolContract } from "./spool-contract.ts";

const isMissing = !(await availableEngines()).includes("hnswlib");
if (isMissing) console.warn("hnswlib-node is not installed: the tests of engine hnswlib are skipped");

describeEngineContract("hnswlib", () => loadEngine("hnswlib"), {
  reusesPositions: false,
  savesVectors: false,
  inspects: false,
  isMissing,
});
describeSpoolContract("hnswlib", () => loadEngine("hnswlib"), { spools: false, isMissing });

const params = { m: 8, efConstruction: 80 };
const folder = mkdtempSync(join(tmpdir(), "lim-hnswlib-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function threadOf(index: VectorIndex) {
  if (!(index instanceof HnswlibIndex)) throw new Error("not an hnswlib index");
  return index.thread;
}

describe.skipIf(isMissing)("hnswlib's traps", () => {
  it("ef holds after a load: it is set on every search", async () => {
    const adapter = await loadEngine("hnswlib");
    const dim = 48;
    const n = 3000;
    const vectors = unitVectors(n, dim, 21);
    const index = await adapter.create({ dim, capacity: n, params });
    await index.add(range(0, n), vectors);
    const path = join(folder, "ef.dat");
    await index.save({ index: path, vectors: "" });
    const loaded = await adapter.load({
      files: { index: path },
      dim,
      slots: n,
      removed: new Uint32Array(),
      params,
    });
    const queries = unitVectors(100, dim, 22);
    const wide = await index.search(queries, { k: 10, ef: 400 });
    const narrow = await index.search(queries, { k: 10, ef: 10 });
    expect(await loaded.search(queries, { k: 10, ef: 400 })).toEqual(wide);
    expect(wide.positions).not.toEqual(narrow.positions);
    await Promise.all([index.close(), loaded.close()]);
  });

  it("I2: every kind of damage that its code would follow is refused before it reads the file", async () => {
    const adapter = await loadEngine("hnswlib");
    const dim = 16;
    const n = 200;
    const index = await adapter.create({ dim, capacity: 5000, params });
    await index.add(range(0, n), unitVectors(n, dim, 23));
    const path = join(folder, "whole.dat");
    await index.save({ index: path, vectors: "" });
    await index.close();
    const whole = readFileSync(path);
    const element = 2 * params.m * 4 + 4 + dim * 4 + 8;
    const tail = 96 + n * element;
    const damaged = join(folder, "damaged.dat");
    const refused = async () =>
      expect(
        adapter.load({ files: { index: damaged }, dim, slots: n, removed: new Uint32Array(), params }),
      ).rejects.toMatchObject({ errorName: "index_refused" });
    const u32 = (offset: number, value: number) => {
      const bytes = Buffer.from(whole);
      bytes.writeUInt32LE(value, offset);
      writeFileSync(damaged, bytes);
      return refused();
    };
    for (let offset = 0; offset < 80; offset += 4) await u32(offset, whole.readUInt32LE(offset) ^ 0x01000001);
    await u32(96, 2 * params.m + 1);
    await u32(96, whole.readUInt32LE(96) | 0x10000);
    await u32(96 + 4, n);
    await u32(96 + 5 * element + element - 8, 6);
    await u32(tail, 3);
    await u32(tail, whole.readUInt32LE(tail) + (params.m * 4 + 4) * 1000);
    for (const size of [0, 50, 96, tail - 1, whole.length - 1]) {
      copyFileSync(path, damaged);
      truncateSync(damaged, size);
      await refused();
    }
    writeFileSync(damaged, Buffer.concat([whole, Buffer.alloc(4)]));
    await refused();
  });

  it("a thread that dies rejects what is pending and what comes later", async () => {
    const adapter = await loadEngine("hnswlib");
    const dim = 16;
    const index = await adapter.create({ dim, capacity: 10, params });
    const adding = index.add(range(0, 5000), unitVectors(5000, dim, 24));
    const searching = index.search(unitVectors(1, dim, 25), { k: 1, ef: 10 });
    void threadOf(index).worker.terminate();
    await expect(adding).rejects.toMatchObject({ errorName: "engine_failed" });
    await searching.catch((error: unknown) => expect(error).toMatchObject({ errorName: "engine_failed" }));
    await expect(index.add(range(5000, 1), unitVectors(1, dim, 26))).rejects.toMatchObject({
      errorName: "engine_failed",
    });
    await index.close();
  });

  it("I5: of a change that fails in a later slice nothing is found, then or after the next change", async () => {
    const adapter = await loadEngine("hnswlib");
    const dim = 16;
    const index = await adapter.create({ dim, capacity: 10, params });
    const vectors = unitVectors(12, dim, 28);
    await index.add(range(0, 3), vectors.slice(0, 3 * dim));
    const found = async () => (await index.search(row(vectors, dim, 5), { k: 12, ef: 50 })).counts[0];
    const steps = function* (): Steps<void> {
      const add = vectors.slice(3 * dim, 9 * dim);
      yield { message: { op: "insert", first: 3, add } };
      yield { message: { op: "change", first: 77, add, remove: Uint32Array.of(0) } };
    };
    await expect(threadOf(index).call(steps(), { overtakers: 1 })).rejects.toMatchObject({
      errorName: "bad_input",
    });
    expect([await found(), index.count, index.slots]).toEqual([3, 3, 9]);
    await index.add(range(9, 1), row(vectors, dim, 9));
    expect([await found(), index.count]).toEqual([4, 4]);
    await index.close();
  });

  it("I10: a queue that is full refuses", async () => {
    const adapter = await loadEngine("hnswlib");
    const index = await adapter.create({ dim: 16, capacity: 10, params });
    const vectors = unitVectors(1, 16, 27);
    await index.add(range(0, 1), vectors);
    const calls = Array.from({ length: 4200 }, () => index.search(vectors, { k: 1, ef: 10 }));
    const results = await Promise.allSettled(calls);
    const refused = results.filter((result) => result.status === "rejected");
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.every((r) => r.reason.errorName === "overloaded")).toBe(true);
    await index.close();
  });

  it("keeps the event loop free while it builds", async () => {
    const adapter = await loadEngine("hnswlib");
    const dim = 128;
    const index = await adapter.create({ dim, capacity: 2000, params });
    const vectors = unitVectors(2000, dim, 28);
    let turns = 0;
    const beat = setInterval(() => turns++, 1);
    await index.add(range(0, 2000), vectors);
    clearInterval(beat);
    // Of a loop that waits for the engine it would be one or two; how many depends on the machine.
    expect(turns).toBeGreaterThan(10);
    await index.close();
  });

  it("no native code is loaded before loadEngine, and an open index does not hold a process that ends", () => {
    const main = new URL("../dist/index.js", import.meta.url).href;
    const script = `
      const native = () => process.report.getReport().sharedObjects.some((o) => o.includes("addon.node"));
      const { loadEngine, createExactIndex } = await import(${JSON.stringify(main)});
      const exact = createExactIndex({ dim: 8 });
      const v = Float32Array.of(1, 0, 0, 0, 0, 0, 0, 0);
      exact.upsertMany(new Uint8Array(16).fill(1), v);
      await exact.search(v, { limit: 1 });
      const before = native();
      const adapter = await loadEngine("hnswlib");
      const index = await adapter.create({ dim: 8, capacity: 1, params: { m: 4, efConstruction: 10 } });
      await index.add(Uint32Array.of(0), v);
      console.log(JSON.stringify([before, native()]));`;
    const run = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
      timeout: 20_000,
    });
    expect(run.stderr).toBe("");
    expect(run.status).toBe(0);
    expect(JSON.parse(run.stdout)).toEqual([false, true]);
  });

  it("I10: fifteen loads and closes leave memory flat", async () => {
    const adapter = await loadEngine("hnswlib");
    const dim = 512;
    const n = 9000;
    const path = join(folder, "large.dat");
    // A thin graph builds fast; the memory is that of the vectors.
    const thin = { m: 2, efConstruction: 2 };
    const built = await adapter.create({ dim, capacity: n, params: thin });
    const vectors = unitVectors(n, dim, 29);
    await built.add(range(0, n), vectors);
    await built.save({ index: path, vectors: "" });
    await built.close();
    const rssMb: number[] = [];
    for (let cycle = 0; cycle < 15; cycle++) {
      const index = await adapter.load({
        files: { index: path },
        dim,
        slots: n,
        removed: new Uint32Array(),
        params: thin,
      });
      await index.search(row(vectors, dim, cycle), { k: 1, ef: 10 });
      await index.close();
      rssMb.push(process.memoryUsage.rss() / 2 ** 20);
    }
    // Ten kept indexes would be 180 MB.
    expect((rssMb.at(-1) ?? 0) - (rssMb[4] ?? 0)).toBeLessThan(40);
  });
});
