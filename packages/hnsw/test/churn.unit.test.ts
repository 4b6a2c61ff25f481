// What an index is worth after its content was replaced many times, or was removed.
import { afterAll, describe, expect, test } from "vitest";
import { coreOf } from "../src/hnsw-index.ts";
import { HnswIndex, HnswPool } from "../src/index.ts";
import { controlAt } from "../src/layout.ts";
import { minDeadToSweep } from "../src/limits.ts";
import { prepared } from "./oracle.ts";
import { clustered, keysOf, randomFrom, range, recall } from "./support.ts";

const pool = new HnswPool({ threads: 2 });
afterAll(() => pool.close());

const dim = 96;
const count = 3000;
/** Few: neighbours are many and near to each other, so that a graph can be wrong. */
const clusters = 3;
const k = 10;
/** Little enough that a worse graph finds less. */
const ef = 32;

const create = (capacity = count) => HnswIndex.create({ dim, efConstruction: 100, pool, capacity });

async function recallOf(index: HnswIndex, queries: Float32Array): Promise<number> {
  const truth = await index.search(queries, { k, exact: "rows" });
  return recall(await index.search(queries, { k, ef, exact: false }), truth);
}

/** Rows of some keys one after another. */
function pick(rows: Float32Array, numbers: number[]): Float32Array {
  const picked = new Float32Array(numbers.length * dim);
  numbers.forEach((row, i) => {
    picked.set(rows.subarray(row * dim, (row + 1) * dim), i * dim);
  });
  return picked;
}

function shuffled(numbers: number[], random: () => number): number[] {
  for (let i = numbers.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [numbers[i], numbers[j]] = [numbers[j] as number, numbers[i] as number];
  }
  return numbers;
}

/** Insertions may push a slot out of all lists that led to it, until the next sweep: one in a thousand at most. */
async function expectSound(index: HnswIndex, live: number): Promise<void> {
  const report = await index.check();
  expect(report).toMatchObject({ live, badLinks: 0, problems: [] });
  expect(report.unreachable).toBeLessThanOrEqual(Math.ceil(live / 1000));
}

describe("churn", () => {
  test.each([1, 2, 3])("all vectors replaced by others twice, seed %i", async (seed) => {
    // Three contents' worth of vectors from the same clusters; a key is a row's number.
    const rows = clustered(3 * count, dim, seed, clusters);
    const queries = pick(
      clustered(3 * count + 200, dim, seed, clusters),
      Array.from({ length: 200 }, (_, i) => 3 * count + i),
    );
    const index = await create();
    await index.upsert(range(0, count), rows.subarray(0, count * dim));
    const before = await recallOf(index, queries);
    const random = randomFrom(seed);
    const going = shuffled([...range(0, count)], random);
    const batch = 100;
    const slots = { most: 0 };
    let bytesAfterFirst = 0;
    for (let next = count; next < 3 * count; next += batch) {
      const keys = [...range(next, next + batch)];
      const gone = going.splice(0, batch);
      // By turns: replaced under other keys at once, or removed and then added.
      if ((next / batch) % 2 === 0)
        await index.change({
          upsert: { keys: Uint32Array.from(keys), vectors: pick(rows, keys) },
          remove: Uint32Array.from(gone),
        });
      else {
        await index.remove(Uint32Array.from(gone));
        await index.upsert(Uint32Array.from(keys), pick(rows, keys));
      }
      going.push(...shuffled(keys, random));
      slots.most = Math.max(slots.most, index.slots);
      if (next === count + 10 * batch) bytesAfterFirst = index.memoryBytes;
    }
    expect(index.size).toBe(count);
    const after = await recallOf(index, queries);
    await expectSound(index, count);
    const fresh = await create();
    await fresh.upsert(Uint32Array.from(going), pick(rows, going));
    const rebuilt = await recallOf(fresh, queries);
    console.log(
      `churn, seed ${seed}: recall@10 at ef ${ef} at first ${before}, after 200 % ${after}, built anew ${rebuilt}; ` +
        `most slots ${slots.most}; bytes ${bytesAfterFirst} → ${index.memoryBytes}`,
    );
    expect(rebuilt).toBeGreaterThan(0.9);
    expect(after).toBeGreaterThan(rebuilt - 0.01);
    expect(slots.most).toBeLessThan(count + 2 * batch + 2 * Math.max(minDeadToSweep, count / 64));
    expect(index.memoryBytes).toBeLessThan(bytesAfterFirst * 1.02);
    await index.close();
    await fresh.close();
  });

  test("the same keys replaced again and again", async () => {
    const n = 1500;
    const rows = clustered(5 * n, dim, 9, clusters);
    const queries = rows.slice(0, 100 * dim);
    const last = rows.slice(4 * n * dim);
    const index = await create();
    for (let round = 0; round < 5; round++)
      await index.upsert(range(0, n), rows.slice(round * n * dim, (round + 1) * n * dim));
    expect(index.size).toBe(n);
    await index.sweep();
    expect(index.slots).toBe(n);
    // Clusters this far apart may part on level 0, where whole slices are replaced at once; the levels above join them.
    expect(await index.check()).toMatchObject({ live: n, badLinks: 0, deadLinks: 0, problems: [] });
    expect(index.get(range(0, 1))).toEqual(prepared("cosine", last.slice(0, dim)));
    const fresh = await create();
    await fresh.upsert(range(0, n), last);
    const [after, rebuilt] = [await recallOf(index, queries), await recallOf(fresh, queries)];
    console.log(`all keys replaced four times: recall@10 at ef 128 ${after}, built anew ${rebuilt}`);
    expect(after).toBeGreaterThan(rebuilt - 0.02);
    await index.close();
    await fresh.close();
  });
});

