import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { EngineName } from "@lim/contracts";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { availableEngines, loadEngine } from "../src/engines.ts";
import { createExactIndex } from "../src/exact.ts";
import { createKeyedIndex, openKeyedIndex } from "../src/keyed-index.ts";
import type { AppliedCounts, KeyedChange, KeyedIndex } from "../src/keyed-port.ts";
import type { VectorIndex } from "../src/port.ts";
import { dotOf, faceId, faceIds, random, row, unitVectors } from "./fixtures.ts";

const dim = 8;
const params = { m: 16, efConstruction: 200 };
const folder = mkdtempSync(join(tmpdir(), "lim-keyed-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const engines = await availableEngines();

async function create(engine: EngineName): Promise<KeyedIndex> {
  const adapter = await loadEngine(engine);
  return createKeyedIndex(await adapter.create({ dim, capacity: 4, params }));
}

async function reopen(keyed: KeyedIndex, at: string): Promise<KeyedIndex> {
  const adapter = await loadEngine(keyed.index.engine.name);
  const files = { index: join(folder, at), vectors: join(folder, `${at}.vectors`) };
  const saved = await keyed.index.save(files);
  const ids = keyed.exportIds();
  const removed: number[] = [];
  for (let p = 0; p < ids.length / 16; p++)
    if (ids.subarray(p * 16, p * 16 + 16).every((byte) => byte === 0)) removed.push(p);
  const index = await adapter.load({
    files: saved.vectors ? files : { index: files.index },
    dim,
    slots: ids.length / 16,
    removed: Uint32Array.from(removed),
    params,
  });
  return createKeyedIndex(index, ids);
}

/** The same change as steps of a face or two; what they count, all together. */
async function inSteps(keyed: KeyedIndex, { upserts, removals }: KeyedChange): Promise<AppliedCounts> {
  const steps: KeyedChange[] = [];
  for (let at = 0; at < Math.max(upserts.length, removals.length); at += 2)
    steps.push({ upserts: upserts.slice(at, at + 2), removals: removals.slice(at, at + 2) });
  const told: number[] = [];
  const sum = { added: 0, replaced: 0, removed: 0, unchanged: 0 };
  await keyed.applyInSteps(steps, {
    onApplied: (step, counts) => {
      told.push(step);
      for (const name of ["added", "replaced", "removed", "unchanged"] as const) sum[name] += counts[name];
    },
  });
  expect(told).toEqual(steps.map((_, step) => step));
  return sum;
}

describe.each(engines)("keyed index over %s", (engine) => {
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
        let keyed = await create(engine);
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
              const change = { upserts: faces, removals: removals.map(faceId) };
              const counts =
                (one.vectors[0] ?? 0) % 2 === 0 ? await keyed.apply(change) : await inSteps(keyed, change);
              expect(counts).toEqual(expected);
              exact.upsert(faces);
              exact.remove(removals.map(faceId));
            } else if (one.kind === "reopen") {
              const next = await reopen(keyed, `${run++}.dat`);
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
    const keyed = await create(engine);
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
    const keyed = await create(engine);
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
    const step = { upserts: [{ faceId: faceId(7), vector }], removals: [] };
    const inTwo = keyed.applyInSteps([step, { ...step }], { onApplied: () => {} });
    await expect(inTwo).rejects.toMatchObject(bad);
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
    const keyed = await create(engine);
    const abort = new AbortController();
    const adding = keyed.addNew(faceIds(100, 4000), unitVectors(4000, dim, 33), { signal: abort.signal });
    const refused = expect(adding).rejects.toMatchObject({ errorName: "aborted" });
    // In the middle: the engine holds the first slice by then.
    while (keyed.index.slots === 0) await setImmediate();
    abort.abort();
    await refused;
    expect([keyed.count, keyed.has(faceId(100))]).toEqual([0, false]);
    await keyed.addNew(faceIds(0, 3), pool.subarray(0, 3 * dim));
    const opened = await reopen(keyed, "aborted.dat");
    expect(opened.count).toBe(keyed.count);
    const [found] = await opened.search(row(pool, dim, 1), { limit: 1, ef: 400 });
    expect(found?.[0]?.[1]).toBeCloseTo(1, 5);
    await Promise.all([keyed.close(), opened.close()]);
  });

  it("I5: an answer names the faces that were there when it was asked for, whatever changed meanwhile", async () => {
    const keyed = await create(engine);
    await keyed.addNew(faceIds(0, 64), pool);
    const held = Promise.withResolvers<void>();
    const { index } = keyed;
    let entered = 0;
    // Answers of the engine that have arrived, but not yet been translated.
    const slow: VectorIndex = Object.create(index, {
      search: {
        value: async (...args: Parameters<VectorIndex["search"]>) => {
          const found = await index.search(...args);
          entered++;
          await held.promise;
          return found;
        },
      },
    });
    Object.defineProperty(keyed, "index", { value: slow });
    const queries = pool.slice(0, 8 * dim);
    const asked = keyed.search(queries, { limit: 1, ef: 400 });
    while (entered < 1) await setImmediate();
    const { slots } = index;
    for (let round = 0; round < 12; round++) {
      const first = 100 + round * 8;
      await keyed.apply({
        upserts: Array.from({ length: 8 }, (_, i) => ({
          faceId: faceId(first + i),
          vector: row(pool, dim, (i + round) % 64),
        })),
        removals: Array.from({ length: 8 }, (_, i) => faceId(round === 0 ? i : first - 8 + i)),
      });
    }
    // Nothing of what was removed was used again: the answer that is under way may name it.
    expect(keyed.index.slots).toBe(slots + 12 * 8);
    held.resolve();
    expect((await asked).map(([best]) => best?.[0])).toEqual(Array.from({ length: 8 }, (_, i) => faceId(i)));
    const [found] = await keyed.search(row(pool, dim, 11), { limit: 2, ef: 400 });
    expect(new Set(found?.map(([id]) => id))).toEqual(new Set([faceId(11), faceId(100 + 11 * 8)]));
    const before = keyed.index.slots;
    await keyed.apply({ upserts: [{ faceId: faceId(5000), vector: row(pool, dim, 2) }], removals: [] });
    expect(keyed.index.slots).toBe(index.reusesPositions ? before : before + 1);
    await keyed.close();
  });

  it("I5: beside changes every answer tells faces with the similarity of a vector that they had in its time", async () => {
    const keyed = await create(engine);
    const next = random(77);
    const vectors = unitVectors(4000, dim, 78);
    /** Vectors of each face, with the times from and to which searches might see them. */
    const lives = new Map<string, { vector: Float32Array; from: number; to: number }[]>();
    let now = 0;
    let used = 0;
    let searched = 0;
    let writing = true;
    const writer = async () => {
      for (let round = 0; round < 120; round++) {
        const faces = new Set(Array.from({ length: 10 }, () => faceId(Math.floor(next() * 60))));
        const upserts: { faceId: string; vector: Float32Array }[] = [];
        const removals: string[] = [];
        for (const id of faces) {
          if (next() < 0.5) removals.push(id);
          else upserts.push({ faceId: id, vector: row(vectors, dim, used++) });
        }
        const began = now++;
        for (const { faceId: id, vector } of upserts)
          lives.set(id, [...(lives.get(id) ?? []), { vector, from: began, to: Number.POSITIVE_INFINITY }]);
        await keyed.apply({ upserts, removals });
        const ended = now++;
        for (const id of faces) {
          const kept = upserts.some((one) => one.faceId === id) ? 1 : 0;
          for (const life of (lives.get(id) ?? []).slice(0, -kept || undefined))
            life.to = Math.min(life.to, ended);
        }
      }
    };
    const searcher = async () => {
      while (writing) {
        const query = row(vectors, dim, Math.floor(next() * 4000));
        const asked = now++;
        const [matches = []] = await keyed.search(query, { limit: 60, ef: 200 });
        const answered = now++;
        searched++;
        await setImmediate();
        for (const [id, similarity] of matches) {
          const fits = (lives.get(id) ?? []).some(
            ({ vector, from, to }) =>
              from <= answered &&
              asked <= to &&
              Math.abs(Math.max(0, dotOf(query, vector)) - similarity) < 1e-4,
          );
          if (!fits)
            throw new Error(`${id} had no vector of similarity ${similarity} from ${asked} to ${answered}`);
        }
      }
    };
    const writes = writer().finally(() => {
      writing = false;
    });
    await Promise.all([writes, ...Array.from({ length: 6 }, searcher)]);
    expect(searched).toBeGreaterThan(100);
    if (keyed.index.reusesPositions) expect(keyed.index.slots).toBeLessThan(200);
    await keyed.close();
  });

  it("keeps a face's position when its vector is replaced, and uses freed ones again, where the engine can", async () => {
    const keyed = await create(engine);
    await keyed.addNew(faceIds(0, 40), pool.subarray(0, 40 * dim));
    for (let round = 0; round < 30; round++) {
      const replaced = { faceId: faceId(round % 40), vector: row(pool, dim, (round + 41) % 64) };
      const added = { faceId: faceId(1000 + round), vector: row(pool, dim, (round + 7) % 64) };
      const removals = round === 0 ? [] : [faceId(1000 + round - 1)];
      await keyed.apply({ upserts: [replaced, added], removals });
      const [found] = await keyed.search(added.vector, { limit: 3, ef: 400 });
      expect(found?.map(([id]) => id)).toContain(added.faceId);
    }
    expect(keyed.count).toBe(41);
    // One more than the faces: what a change removes is free for the next one only.
    expect(keyed.index.slots).toBe(keyed.index.reusesPositions ? 42 : 40 + 2 * 30);
    const opened = await reopen(keyed, "reused.dat");
    await opened.apply({ upserts: [{ faceId: faceId(7), vector: row(pool, dim, 63) }], removals: [] });
    expect([opened.count, opened.index.slots]).toEqual([
      41,
      keyed.index.slots + (keyed.index.reusesPositions ? 0 : 1),
    ]);
    await Promise.all([keyed.close(), opened.close()]);
  });

  it("I10: past the limit of waiting changes one is refused; those that wait are carried out", async () => {
    const keyed = await create(engine);
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
    const keyed = await create(engine);
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
    const keyed = await create(engine);
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
