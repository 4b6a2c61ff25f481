// Bitmaps of allowed keys: nothing else may come back, and few allowed ones must be found among many.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HnswIndex, HnswPool, type Metric, type SearchOptions } from "../src/index.ts";
import { exactFaultOf, faultOf, type Hit, hitsOf, nearest, normaliseFloat32, prepared } from "./oracle.ts";
import { clustered, randomFrom, range } from "./support.ts";

const seed = 4711;
const pool = new HnswPool({ threads: 2 });
afterAll(() => pool.close());

const dim = 64;
const count = 5000;
const k = 10;
const queryCount = 30;

function unitRows(all: Float32Array): Float32Array {
  for (let at = 0; at < all.length; at += dim) all.set(normaliseFloat32(all.slice(at, at + dim)), at);
  return all;
}

/** Some keys, as a bitmap as long as needed or as told. */
function bitmap(keys: Iterable<number>, bytes = Math.ceil(count / 8)): Uint8Array {
  const map = new Uint8Array(bytes);
  for (const key of keys) if (key >> 3 < bytes) map[key >> 3] = (map[key >> 3] ?? 0) | (1 << (key & 7));
  return map;
}

describe.each(["cosine", "ip", "l2"] as const)("%s", (metric: Metric) => {
  // Rows of norm 1 for the inner product, too: with uneven norms short vectors are nobody's neighbours, and a graph by
  // inner product does not lead to them.
  const vectors = unitRows(clustered(count + queryCount, dim, seed, 12));
  const rows = new Map<number, Float32Array>();
  const queries = vectors.slice(count * dim);
  let index: HnswIndex;

  beforeAll(async () => {
    index = await HnswIndex.create({ dim, metric, efConstruction: 100, pool });
    await index.upsert(range(0, count), vectors.slice(0, count * dim));
    for (let key = 0; key < count; key++)
      rows.set(key, prepared(metric, vectors.slice(key * dim, (key + 1) * dim)));
  });
  afterAll(() => index.close());

  async function recallWith(allowed: Set<number>, filter: Uint8Array, options: Partial<SearchOptions>) {
    const result = await index.search(queries, { k, filter, ...options });
    let found = 0;
    let wanted = 0;
    for (let i = 0; i < queryCount; i++) {
      const query = queries.subarray(i * dim, (i + 1) * dim);
      const hits = hitsOf(result, i);
      expect(
        faultOf(
          metric,
          hits,
          query,
          (key) => rows.get(key),
          (key) => allowed.has(key),
        ),
      ).toBeUndefined();
      const truth = nearest(metric, rows, query, k, (key) => allowed.has(key));
      expect(hits.length).toBe(truth.length);
      const worst = truth.at(-1);
      const good = ({ score }: Hit) =>
        worst !== undefined && (metric === "l2" ? score <= worst.score : score >= worst.score);
      found += hits.filter(good).length;
      wanted += truth.length;
    }
    return wanted === 0 ? 1 : found / wanted;
  }

  const shares = [1, 0.5, 0.1, 0.05, 0.01, 0.001, 0];
  test.each(shares)("a share of %f allowed, chosen at random", async (share) => {
    const random = randomFrom(seed + share * 1000);
    const allowed = new Set([...rows.keys()].filter(() => random() < share));
    const filter = bitmap(allowed);
    const graph = await recallWith(allowed, filter, { exact: false });
    const chosen = await recallWith(allowed, filter, {});
    const exact = await recallWith(allowed, filter, { exact: true });
    console.log(
      `filter ${metric}, ${allowed.size} of ${count}: graph ${graph}, default ${chosen}, scan ${exact}`,
    );
    expect(graph).toBeGreaterThanOrEqual(0.95);
    expect(chosen).toBeGreaterThanOrEqual(0.95);
    expect(exact).toBeGreaterThanOrEqual(0.99);
  });

  // The allowed ones lie where the walk does not come by: in other clusters than the query.
  test.each([500, 50, 5])("the %i farthest from the query allowed", async (n) => {
    const query = queries.subarray(0, dim);
    const far = nearest(metric, rows, query, count).slice(-n);
    const allowed = new Set(far.map(({ key }) => key));
    const filter = bitmap(allowed);
    for (const exact of [false, true, "rows"] as const) {
      const result = await index.search(query, { k, filter, exact, ef: 128, depth: 128 });
      const hits = hitsOf(result, 0);
      expect(hits.length).toBe(Math.min(k, n));
      expect(
        faultOf(
          metric,
          hits,
          query,
          (key) => rows.get(key),
          (key) => allowed.has(key),
        ),
      ).toBeUndefined();
      if (exact !== false)
        expect(exactFaultOf(metric, hits, query, rows, k, (key) => allowed.has(key))).toBeUndefined();
    }
  });

  test("keys past the bitmap's end are not allowed, whatever earlier bitmaps said", async () => {
    const all = bitmap(rows.keys());
    for (const bytes of [Math.ceil(count / 8), 100, 1, 0, 37, 625]) {
      const allowed = new Set([...rows.keys()].filter((key) => key < bytes * 8));
      const filter = all.slice(0, bytes);
      expect(await recallWith(allowed, filter, { exact: false })).toBeGreaterThanOrEqual(0.95);
      expect(await recallWith(allowed, filter, {})).toBeGreaterThanOrEqual(0.95);
    }
  });

  test("different bitmaps at the same time do not mix", async () => {
    const calls = Array.from({ length: 12 }, async (_, i) => {
      const allowed = new Set([...rows.keys()].filter((key) => key % 12 === i));
      for (const exact of [false, undefined, true, "rows"] as const) {
        const share = await recallWith(allowed, bitmap(allowed), { exact });
        expect(share).toBeGreaterThanOrEqual(0.95);
      }
    });
    await Promise.all(calls);
  });

  test("a bitmap is read at the call: what is written to it later changes nothing", async () => {
    const filter = bitmap([7, 8, 9]);
    const pending = index.search(queries, { k, filter, exact: false });
    filter.fill(0xff);
    const result = await pending;
    for (let i = 0; i < queryCount; i++) {
      const found = hitsOf(result, i).map(({ key }) => key);
      expect(found.sort()).toEqual([7, 8, 9]);
    }
  });

  test("large keys", async () => {
    const few = await HnswIndex.create({ dim, metric, pool });
    const keys = Uint32Array.of(0xffff_fffe, 4_000_000_000, 2 ** 31, 5);
    await few.upsert(keys, vectors.slice(0, 4 * dim));
    const filter = bitmap([5], 1);
    for (const exact of [false, true, "rows"] as const) {
      const limited = await few.search(queries.slice(0, dim), { k, filter, exact });
      expect([...limited.keys.subarray(0, limited.counts[0])]).toEqual([5]);
      const all = await few.search(queries.slice(0, dim), { k, exact });
      expect(new Set(all.keys.subarray(0, all.counts[0]))).toEqual(new Set(keys));
    }
    await few.close();
  });
});
