import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import type { EngineAdapter, VectorIndex } from "../src/port.ts";
import { dotOf, row, unitVectors } from "./fixtures.ts";

const dim = 32;
const params = { m: 8, efConstruction: 80 };

/** What every engine's adapter must hold to. */
export function describeEngineContract(name: string, loadAdapter: () => Promise<EngineAdapter>): void {
  describe(`engine contract: ${name}`, () => {
    let adapter: EngineAdapter;
    const opened: VectorIndex[] = [];
    const folder = mkdtempSync(join(tmpdir(), "lim-engine-"));
    beforeAll(async () => {
      adapter = await loadAdapter();
      return () => rmSync(folder, { recursive: true, force: true });
    });
    afterEach(async () => {
      await Promise.all(opened.splice(0).map((index) => index.close()));
    });
    const create = async (capacity = 10) => {
      const index = await adapter.create({ dim, capacity, params });
      opened.push(index);
      return index;
    };
    const filled = async (n: number, seed = 1) => {
      const index = await create(n);
      const vectors = unitVectors(n, dim, seed);
      await index.add(vectors);
      return { index, vectors };
    };
    const load = async (path: string, slots: number, removed: number[] = [], over: object = {}) => {
      const index = await adapter.load({
        path,
        dim,
        slots,
        removed: Uint32Array.from(removed),
        params,
        ...over,
      });
      opened.push(index);
      return index;
    };

    it("gives consecutive positions, grows past its capacity and finds each vector", async () => {
      const index = await create(10);
      const vectors = unitVectors(300, dim, 2);
      expect(await index.add(vectors.subarray(0, 5 * dim))).toBe(0);
      expect(await index.add(vectors.subarray(5 * dim))).toBe(5);
      expect([index.slots, index.count, index.capacity >= 300]).toEqual([300, 300, true]);
      const found = await index.search(vectors, { k: 1, ef: 100 });
      expect(Array.from(found.positions)).toEqual(Array.from({ length: 300 }, (_, i) => i));
      expect(found.similarities.every((s) => s > 0.9999 && s <= 1)).toBe(true);
    });

    it("reports similarity as the cosine clipped to 0..1", async () => {
      const { index, vectors } = await filled(60);
      const query = row(vectors, dim, 0);
      const found = await index.search(query, { k: 60, ef: 200 });
      found.positions.forEach((position, i) => {
        const cosine = Math.max(0, dotOf(query, row(vectors, dim, position)));
        expect(found.similarities[i]).toBeCloseTo(Math.min(1, cosine), 5);
      });
      expect(found.similarities.at(-1)).toBe(0);
    });

    it("I11: refuses NaN, infinite, zero and scaled rows, and adds nothing of such a batch", async () => {
      const { index, vectors } = await filled(20);
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 1.5]) {
        const batch = unitVectors(200, dim, 3);
        batch[150 * dim + 3] = bad;
        await expect(index.add(batch)).rejects.toMatchObject({ errorName: "bad_input" });
        await expect(index.search(batch, { k: 1, ef: 10 })).rejects.toMatchObject({ errorName: "bad_input" });
      }
      await expect(index.add(new Float32Array(dim))).rejects.toMatchObject({ errorName: "bad_input" });
      await expect(index.add(new Float32Array(dim + 1))).rejects.toMatchObject({ errorName: "bad_input" });
      expect(index.slots).toBe(20);
      expect((await index.search(row(vectors, dim, 3), { k: 1, ef: 10 })).positions[0]).toBe(3);
    });

    it("I11: refuses unknown, repeated and removed positions, and changes nothing", async () => {
      const { index, vectors } = await filled(20);
      await index.remove(Uint32Array.of(4));
      for (const positions of [[4], [20], [5, 5], [6, 4], [2 ** 32 - 1]]) {
        await expect(index.remove(Uint32Array.from(positions))).rejects.toMatchObject({
          errorName: "bad_input",
        });
        await expect(index.read(Uint32Array.of(4))).rejects.toMatchObject({ errorName: "bad_input" });
      }
      const change = { add: row(vectors, dim, 1), remove: Uint32Array.of(4) };
      await expect(index.change(change)).rejects.toMatchObject({ errorName: "bad_input" });
      expect([index.slots, index.count]).toEqual([20, 19]);
    });

    it("I5: removed positions are in no answer and not in the count", async () => {
      const { index, vectors } = await filled(100);
      const removed = Array.from({ length: 50 }, (_, i) => i * 2);
      await index.remove(Uint32Array.from(removed));
      expect([index.slots, index.count]).toEqual([100, 50]);
      const found = await index.search(vectors, { k: 100, ef: 200 });
      for (let q = 0; q < 100; q++) {
        const positions = found.positions.subarray(q * 100, q * 100 + (found.counts[q] ?? 0));
        expect(positions.length).toBe(50);
        expect(positions.every((position) => position % 2 === 1)).toBe(true);
      }
    });

    it("answers k above the count, an empty index and an index of removed positions only", async () => {
      const index = await create();
      const vectors = unitVectors(3, dim, 5);
      const query = row(vectors, dim, 0);
      expect(Array.from((await index.search(query, { k: 5, ef: 10 })).counts)).toEqual([0]);
      await index.add(vectors);
      expect(Array.from((await index.search(query, { k: 5, ef: 1 })).counts)).toEqual([3]);
      await index.remove(Uint32Array.of(0, 1, 2));
      expect(Array.from((await index.search(query, { k: 5, ef: 10 })).counts)).toEqual([0]);
      await index.add(query);
      expect((await index.search(query, { k: 5, ef: 10 })).positions[0]).toBe(3);
    });

    it("one change is one step: no search sees a part of it", async () => {
      const { index, vectors } = await filled(40);
      const query = row(vectors, dim, 7);
      let held = 7;
      for (let round = 0; round < 20; round++) {
        const before = index.search(query, { k: 40 + round, ef: 200 });
        const changed = index.change({ add: query, remove: Uint32Array.of(held) });
        const after = index.search(query, { k: 40 + round, ef: 200 });
        const [first, next, second] = await Promise.all([before, changed, after]);
        expect([first.counts[0], first.positions[0]]).toEqual([40, held]);
        expect([second.counts[0], second.positions[0]]).toEqual([40, next]);
        held = next;
      }
    });

    it("answers searches between the slices of a long addition, which an abort ends without a trace", async () => {
      const { index, vectors } = await filled(50);
      const abort = new AbortController();
      const adding = index.add(unitVectors(3000, dim, 9), { signal: abort.signal });
      const query = row(vectors, dim, 7);
      const found = await index.search(query, { k: 1, ef: 50 });
      expect(found.positions[0]).toBe(7);
      abort.abort();
      await expect(adding).rejects.toMatchObject({ errorName: "aborted" });
      expect(index.count).toBe(50);
      expect(index.slots).toBeLessThan(3050);
      const all = await index.search(query, { k: 1000, ef: 1000 });
      expect(all.counts[0]).toBe(50);
      expect(await index.add(query)).toBe(index.slots - 1);
    });

    it("an aborted call that waits is taken back", async () => {
      const { index, vectors } = await filled(10);
      await expect(index.add(vectors, { signal: AbortSignal.abort() })).rejects.toMatchObject({
        errorName: "aborted",
      });
      expect(index.slots).toBe(10);
    });

    it("does not detach or keep the caller's arrays", async () => {
      const { index } = await filled(1);
      const vectors = unitVectors(200, dim, 4);
      const copy = vectors.slice();
      const adding = index.add(vectors);
      vectors.fill(9);
      await adding;
      const positions = Uint32Array.from({ length: 200 }, (_, i) => i + 1);
      expect(await index.read(positions)).toEqual(copy);
      // Also while the call waits for its turn.
      vectors.set(copy);
      const before = index.add(unitVectors(300, dim, 5));
      const waiting = index.add(vectors);
      vectors.fill(9);
      await before;
      const first = await waiting;
      expect(await index.read(positions.map((position) => position + first - 1))).toEqual(copy);
    });

    it("a full disk is disk_full, and the short file is taken away", async (test) => {
      const full = join(folder, "full.dat");
      if (!existsSync("/dev/full")) return test.skip("no /dev/full here");
      symlinkSync("/dev/full", full);
      const { index, vectors } = await filled(50);
      await expect(index.save(full)).rejects.toMatchObject({ errorName: "disk_full" });
      expect(readdirSync(folder)).not.toContain("full.dat");
      expect((await index.search(row(vectors, dim, 7), { k: 1, ef: 10 })).positions[0]).toBe(7);
    });

    it("saves and loads content, removed positions and nothing of its reserve", async () => {
      const { index, vectors } = await filled(120);
      const path = join(folder, "a.dat");
      await index.remove(Uint32Array.of(3, 119));
      await index.save(path);
      const loaded = await load(path, 120, [3, 119]);
      expect([loaded.slots, loaded.count]).toEqual([120, 118]);
      const [a, b] = await Promise.all([index, loaded].map((one) => one.search(vectors, { k: 10, ef: 64 })));
      expect(b).toEqual(a);
      expect(await loaded.add(row(vectors, dim, 3))).toBe(120);
      expect((await loaded.search(row(vectors, dim, 3), { k: 1, ef: 64 })).positions[0]).toBe(120);
    });

    it("one seed and one order of insertion give one file", async () => {
      const { readFileSync } = await import("node:fs");
      const files = [];
      for (const at of ["s1", "s2"]) {
        const { index } = await filled(200, 6);
        await index.save(join(folder, at));
        files.push(readFileSync(join(folder, at)));
      }
      expect(files[0]?.equals(files[1] as Buffer)).toBe(true);
    });

    it("I2: refuses a file of other dimensions, slots, m or removed positions before the engine reads it", async () => {
      const { index } = await filled(64);
      const path = join(folder, "b.dat");
      await index.remove(Uint32Array.of(5));
      await index.save(path);
      const wrong: [number, number[], object][] = [
        [64, [5], { dim: dim / 2 }],
        [64, [5], { dim: dim * 2 }],
        [64, [5], { dim: dim + 1 }],
        [63, [5], {}],
        [65, [5], {}],
        [64, [], {}],
        [64, [6], {}],
        [64, [5, 6], {}],
        [64, [5, 5], {}],
        [64, [64], {}],
        [64, [5], { params: { m: 9, efConstruction: 80 } }],
      ];
      for (const [slots, removed, over] of wrong)
        await expect(load(path, slots, removed, over)).rejects.toMatchObject({ errorName: "index_refused" });
      expect((await load(path, 64, [5])).count).toBe(63);
    });

    it("a save into a missing folder is an error", async () => {
      const { index } = await filled(3);
      await expect(index.save(join(folder, "nowhere", "a.dat"))).rejects.toMatchObject({
        errorName: "engine_failed",
      });
    });

    it("close is idempotent, ends pending calls and refuses later ones", async () => {
      const { index, vectors } = await filled(20);
      const pending = index.add(unitVectors(500, dim, 8));
      const closing = index.close();
      await expect(pending).rejects.toMatchObject({ errorName: "aborted" });
      await Promise.all([closing, index.close()]);
      await expect(index.search(row(vectors, dim, 0), { k: 1, ef: 1 })).rejects.toMatchObject({
        errorName: "aborted",
      });
    });

    it("refuses shapes and limits that make no sense", async () => {
      const { index, vectors } = await filled(3);
      for (const options of [
        { k: 0, ef: 10 },
        { k: 1, ef: 0 },
        { k: 1.5, ef: 10 },
        { k: Number.NaN, ef: 10 },
      ])
        await expect(index.search(row(vectors, dim, 0), options)).rejects.toMatchObject({
          errorName: "bad_input",
        });
      await expect(index.search(unitVectors(17, dim, 1), { k: 1_000_000, ef: 10 })).rejects.toMatchObject({
        errorName: "bad_input",
      });
      for (const over of [
        { dim: 0 },
        { capacity: -1 },
        { capacity: 1.5 },
        { params: { m: 1, efConstruction: 10 } },
      ])
        await expect(adapter.create({ dim, capacity: 1, params, ...over })).rejects.toMatchObject({
          errorName: "bad_input",
        });
      await index.change({ add: new Float32Array(), remove: new Uint32Array() });
      expect(index.slots).toBe(3);
    });

    it("recall@10 at the defaults on clustered vectors is at least 0.98", async () => {
      const n = 4000;
      const size = 64;
      const vectors = unitVectors(n, size, 11, 200);
      const queries = unitVectors(n + 100, size, 11, 200).subarray(n * size);
      const index = await adapter.create({ dim: size, capacity: n, params: { m: 16, efConstruction: 200 } });
      opened.push(index);
      await index.add(vectors);
      const found = await index.search(queries, { k: 10, ef: 128 });
      let hits = 0;
      for (let q = 0; q < 100; q++) {
        const query = row(queries, size, q);
        const scores = Array.from({ length: n }, (_, i) =>
          dotOf(query, vectors.subarray(i * size, (i + 1) * size)),
        );
        const tenth = scores.toSorted((a, b) => b - a)[9] ?? 0;
        for (let i = 0; i < 10; i++)
          if ((scores[found.positions[q * 10 + i] ?? 0] ?? 0) >= tenth - 1e-6) hits++;
      }
      expect(hits / 1000).toBeGreaterThanOrEqual(0.98);
    });
  });
}
