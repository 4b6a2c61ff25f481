import { describe, expect, test } from "vitest";
import { coreOf } from "../src/hnsw-index.ts";
import { addressOf } from "../src/layout.ts";
import { lastVersion } from "../src/limits.ts";
import {
  clustered,
  codeOf,
  difference,
  dim,
  keysOf,
  normalised,
  range,
  recall,
  row,
  rowsOf,
  setUp,
} from "./support.ts";

const { create } = setUp();

describe("changes", () => {
  test("replace, remove and add again", async () => {
    const index = await create();
    const vectors = clustered(300, dim, 11);
    await index.upsert(range(0, 300), vectors);
    await index.upsert(Uint32Array.of(4), row(3));
    expect(index.size).toBe(300);
    expect(keysOf(await index.search(row(3), { k: 1, exact: false }))).toEqual([4]);
    expect(keysOf(await index.search(rowsOf(vectors, dim, 4, 5), { k: 1 }))).not.toEqual([4]);
    const removed = index.remove(Uint32Array.of(4, 17));
    await removed;
    expect(index.has(4)).toBe(false);
    expect(index.size).toBe(298);
    for (const exact of [true, false])
      expect(keysOf(await index.search(row(3), { k: 300, exact }))).not.toContain(4);
    expect(await codeOf(() => index.get(Uint32Array.of(4)))).toBe("bad_input");
    await index.upsert(Uint32Array.of(4), row(3));
    expect(keysOf(await index.search(row(3), { k: 1, exact: false }))).toEqual([4]);
    await index.close();
  });

  test("of rows with the same key the last counts, within a slice and across slices", async () => {
    const index = await create();
    const count = 3000;
    const vectors = clustered(count, dim, 13);
    const keys = range(0, count);
    keys[1] = 0;
    keys[count - 1] = 2;
    await index.upsert(keys, vectors);
    expect(index.size).toBe(count - 2);
    const held = index.get(Uint32Array.of(0, 2));
    expect(difference(held.subarray(0, dim), normalised(rowsOf(vectors, dim, 1, 2)))).toBeLessThan(1e-6);
    const last = normalised(rowsOf(vectors, dim, count - 1, count));
    expect(difference(held.subarray(dim), last)).toBeLessThan(1e-6);
    await index.close();
  });

  test("a change is seen whole or not at all by searches beside it", async () => {
    const index = await create();
    const count = 400;
    const a = clustered(count, dim, 17);
    const b = clustered(count, dim, 18);
    // Generation g holds the keys g × count .. g × count + count - 1.
    await index.upsert(range(0, count), a);
    let newest = 0;
    let done = false;
    const writer = (async () => {
      for (let g = 1; g <= 12; g++) {
        await index.change({
          remove: range((g - 1) * count, g * count),
          upsert: { keys: range(g * count, (g + 1) * count), vectors: g % 2 ? b : a },
        });
        newest = g;
      }
      done = true;
    })();
    let searched = 0;
    const seen = new Set<number>();
    while (!done) {
      const oldest = newest;
      const exact = searched % 2 === 0;
      const result = await index.search(rowsOf(a, dim, searched % count, (searched % count) + 1), {
        k: exact ? count + 1 : 50,
        exact,
        ef: 500,
      });
      const generations = new Set(keysOf(result).map((key) => Math.floor(key / count)));
      expect(generations.size).toBe(1);
      const [generation] = generations;
      expect(generation).toBeGreaterThanOrEqual(oldest);
      expect(generation).toBeLessThanOrEqual(newest + 1);
      if (exact) expect(new Set(keysOf(result)).size).toBe(count);
      seen.add(generation ?? -1);
      searched++;
    }
    await writer;
    expect(seen.size).toBeGreaterThan(3);
    await index.close();
  });

  test("a replaced key is found exactly once all the while", async () => {
    const index = await create();
    const count = 1200;
    await index.upsert(range(0, count), clustered(count, dim, 19));
    let done = false;
    const writer = index.upsert(range(0, count), clustered(count, dim, 20)).then(() => {
      done = true;
    });
    let searches = 0;
    while (!done || searches === 0) {
      const keys = keysOf(await index.search(row(1), { k: count + 100, exact: true }));
      expect(keys.length).toBe(count);
      expect(new Set(keys).size).toBe(count);
      searches++;
    }
    await writer;
    await index.close();
  });

  test("slots are used again: churn does not make the index grow", async () => {
    const index = await create();
    const count = 1500;
    await index.upsert(range(0, count), clustered(count, dim, 23));
    for (let round = 1; round <= 6; round++) {
      await index.upsert(range(0, count), clustered(count, dim, 23 + round));
      await index.sweep();
      expect(index.slots).toBe(count);
    }
    const { used } = coreOf(index).slots;
    expect(used).toBeLessThan(2.5 * count);
    await index.remove(range(0, count / 2));
    await index.sweep();
    expect(index.slots).toBe(count / 2);
    const report = await index.check();
    expect(report).toMatchObject({ live: count / 2, dead: 0, deadLinks: 0, badLinks: 0, problems: [] });
    expect(report.unreachable).toBe(0);
    await index.upsert(range(0, count / 2), clustered(count / 2, dim, 40));
    expect(coreOf(index).slots.used).toBe(used);
    const queries = clustered(100, dim, 29);
    const truth = await index.search(queries, { k: 10, exact: "rows" });
    expect(recall(await index.search(queries, { k: 10, ef: 128, exact: false }), truth)).toBeGreaterThan(
      0.97,
    );
    await index.close();
  });

  test("what was removed waits for the searches that can still meet it", async () => {
    const index = await create();
    await index.upsert(range(0, 200), clustered(200, dim, 31));
    const core = coreOf(index);
    const { ledger, slots } = core;
    const counts = async () => {
      // The second begins once what is due after the first was done.
      await index.change({});
      await index.change({});
      return { dead: slots.dead, retired: slots.retired, free: slots.free };
    };
    const sees = ledger.begin(core.committed);
    await index.remove(range(0, 100));
    expect(await counts()).toEqual({ dead: 100, retired: 0, free: 0 });
    const crosses = ledger.begin(core.committed);
    ledger.end(sees);
    expect(await counts()).toEqual({ dead: 0, retired: 100, free: 0 });
    ledger.end(crosses);
    expect(await counts()).toEqual({ dead: 0, retired: 0, free: 100 });
    await index.close();
  });

  test("versions are numbered anew before they run out", async () => {
    const index = await create();
    await index.upsert(range(0, 100), clustered(100, dim, 37));
    const core = coreOf(index);
    core.committed = lastVersion - 1;
    await index.remove(range(0, 10));
    await index.upsert(Uint32Array.of(500), row(2));
    expect(core.committed).toBeLessThan(10);
    expect(index.size).toBe(91);
    const keys = keysOf(await index.search(row(2), { k: 200, exact: true }));
    expect(keys.length).toBe(91);
    expect(keys[0]).toBe(500);
    expect(Math.min(...keys)).toBe(10);
    await index.close();
  });

  test("changes run in the order of the calls", async () => {
    const index = await create();
    const all: Promise<void>[] = [];
    for (let i = 0; i < 20; i++) {
      all.push(index.upsert(Uint32Array.of(1), row(i)));
      all.push(index.remove(Uint32Array.of(1)));
    }
    await Promise.all(all);
    expect(index.size).toBe(0);
    await index.close();
  });

  test("one thread builds the same graph every time", async () => {
    const count = 2000;
    const vectors = clustered(count, dim, 41);
    const build = async () => {
      const index = await create({ seed: 5 });
      await index.upsert(range(0, count), vectors, { threads: 1 });
      const core = coreOf(index);
      const { layout } = core;
      const { at, segmentsAt, segmentBytes } = layout;
      const bytes = new Uint8Array(core.memory.memory.buffer.slice(segmentsAt, segmentsAt + segmentBytes));
      // Everything but the marks of visited slots, which are each thread's own.
      bytes.fill(0, at.visited, at.visited + 4096 * 2 * layout.instances);
      // Slots that were never used hold whatever their memory held.
      const parts = (["coarse", "fine", "links", "scale", "row", "key", "born", "died"] as const).map(
        (array) => {
          const start = addressOf(layout, array, 0, 1) - segmentsAt;
          return bytes.slice(
            start,
            start + (addressOf(layout, array, count, sizeOf(array)) - segmentsAt - start),
          );
        },
      );
      await index.close();
      return parts;
    };
    const sizeOf = (array: string): number =>
      array === "links" ? 128 : array === "row" ? 256 : array === "coarse" || array === "fine" ? 32 : 4;
    // Links end with a mark; what lies behind it is of earlier lists of the same build, so it is the same too, except
    // on a memory that was used before: a fresh pool has none.
    const first = await build();
    const second = await build();
    for (const [i, part] of first.entries()) {
      if (i === 2) continue;
      expect(Buffer.compare(part, second[i] as Uint8Array)).toBe(0);
    }
    expect(linkLists(first[2] as Uint8Array)).toEqual(linkLists(second[2] as Uint8Array));
  });
});

function linkLists(bytes: Uint8Array): number[][] {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const lists: number[][] = [];
  for (let at = 0; at < words.length; at += 32) {
    const list = [...words.subarray(at, at + 32)];
    const end = list.indexOf(0xffffffff);
    lists.push(end < 0 ? list : list.slice(0, end));
  }
  return lists;
}