describe("removal of much", () => {
  test("80 % at once, then searches, then as many again", async () => {
    const rows = clustered(2 * count, dim, 11, clusters);
    const queries = clustered(100, dim, 11, clusters);
    const index = await create();
    await index.upsert(range(0, count), rows.subarray(0, count * dim));
    const gone = shuffled([...range(0, count)], randomFrom(4)).slice(0, 0.8 * count);
    const left = new Set(range(0, count));
    for (const key of gone) left.delete(key);
    await index.remove(Uint32Array.from(gone));
    // Not waiting for the sweep: most of what a walk meets is removed.
    const at = await index.search(queries, { k, ef, exact: false });
    const truth = await index.search(queries, { k, exact: "rows" });
    for (let i = 0; i < 100; i++) {
      expect(at.counts[i]).toBe(k);
      for (const key of keysOf(at, i)) expect(left.has(key)).toBe(true);
    }
    const right = recall(at, truth);
    await index.sweep();
    expect(index.slots).toBe(left.size);
    const swept = await recallOf(index, queries);
    await expectSound(index, left.size);
    await index.upsert(
      range(count, count + gone.length),
      rows.slice(count * dim, (count + gone.length) * dim),
    );
    expect(index.slots).toBe(count);
    const refilled = await recallOf(index, queries);
    await expectSound(index, count);
    console.log(`80 % removed: recall@10 at ef 128 ${right}, swept ${swept}, filled again ${refilled}`);
    for (const value of [right, swept, refilled]) expect(value).toBeGreaterThan(0.9);
    await index.close();
  });

  test("everything, then added again, several times", async () => {
    const rows = clustered(800, dim, 12, clusters);
    const index = await create();
    for (let round = 0; round < 4; round++) {
      const keys = range(round * 800, (round + 1) * 800);
      await index.upsert(keys, rows);
      expect(await recallOf(index, rows.slice(0, 50 * dim))).toBeGreaterThan(0.97);
      await expectSound(index, 800);
      await index.remove(keys);
      expect(index.size).toBe(0);
      for (const exact of [true, false, "rows" as const]) {
        const none = await index.search(rows.slice(0, dim), { k, exact });
        expect([...none.counts, none.keys[0]]).toEqual([0, 0xffff_ffff]);
      }
      // By turns: the sweep empties the graph, or the next vectors are linked among removed ones only.
      if (round % 2 === 0) await index.sweep();
    }
    expect(index.slots).toBeLessThan(1700);
    await index.close();
  });

  test("the entry point, again and again", async () => {
    const rows = clustered(1200, dim, 13, clusters);
    const index = await create();
    await index.upsert(range(0, 1200), rows);
    const core = coreOf(index);
    const entry = () => new Uint32Array(core.memory.memory.buffer, controlAt + 256, 2)[0] as number;
    for (let round = 0; round < 60; round++) {
      const key = core.slots.keyOf(entry() - 1);
      // Removed already and not swept yet, now and then.
      if (index.has(key)) await index.remove(Uint32Array.of(key));
      const at = await index.search(rows.slice(key * dim, (key + 1) * dim), { k, exact: false });
      expect(keysOf(at)).not.toContain(key);
      expect(at.counts[0]).toBe(k);
      if (round % 3 !== 0) await index.sweep();
      if (round % 3 === 2 && !index.has(key))
        await index.upsert(Uint32Array.of(key), rows.slice(key * dim, (key + 1) * dim));
    }
    await index.sweep();
    await expectSound(index, index.size);
    expect(await recallOf(index, rows.slice(0, 100 * dim))).toBeGreaterThan(0.97);
    await index.close();
  });
});
