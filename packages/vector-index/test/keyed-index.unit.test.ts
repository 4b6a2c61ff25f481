import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { loadEngine } from "../src/engines.ts";
import { createExactIndex } from "../src/exact.ts";
import { createKeyedIndex, type KeyedIndex, openKeyedIndex } from "../src/keyed-index.ts";
import type { VectorIndex } from "../src/port.ts";
import { faceId, faceIds, row, unitVectors } from "./fixtures.ts";

const dim = 8;
const params = { m: 16, efConstruction: 200 };
const folder = mkdtempSync(join(tmpdir(), "lim-keyed-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function create(): Promise<KeyedIndex> {
  const adapter = await loadEngine("hnswlib");
  return createKeyedIndex(await adapter.create({ dim, capacity: 4, params }));
}

async function reopen(keyed: KeyedIndex, path: string): Promise<KeyedIndex> {
  const adapter = await loadEngine("hnswlib");
  await keyed.index.save(path);
  const ids = keyed.exportIds();
  const removed: number[] = [];
  for (let p = 0; p < ids.length / 16; p++)
    if (ids.subarray(p * 16, p * 16 + 16).every((byte) => byte === 0)) removed.push(p);
  const index = await adapter.load({
    path,
    dim,
    slots: ids.length / 16,
    removed: Uint32Array.from(removed),
    params,
  });
  return createKeyedIndex(index, ids);
}

describe("keyed index", () => {
  const pool = unitVectors(64, dim, 31);
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("apply" as const),
        faces: fc.uniqueArray(fc.nat(19), { maxLength: 6 }),
        vectors: fc.array(fc.nat(63), { minLength: 6, maxLength: 6 }),
        upserts: fc.nat(6),
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("search" as const), vector: fc.nat(63) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("reopen" as const) }) },
  );

  it("I5: any sequence of changes, saves and loads answers as the exact search does", async () => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 25 }), async (steps) => {
        let keyed = await create();
        const exact = createExactIndex({ dim });
        const held = new Map<number, number>();
        try {
          for (const one of steps) {
            if (one.kind === "apply") {
              const upserts = one.faces.slice(0, one.upserts);
              const removals = one.faces.slice(one.upserts);
              const faces = upserts.map((face, i) => ({
                faceId: faceId(face),
                vector: row(pool, dim, one.vectors[i] ?? 0),
              }));
              const expected = { added: 0, replaced: 0, removed: 0, unchanged: 0 };
              upserts.forEach((face, i) => {
                const now = held.get(face);
                if (now === undefined) expected.added++;
                else if (now === one.vectors[i]) expected.unchanged++;
                else expected.replaced++;
                held.set(face, one.vectors[i] ?? 0);
              });
              for (const face of removals) {
                if (held.delete(face)) expected.removed++;
                else expected.unchanged++;
              }
              expect(await keyed.apply({ upserts: faces, removals: removals.map(faceId) })).toEqual(expected);
              exact.upsert(faces);
              exact.remove(removals.map(faceId));
            } else if (one.kind === "reopen") {
              const next = await reopen(keyed, join(folder, `${run++}.dat`));
              await keyed.close();
              keyed = next;
            }
            const query = row(pool, dim, one.kind === "search" ? one.vector : 0);
            expect([keyed.count, exact.count]).toEqual([held.size, held.size]);
            const [found] = await keyed.search(query, { limit: 30, ef: 400 });
            const [truth] = await exact.search(query, { limit: 30 });
            expect(new Set(found?.map(([id]) => id))).toEqual(new Set(truth?.map(([id]) => id)));
            found?.forEach(([, similarity], i) => {
              expect(similarity).toBeCloseTo(truth?.[i]?.[1] ?? -1, 5);
            });
          }
        } finally {
          await Promise.all([keyed.close(), exact.close()]);
        }
      }),
      { numRuns: 15 },
    );
  }, 60_000);

  it("applies the threshold and the limit", async () => {
    const keyed = await create();
    await keyed.addNew(faceIds(0, 64), pool);
    const query = row(pool, dim, 9);
    const [all] = await keyed.search(query, { limit: 64, ef: 200 });
    const threshold = all?.[10]?.[1] ?? 0;
    const [some] = await keyed.search(query, { limit: 64, ef: 200, threshold });
    expect(some).toEqual(all?.slice(0, 11));
    expect((await keyed.search(query, { limit: 3, ef: 200, threshold }))[0]).toEqual(all?.slice(0, 3));
    await keyed.close();
  });

  it("I11: refuses faces named twice, present or zero, and changes nothing", async () => {
    const keyed = await create();
    await keyed.addNew(faceIds(0, 5), pool.subarray(0, 5 * dim));
    const vector = row(pool, dim, 9);
    const bad = { errorName: "bad_input" };
    await expect(keyed.addNew(faceIds(4, 2), pool.subarray(0, 2 * dim))).rejects.toMatchObject(bad);
    const twice = new Uint8Array([...faceIds(9, 1), ...faceIds(9, 1)]);
    await expect(keyed.addNew(twice, pool.subarray(0, 2 * dim))).rejects.toMatchObject(bad);
    await expect(keyed.addNew(new Uint8Array(16), vector)).rejects.toMatchObject(bad);
    const both = { upserts: [{ faceId: faceId(1), vector }], removals: [faceId(1).toUpperCase()] };
    await expect(keyed.apply(both)).rejects.toMatchObject(bad);
    await expect(
      keyed.apply({
        upserts: [{ faceId: faceId(7), vector: vector.map((x) => x * 2) }],
        removals: [faceId(0)],
      }),
    ).rejects.toMatchObject(bad);
    await expect(keyed.apply({ upserts: [], removals: ["no-id"] })).rejects.toMatchObject(bad);
    expect([keyed.count, keyed.has(faceId(0)), keyed.has(faceId(5)), keyed.has(faceId(7))]).toEqual([
      5,
      true,
      false,
      false,
    ]);
    expect(await keyed.apply({ upserts: [{ faceId: faceId(7), vector }], removals: [] })).toMatchObject({
      added: 1,
    });
    await keyed.close();
  });

  it("an aborted build leaves positions that belong to nobody, also after a load", async () => {
    const keyed = await create();
    const abort = new AbortController();
    const adding = keyed.addNew(faceIds(100, 4000), unitVectors(4000, dim, 33), { signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    const outcome = await adding.then(
      () => "done",
      (error: { errorName: string }) => error.errorName,
    );
    if (outcome === "aborted") expect([keyed.count, keyed.has(faceId(100))]).toEqual([0, false]);
    await keyed.addNew(faceIds(0, 3), pool.subarray(0, 3 * dim));
    const opened = await reopen(keyed, join(folder, "aborted.dat"));
    expect(opened.count).toBe(keyed.count);
    const [found] = await opened.search(row(pool, dim, 1), { limit: 1, ef: 400 });
    expect(found?.[0]?.[1]).toBeCloseTo(1, 5);
    await Promise.all([keyed.close(), opened.close()]);
  });

  it("I10: past the limit of waiting changes one is refused; those that wait are carried out", async () => {
    const keyed = await create();
    const changes = Array.from({ length: 4_200 }, (_, i) =>
      keyed.apply({ upserts: [], removals: [faceId(i)] }).catch((error: { errorName: string }) => error),
    );
    const results = await Promise.all(changes);
    expect(results.filter((result) => "unchanged" in result)).toHaveLength(4_096);
    expect(results.slice(4_096).every((result) => "errorName" in result)).toBe(true);
    expect(await keyed.apply({ upserts: [], removals: [faceId(1)] })).toMatchObject({ unchanged: 1 });
    await keyed.close();
  });

  it("I7: many ids are entered with the event loop turning in between, and an abort is heard", async () => {
    const keyed = await create();
    const n = 200_000;
    const ids = faceIds(1, n);
    ids.fill(0, 16 * 5, 16 * 6);
    // The engine's side of an index that large is not needed to enter its ids.
    const large: VectorIndex = Object.create(keyed.index, { slots: { value: n }, count: { value: n - 1 } });
    let turns = 0;
    const beat = setInterval(() => turns++, 0);
    const opened = await openKeyedIndex(large, ids);
    clearInterval(beat);
    expect(turns).toBeGreaterThanOrEqual(3);
    expect([opened.count, opened.has(faceId(5)), opened.has(faceId(6)), opened.has(faceId(n))]).toEqual([
      n - 1,
      true,
      false,
      true,
    ]);
    expect(Buffer.compare(opened.exportIds(), ids)).toBe(0);
    const abort = new AbortController();
    const opening = openKeyedIndex(large, ids, { signal: abort.signal });
    abort.abort();
    await expect(opening).rejects.toMatchObject({ errorName: "aborted" });
    ids.copyWithin(16 * (n - 1), 0, 16);
    await expect(openKeyedIndex(large, ids)).rejects.toMatchObject({ errorName: "index_refused" });
    await keyed.close();
  });

  it("I2: refuses ids of a wrong length, twice the same face, or another count than the engine's", async () => {
    const keyed = await create();
    await keyed.addNew(faceIds(0, 5), pool.subarray(0, 5 * dim));
    const ids = keyed.exportIds();
    const refused = expect.objectContaining({ errorName: "index_refused" });
    expect(() => createKeyedIndex(keyed.index, ids.subarray(16))).toThrow(refused);
    const twice = ids.slice();
    twice.set(ids.subarray(0, 16), 16);
    expect(() => createKeyedIndex(keyed.index, twice)).toThrow(refused);
    expect(() => createKeyedIndex(keyed.index, ids.slice().fill(0, 0, 16))).toThrow(refused);
    await keyed.close();
  });
});
