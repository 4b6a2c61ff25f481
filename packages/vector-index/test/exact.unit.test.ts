import { afterEach, describe, expect, it } from "vitest";
import { scanPool } from "../src/exact/pool.ts";
import { createExactIndex, type ExactIndex } from "../src/exact.ts";
import { dotOf, faceId, faceIds, row, unitVectors } from "./fixtures.ts";

const opened: ExactIndex[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((index) => index.close()));
});
function create(dim: number, capacity?: number): ExactIndex {
  const index = createExactIndex(capacity === undefined ? { dim } : { dim, capacity });
  opened.push(index);
  return index;
}

describe("exact search", () => {
  it("equals a plain scan, over several chunks and dimensions that no unrolling divides", async () => {
    for (const dim of [8, 13, 511]) {
      const n = 2500;
      const index = create(dim);
      const vectors = unitVectors(n, dim, dim);
      index.upsertMany(faceIds(0, n), vectors);
      const queries = unitVectors(20, dim, dim + 1);
      const found = await index.search(queries, { limit: 7 });
      found.forEach((matches, q) => {
        const query = row(queries, dim, q);
        const truth = Array.from({ length: n }, (_, i): [string, number] => [
          faceId(i),
          Math.max(0, dotOf(query, vectors.subarray(i * dim, (i + 1) * dim))),
        ])
          .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
          .slice(0, 7);
        expect(matches.map(([id]) => id)).toEqual(truth.map(([id]) => id));
        matches.forEach(([, s], i) => {
          expect(s).toBeCloseTo(truth[i]?.[1] ?? -1, 6);
        });
      });
    }
  });

  it("orders ties by face id, also where the limit cuts through them", async () => {
    const dim = 16;
    const index = create(dim);
    const vector = unitVectors(1, dim, 1);
    const order = [5, 3, 9, 1, 7, 2].map(faceId);
    for (const id of order) index.upsert([{ faceId: id, vector }]);
    const [found] = await index.search(vector, { limit: 4 });
    expect(found?.map(([id]) => id)).toEqual(order.toSorted().slice(0, 4));
  });

  it("a search sees every change made before the call and none made after it", async () => {
    const dim = 32;
    const index = create(dim);
    const n = 3000;
    index.upsertMany(faceIds(0, n), unitVectors(n, dim, 2));
    const marks = unitVectors(40, dim, 3);
    const pending: { round: number; found: Promise<[string, number][][]> }[] = [];
    for (let round = 0; round < 40; round++) {
      const vector = row(marks, dim, round);
      // One face moves from mark to mark; a search of the mark before must find it there or not at all.
      index.upsert([{ faceId: faceId(999_999), vector }]);
      if (round % 3 === 0) index.remove([faceId(round)]);
      for (let i = 0; i < 4; i++) pending.push({ round, found: index.search(vector, { limit: 1 }) });
      if (round % 8 === 0) await pending.at(-1)?.found;
    }
    for (const { found } of pending)
      expect((await found)[0]?.[0]).toEqual([faceId(999_999), expect.closeTo(1, 5)]);
    expect(index.count).toBe(n + 1 - 14);
  });

  it("I5: removed faces are in no later answer; a replaced face answers by its new vector only", async () => {
    const dim = 16;
    const index = create(dim);
    const vectors = unitVectors(100, dim, 4);
    index.upsertMany(faceIds(0, 100), vectors);
    index.remove([faceId(3), faceId(3), faceId(5000)]);
    index.upsert([{ faceId: faceId(4), vector: row(vectors, dim, 3) }]);
    const [found] = await index.search(row(vectors, dim, 3), { limit: 200 });
    expect(found).toHaveLength(99);
    expect(found?.[0]?.[0]).toBe(faceId(4));
    expect(found?.some(([id]) => id === faceId(3))).toBe(false);
  });

  it("I10: replacing for ever reuses the rows of what was replaced", async () => {
    const dim = 16;
    const index = create(dim);
    const vectors = unitVectors(500, dim, 5);
    for (let round = 0; round < 200; round++) {
      index.upsertMany(faceIds(0, 500), vectors);
      await index.search(row(vectors, dim, 0), { limit: 1 });
    }
    const memory = index.memoryBytes;
    for (let round = 0; round < 200; round++) index.upsertMany(faceIds(0, 500), vectors);
    expect(index.memoryBytes).toBe(memory);
    expect(index.count).toBe(500);
  });

  it("serves 32 callers at once on 5,000 × 512 with the event loop free", async () => {
    const dim = 512;
    const n = 5000;
    const index = create(dim, n);
    const vectors = unitVectors(n, dim, 6);
    index.upsertMany(faceIds(0, n), vectors);
    await index.search(row(vectors, dim, 0), { limit: 10 });
    let turns = 0;
    let searching = true;
    const turn = () => {
      turns++;
      if (searching) setImmediate(turn);
    };
    setImmediate(turn);
    const answers = await Promise.all(
      Array.from({ length: 32 }, (_, i) => index.search(row(vectors, dim, i), { limit: 10 })),
    );
    searching = false;
    expect(answers.every((answer, i) => answer[0]?.[0]?.[0] === faceId(i))).toBe(true);
    // Between two steps of the search; of one in a single step it would be one or two.
    expect(turns).toBeGreaterThan(10);
  });

  it("applies the threshold; answers nothing from nothing", async () => {
    const dim = 16;
    const index = create(dim);
    const vectors = unitVectors(50, dim, 7);
    expect(await index.search(row(vectors, dim, 0), { limit: 5 })).toEqual([[]]);
    index.upsertMany(faceIds(0, 50), vectors);
    const [found] = await index.search(row(vectors, dim, 0), { limit: 50, threshold: 0.999 });
    expect(found?.map(([id]) => id)).toEqual([faceId(0)]);
  });

  it("I11: refuses bad vectors, ids and limits, and changes nothing", async () => {
    const dim = 16;
    const index = create(dim);
    const bad = expect.objectContaining({ errorName: "bad_input" });
    const vectors = unitVectors(2, dim, 8);
    const broken = vectors.slice();
    broken[dim] = Number.NaN;
    expect(() => index.upsertMany(faceIds(0, 2), broken)).toThrow(bad);
    expect(() => index.upsertMany(faceIds(0, 3), vectors)).toThrow(bad);
    expect(() => index.upsert([{ faceId: "x", vector: row(vectors, dim, 0) }])).toThrow(bad);
    expect(() => index.remove(["x"])).toThrow(bad);
    expect(index.count).toBe(0);
    await expect(index.search(broken, { limit: 1 })).rejects.toEqual(bad);
    await expect(index.search(vectors, { limit: 0 })).rejects.toEqual(bad);
  });

  it("an abort and a close end what waits", async () => {
    const dim = 64;
    const index = create(dim);
    const vectors = unitVectors(3000, dim, 9);
    index.upsertMany(faceIds(0, 3000), vectors);
    const abort = new AbortController();
    const aborted = index.search(vectors.subarray(0, dim * 500), { limit: 1, signal: abort.signal });
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ errorName: "aborted" });
    expect((await index.search(row(vectors, dim, 1), { limit: 1 }))[0]?.[0]?.[0]).toBe(faceId(1));
    const closed = expect(index.search(vectors.subarray(0, dim * 500), { limit: 1 })).rejects.toMatchObject({
      errorName: "aborted",
    });
    await index.close();
    await closed;
    await expect(index.search(row(vectors, dim, 1), { limit: 1 })).rejects.toMatchObject({
      errorName: "aborted",
    });
  });

  it("I10: past the limit of waiting queries a search is refused, and the others are answered", async () => {
    const dim = 8;
    const index = create(dim);
    const vectors = unitVectors(1000, dim, 10);
    index.upsertMany(faceIds(0, 1000), vectors);
    const calls = Array.from({ length: 20 }, () => index.search(vectors, { limit: 1 }));
    const results = await Promise.allSettled(calls);
    const refused = results.filter((result) => result.status === "rejected");
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThan(20);
    expect(refused.every((result) => result.reason.errorName === "overloaded")).toBe(true);
  });

  it("a scanning thread that dies fails its queries only; the next search gets a new thread", async () => {
    const dim = 64;
    const index = create(dim);
    const vectors = unitVectors(2000, dim, 11);
    index.upsertMany(faceIds(0, 2000), vectors);
    await index.search(row(vectors, dim, 0), { limit: 1 });
    const searching = Array.from({ length: 8 }, () => index.search(row(vectors, dim, 0), { limit: 1 }));
    const [results] = await Promise.all([Promise.allSettled(searching), scanPool.terminateThreads()]);
    for (const result of results)
      if (result.status === "rejected") expect(result.reason.errorName).toBe("engine_failed");
    expect((await index.search(row(vectors, dim, 5), { limit: 1 }))[0]?.[0]?.[0]).toBe(faceId(5));
  });
});
