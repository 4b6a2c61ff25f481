import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import type { EngineAdapter, VectorIndex } from "../src/port.ts";
import { dotOf, nothing, placed, range, row, unitVectors } from "./fixtures.ts";

const dim = 32;
const params = { m: 8, efConstruction: 80 };

/** What the engines' documents say differently. */
export interface EngineTraits {
  /** As `VectorIndex.reusesPositions`. */
  reusesPositions: boolean;
  savesVectors: boolean;
  /** Has `VectorIndex.inspect`. */
  inspects: boolean;
  /** It is optional, and not installed: nothing to test. */
  isMissing: boolean;
}

/** What every engine's adapter must hold to. */
export function describeEngineContract(
  name: string,
  loadAdapter: () => Promise<EngineAdapter>,
  traits: EngineTraits,
): void {
  describe.skipIf(traits.isMissing)(`engine contract: ${name}`, () => {
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
      await append(index, vectors);
      return { index, vectors };
    };
    const append = async (index: VectorIndex, vectors: Float32Array) => {
      const first = index.slots;
      await index.add(range(first, Math.ceil(vectors.length / dim)), vectors);
      return first;
    };
    const filesAt = (at: string) => ({ index: join(folder, at), vectors: join(folder, `${at}.vectors`) });
    const load = async (at: string, slots: number, removed: number[] = [], over: object = {}) => {
      const { index: path, vectors } = filesAt(at);
      const index = await adapter.load({
        files: { index: path, ...(traits.savesVectors ? { vectors } : {}) },
        dim,
        slots,
        removed: Uint32Array.from(removed),
        params,
        ...over,
      });
      opened.push(index);
      return index;
    };

    it("tells how much of its graph can be reached, where it tells anything", async () => {
      const { index } = await filled(300);
      await index.remove(Uint32Array.of(5));
      if (index.inspect === undefined) return expect(traits.inspects).toBe(false);
      expect(traits.inspects).toBe(true);
      const { links, ...found } = await index.inspect();
      expect(found).toEqual({ reachable: 299, unreachable: 0, badLinks: 0, problems: [] });
      expect(links).toBeGreaterThan(300);
      await expect(index.inspect({ signal: AbortSignal.abort() })).rejects.toMatchObject({
        errorName: "aborted",
      });
      await index.close();
      await expect(index.inspect()).rejects.toMatchObject({ errorName: "aborted" });
    });
    it("grows past its capacity and finds each vector", async () => {
      const index = await create(10);
      const vectors = unitVectors(300, dim, 2);
      await index.add(range(0, 5), vectors.subarray(0, 5 * dim));
      await index.add(range(5, 295), vectors.subarray(5 * dim));
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
        await expect(append(index, batch)).rejects.toMatchObject({ errorName: "bad_input" });
        await expect(index.search(batch, { k: 1, ef: 10 })).rejects.toMatchObject({ errorName: "bad_input" });
      }
      await expect(append(index, new Float32Array(dim))).rejects.toMatchObject({ errorName: "bad_input" });
      await expect(append(index, new Float32Array(dim + 1))).rejects.toMatchObject({
        errorName: "bad_input",
      });
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
      const add = placed(20, row(vectors, dim, 1), dim);
      const both = index.reusesPositions ? [Uint32Array.of(4), Uint32Array.of(20)] : [Uint32Array.of(4)];
      for (const remove of both)
        await expect(index.change({ add, remove })).rejects.toMatchObject({ errorName: "bad_input" });
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
      await append(index, vectors);
      expect(Array.from((await index.search(query, { k: 5, ef: 1 })).counts)).toEqual([3]);
      await index.remove(Uint32Array.of(0, 1, 2));
      expect(Array.from((await index.search(query, { k: 5, ef: 10 })).counts)).toEqual([0]);
      await append(index, query);
      expect((await index.search(query, { k: 5, ef: 10 })).positions[0]).toBe(3);
    });

    it.each([1, 9])("one change of %i rows is one step: no search sees a part of it", async (rows) => {
      const { index, vectors } = await filled(40);
      const moved = vectors.slice(7 * dim, (7 + rows) * dim);
      const query = row(vectors, dim, 7);
      let held = range(7, rows);
      for (let round = 0; round < 20; round++) {
        const next = range(40 + round * rows, rows);
        const look = () => index.search(query, { k: 40 + (round + 1) * rows, ef: 400 });
        const before = look();
        const changed = index.change({ add: { positions: next, vectors: moved }, remove: held });
        const beside = Array.from({ length: 5 }, look);
        const during = (async () => {
          for (let i = 0; i < 5; i++) beside.push(Promise.resolve(await look()));
        })();
        await changed;
        const after = look();
        expect((await after).positions[0]).toBe(next[0]);
        await during;
        for (const found of await Promise.all([before, after, ...beside])) {
          const positions = new Set(found.positions.subarray(0, found.counts[0]));
          expect(positions.size).toBe(40);
          const [olds, news] = [held, next].map((all) => all.filter((one) => positions.has(one)).length);
          expect([olds, news]).toEqual((olds ?? 0) > 0 ? [rows, 0] : [0, rows]);
        }
        held = next;
      }
    });

    it("answers searches between the slices of a long addition, which an abort ends without a trace", async () => {
      const { index, vectors } = await filled(50);
      const abort = new AbortController();
      const adding = index.add(range(50, 3000), unitVectors(3000, dim, 9), { signal: abort.signal });
      const query = row(vectors, dim, 7);
      const found = await index.search(query, { k: 1, ef: 50 });
      expect(found.positions[0]).toBe(7);
      abort.abort();
      await expect(adding).rejects.toMatchObject({ errorName: "aborted" });
      expect(index.count).toBe(50);
      expect(index.slots).toBeLessThanOrEqual(3050);
      const all = await index.search(query, { k: 1000, ef: 1000 });
      expect(all.counts[0]).toBe(50);
      expect(await append(index, query)).toBe(index.slots - 1);
    });

    it("I11: refuses positions that do not fit the vectors, and nothing changes", async () => {
      const { index, vectors } = await filled(20);
      const bad = { errorName: "bad_input" };
      const one = row(vectors, dim, 1);
      const two = vectors.slice(0, 2 * dim);
      const attempts: [number[], Float32Array][] = [
        [[], one],
        [[20], two],
        [[20, 20], two],
        [[2 ** 32 - 1], one],
        // In a long addition too.
        [[...range(20, 199), 20], unitVectors(200, dim, 2)],
      ];
      // `add` is for positions that hold nothing; what must be new without `reusesPositions` must not be live with it.
      attempts.push([[19], one]);
      if (!index.reusesPositions) attempts.push([[21], one], [[21, 20], two]);
      for (const [positions, rows] of attempts) {
        const add = { positions: Uint32Array.from(positions), vectors: rows };
        await expect(index.add(add.positions, add.vectors)).rejects.toMatchObject(bad);
        if (positions[0] === 19 && index.reusesPositions) continue;
        await expect(index.change({ add, remove: Uint32Array.of(3) })).rejects.toMatchObject(bad);
      }
      expect([index.slots, index.count, index.reusesPositions]).toEqual([20, 20, traits.reusesPositions]);
    });

    it("replaces live positions and takes removed ones again, each change in one step", async (test) => {
      if (!traits.reusesPositions) return test.skip("not with this engine");
      const { index } = await filled(60);
      const next = unitVectors(20, dim, 12);
      await index.remove(Uint32Array.of(8, 9));
      for (let i = 0; i < 20; i++) {
        const query = row(next, dim, i);
        // Live 0 to 7 and 10, free 8 and 9, far beyond the end.
        const position = i === 19 ? 500 : i % 11;
        const other = 30 + i;
        const changed = index.change({
          add: { positions: Uint32Array.of(position), vectors: query },
          remove: Uint32Array.of(other),
        });
        const beside = await index.search(query, { k: 100, ef: 200 });
        await changed;
        const after = await index.search(query, { k: 100, ef: 200 });
        expect([after.positions[0], after.counts[0]]).toEqual([position, index.count]);
        const seen = Array.from(beside.positions.subarray(0, beside.counts[0]));
        expect(new Set(seen).size).toBe(seen.length);
        const isNew = (beside.similarities[0] ?? 0) > 0.999;
        expect(seen.includes(other)).toBe(!isNew);
        expect(await index.read(Uint32Array.of(position))).toEqual(query);
      }
      expect([index.slots, index.count]).toEqual([501, 41]);
      await expect(index.read(Uint32Array.of(400))).rejects.toMatchObject({ errorName: "bad_input" });
    });

    it("an aborted call that waits is taken back", async () => {
      const { index, vectors } = await filled(10);
      await expect(index.add(range(10, 10), vectors, { signal: AbortSignal.abort() })).rejects.toMatchObject({
        errorName: "aborted",
      });
      expect(index.slots).toBe(10);
    });

    it("does not detach or keep the caller's arrays", async () => {
      const { index } = await filled(1);
      const vectors = unitVectors(200, dim, 4);
      const copy = vectors.slice();
      const positions = range(1, 200);
      const adding = index.add(positions, vectors);
      positions.fill(7);
      vectors.fill(9);
      await adding;
      positions.set(range(1, 200));
      expect(await index.read(positions)).toEqual(copy);
      const queries = copy.slice();
      const searching = index.search(queries, { k: 1, ef: 100 });
      queries.fill(9);
      expect(Array.from((await searching).positions)).toEqual(Array.from(positions));
      // Also while the call waits for its turn.
      vectors.set(copy);
      const before = index.add(range(201, 300), unitVectors(300, dim, 5));
      const waiting = index.add(range(501, 200), vectors);
      vectors.fill(9);
      await Promise.all([before, waiting]);
      expect(await index.read(range(501, 200))).toEqual(copy);
    });

    it("a full disk is disk_full, and the short file is taken away", async (test) => {
      const { index: full, vectors: beside } = filesAt("full.dat");
      if (!existsSync("/dev/full")) return test.skip("no /dev/full here");
      symlinkSync("/dev/full", full);
      const { index, vectors } = await filled(50);
      await expect(index.save({ index: full, vectors: beside })).rejects.toMatchObject({
        errorName: "disk_full",
      });
      expect(readdirSync(folder)).not.toContain("full.dat");
      expect((await index.search(row(vectors, dim, 7), { k: 1, ef: 10 })).positions[0]).toBe(7);
    });

    it("saves and loads content, removed positions and nothing of its reserve", async () => {
      const { index, vectors } = await filled(120);
      await index.remove(Uint32Array.of(3, 119));
      const files = filesAt("a.dat");
      expect(await index.save(files)).toEqual({ vectors: traits.savesVectors });
      expect(existsSync(files.vectors)).toBe(traits.savesVectors);
      const loaded = await load("a.dat", 120, [3, 119]);
      expect([loaded.slots, loaded.count]).toEqual([120, 118]);
      const [a, b] = await Promise.all([index, loaded].map((one) => one.search(vectors, { k: 10, ef: 64 })));
      expect(b).toEqual(a);
      expect(await append(loaded, row(vectors, dim, 3))).toBe(120);
      expect((await loaded.search(row(vectors, dim, 3), { k: 1, ef: 64 })).positions[0]).toBe(120);
    });

    it("one seed and one order of insertion give one file", async () => {
      const { readFileSync } = await import("node:fs");
      const files = [];
      for (const at of ["s1", "s2"]) {
        const index = await create(200);
        await index.add(range(0, 200), unitVectors(200, dim, 6), { threads: 1 });
        await index.save(filesAt(at));
        files.push(readFileSync(filesAt(at).index));
      }
      expect(files[0]?.equals(files[1] as Buffer)).toBe(true);
    });

    it("I2: refuses a file of other dimensions, slots, m or removed positions before the engine reads it", async () => {
      const { index } = await filled(64);
      await index.remove(Uint32Array.of(5));
      await index.save(filesAt("b.dat"));
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
        await expect(load("b.dat", slots, removed, over)).rejects.toMatchObject({
          errorName: "index_refused",
        });
      expect((await load("b.dat", 64, [5])).count).toBe(63);
    });

    it("a save into a missing folder is an error", async () => {
      const { index } = await filled(3);
      await expect(index.save(filesAt("nowhere/a.dat"))).rejects.toMatchObject({
        errorName: "engine_failed",
      });
    });

    it("close is idempotent, ends pending calls and refuses later ones", async () => {
      const { index, vectors } = await filled(20);
      const pending = index.add(range(20, 500), unitVectors(500, dim, 8));
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
      await index.change({ add: nothing(), remove: new Uint32Array() });
      expect(index.slots).toBe(3);
    });

    it("recall@10 at the defaults on clustered vectors is at least 0.98", async () => {
      const n = 4000;
      const size = 64;
      const vectors = unitVectors(n, size, 11, 200);
      const queries = unitVectors(n + 100, size, 11, 200).subarray(n * size);
      const index = await adapter.create({ dim: size, capacity: n, params: { m: 16, efConstruction: 200 } });
      opened.push(index);
      await index.add(range(0, n), vectors);
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
