import { readdirSync, readFileSync } from "node:fs";
import { getPriority } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { coreOf } from "../src/hnsw-index.ts";
import { HnswIndex, type HnswOptions, HnswPool } from "../src/index.ts";
import { controlAt, segmentSlots } from "../src/layout.ts";
import { besideNiceness } from "../src/limits.ts";
import { schedulerOf } from "../src/pool.ts";
import { clustered, codeOf, dim, keysOf, range, row, setUp } from "./support.ts";

const { create, folder, newPool, pool } = setUp();

describe("calls that cannot be", () => {
  test("bad options", async () => {
    const bad: Partial<Record<keyof HnswOptions, unknown>>[] = [
      { dim: 0 },
      { dim: 4097 },
      { dim: 1.5 },
      { dim: "64" },
      { m: 3 },
      { m: 129 },
      { efConstruction: 0 },
      { seed: -1 },
      { metric: "hamming" },
      { rows: "float64" },
      { rows: {} },
      { capacity: -1 },
      { capacity: 2 ** 32 },
      { pool: {} },
    ];
    for (const options of bad)
      expect(await codeOf(() => create(options as Partial<HnswOptions>)), JSON.stringify(options)).toBe(
        "bad_input",
      );
    expect(await codeOf(() => new HnswPool({ threads: 0 }))).toBe("bad_input");
    expect(await codeOf(() => new HnswPool({ threads: 17 }))).toBe("bad_input");
    expect(await codeOf(() => new HnswPool({ maxQueuedCalls: 0 }))).toBe("bad_input");
  });

  test("bad vectors and keys change nothing", async () => {
    for (const metric of ["cosine", "l2", "ip"] as const) {
      const index = await create({ metric });
      await index.upsert(range(0, 5), clustered(5, dim, 71));
      const with_ = (value: number): Float32Array => {
        const rows = clustered(1500, dim, 72);
        rows[1400 * dim + 3] = value;
        return rows;
      };
      const keys = range(0, 1500);
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1e20])
        expect(await codeOf(() => index.upsert(keys, with_(value)))).toBe("bad_input");
      const zero = await codeOf(() => index.upsert(Uint32Array.of(1), new Float32Array(dim)));
      expect(zero).toBe(metric === "cosine" ? "bad_input" : "none");
      expect(await codeOf(() => index.upsert(Uint32Array.of(0xffffffff), row(1)))).toBe("bad_input");
      expect(await codeOf(() => index.upsert(Uint32Array.of(1, 2), row(1)))).toBe("bad_input");
      expect(await codeOf(() => index.upsert([1] as unknown as Uint32Array, row(1)))).toBe("bad_input");
      expect(
        await codeOf(() => index.upsert(Uint32Array.of(1), [...row(1)] as unknown as Float32Array)),
      ).toBe("bad_input");
      expect(await codeOf(() => index.upsert(Uint32Array.of(1), row(1), { threads: 0 }))).toBe("bad_input");
      expect(await codeOf(() => index.remove(Uint32Array.of(1, 99)))).toBe("bad_input");
      expect(await codeOf(() => index.remove(Uint32Array.of(1, 1)))).toBe("bad_input");
      expect(
        await codeOf(() =>
          index.change({ remove: Uint32Array.of(1), upsert: { keys: Uint32Array.of(1), vectors: row(1) } }),
        ),
      ).toBe("bad_input");
      expect(await codeOf(() => index.change({ remove: range(0, 70_000) }))).toBe("bad_input");
      expect(index.size).toBe(5);
      expect(index.keys().length).toBe(5);
      await index.close();
    }
  });

  test("bad searches", async () => {
    const index = await create();
    await index.upsert(range(0, 5), clustered(5, dim, 73));
    const bad: unknown[] = [
      undefined,
      {},
      { k: 0 },
      { k: 65_537 },
      { k: 1, ef: 0 },
      { k: 1, ef: 1e9 },
      { k: 1, depth: -1 },
      { k: 1, filter: [1] },
      { k: 1, filter: new Uint8Array(2 ** 24) },
      { k: 1, exact: "yes" },
    ];
    for (const [i, options] of bad.entries())
      expect(await codeOf(() => index.search(row(1), options as { k: number })), `search ${i}`).toBe(
        "bad_input",
      );
    expect(await codeOf(() => index.search(new Float32Array(dim + 1), { k: 1 }))).toBe("bad_input");
    expect(await codeOf(() => index.search(new Float32Array(dim), { k: 1 }))).toBe("bad_input");
    const many = clustered(100, dim, 74);
    many[99 * dim] = Number.NaN;
    expect(await codeOf(() => index.search(many, { k: 1 }))).toBe("bad_input");
    expect(await codeOf(() => index.search(clustered(300, dim, 75), { k: 65_536 }))).toBe("bad_input");
    const { ledger } = coreOf(index);
    await ledger.drained(ledger.next);
    expect(schedulerOf(pool).calls).toBe(0);
    await index.close();
  });
});

describe("signals and limits", () => {
  test("an aborted search is rejected at once, and the index goes on", async () => {
    const index = await create();
    await index.upsert(range(0, 100), clustered(100, dim, 81));
    const gone = AbortSignal.abort();
    expect(await codeOf(() => index.search(row(1), { k: 1, signal: gone }))).toBe("aborted");
    const controller = new AbortController();
    const running = codeOf(() =>
      index.search(clustered(2000, dim, 82), { k: 10, signal: controller.signal }),
    );
    const waiting = codeOf(() => index.search(row(1), { k: 10, signal: controller.signal }));
    controller.abort();
    expect(await running).toBe("aborted");
    expect(await waiting).toBe("aborted");
    expect((await index.search(row(1), { k: 1 })).counts[0]).toBe(1);
    const { ledger } = coreOf(index);
    await ledger.drained(ledger.next);
    expect(schedulerOf(pool).calls).toBe(0);
    await index.close();
  });

  test("an aborted change leaves no trace; an aborted addition its finished slices", async () => {
    const index = await create();
    await index.upsert(range(0, 500), clustered(500, dim, 83));
    const before = index.keys();
    const controller = new AbortController();
    const change = codeOf(() =>
      index.change(
        { upsert: { keys: range(0, 3000), vectors: clustered(3000, dim, 84) }, remove: undefined },
        { signal: controller.signal },
      ),
    );
    while (coreOf(index).slots.used < 1000) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    expect(await change).toBe("aborted");
    expect([...index.keys()].sort((a, b) => a - b)).toEqual([...before]);
    await index.sweep();
    expect(index.slots).toBe(500);
    expect(await index.check()).toMatchObject({ live: 500, deadLinks: 0, badLinks: 0, problems: [] });

    const second = new AbortController();
    const upsert = codeOf(() =>
      index.upsert(range(1000, 6000), clustered(5000, dim, 85), {
        signal: second.signal,
        onProgress: () => second.abort(),
      }),
    );
    expect(await upsert).toBe("aborted");
    expect(index.size).toBe(500 + 1024);
    const waiting = new AbortController();
    const first = index.upsert(range(0, 500), clustered(500, dim, 86));
    const third = codeOf(() => index.remove(range(0, 1), { signal: waiting.signal }));
    waiting.abort();
    expect(await third).toBe("aborted");
    await first;
    expect(index.has(0)).toBe(true);
    await index.close();
  });

  test("past the limit calls are refused as overloaded", async () => {
    const own = newPool({ threads: 1, maxQueuedCalls: 3 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 100), clustered(100, dim, 87));
    const searches = Array.from({ length: 5 }, () => codeOf(() => index.search(row(1), { k: 1 })));
    expect(await Promise.all(searches)).toEqual(["none", "none", "none", "overloaded", "overloaded"]);
    const changes = Array.from({ length: 6 }, (_, i) =>
      codeOf(() => index.upsert(Uint32Array.of(i), row(i))),
    );
    const codes = await Promise.all(changes);
    expect(codes.filter((code) => code === "overloaded").length).toBeGreaterThan(0);
    expect(codes.slice(0, 3)).toEqual(["none", "none", "none"]);
    expect((await index.search(row(1), { k: 1 })).counts[0]).toBe(1);
    await own.close();
  });

  test("closing rejects what waits and whatever comes after", async () => {
    const index = await create();
    await index.upsert(range(0, 100), clustered(100, dim, 88));
    const long = codeOf(() => index.upsert(range(0, 20_000), clustered(20_000, dim, 89)));
    const next = codeOf(() => index.remove(range(0, 1)));
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.all([index.close(), index.close()]);
    expect(await long).toBe("closed");
    expect(await next).toBe("closed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("closed");
    expect(await codeOf(() => index.upsert(range(0, 1), row(1)))).toBe("closed");
    expect(await codeOf(() => index.has(1))).toBe("closed");
    expect(await codeOf(() => index.save(join(folder, "closed")))).toBe("closed");
  });

  test("a closed pool rejects too", async () => {
    const own = newPool({ threads: 2 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 100), clustered(100, dim, 90));
    const search = codeOf(() => index.search(clustered(3000, dim, 91), { k: 10 }));
    const upsert = codeOf(() => index.upsert(range(0, 9000), clustered(9000, dim, 92)));
    await new Promise((resolve) => setImmediate(resolve));
    await own.close();
    expect(await search).toBe("closed");
    expect(await upsert).toBe("closed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("closed");
    expect(await codeOf(() => HnswIndex.create({ dim, pool: own }))).toBe("closed");
    await index.close();
  });
});

/** Of all threads of this process. */
function nicenesses(): number[] {
  return readdirSync("/proc/self/task").flatMap((thread) => {
    try {
      const stat = readFileSync(`/proc/self/task/${thread}/stat`, "utf8");
      // The 19th field; the second is a name in brackets.
      return [Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16])];
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}

describe("when the engine breaks", () => {
  test("a trap in a search is an error of that search", async () => {
    const index = await create();
    await index.upsert(range(0, 2000), clustered(2000, dim, 101));
    const entry = new Uint32Array(coreOf(index).memory.memory.buffer, controlAt + 256, 2);
    const [slot, level] = entry;
    entry[0] = 500 * segmentSlots;
    expect(await codeOf(() => index.search(row(1), { k: 1, exact: false }))).toBe("failed");
    entry.set([slot ?? 0, level ?? 0]);
    expect((await index.search(row(1), { k: 1, exact: false })).counts[0]).toBe(1);
    await index.close();
  });

  test("a trap in a change ends the index, and nothing else", async () => {
    const index = await create();
    const other = await create();
    await index.upsert(range(0, 2000), clustered(2000, dim, 102));
    await other.upsert(range(0, 10), clustered(10, dim, 103));
    const entry = new Uint32Array(coreOf(index).memory.memory.buffer, controlAt + 256, 2);
    entry[0] = 500 * segmentSlots;
    expect(await codeOf(() => index.upsert(range(0, 500), clustered(500, dim, 104)))).toBe("failed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("failed");
    expect(await codeOf(() => index.upsert(range(0, 1), row(1)))).toBe("failed");
    expect((await other.search(row(1), { k: 1 })).counts[0]).toBe(1);
    await index.close();
    const next = await create();
    await next.upsert(range(0, 2000), clustered(2000, dim, 105));
    expect(await next.check()).toMatchObject({ live: 2000, badLinks: 0, problems: [] });
    await next.close();
    await other.close();
  });

  test("calls of a thread that died are rejected, and it is started again", async () => {
    const own = newPool({ threads: 1 });
    const index = await HnswIndex.create({ dim, pool: own });
    await index.upsert(range(0, 500), clustered(500, dim, 106));
    const search = codeOf(() => index.search(clustered(5000, dim, 107), { k: 10 }));
    await new Promise((resolve) => setImmediate(resolve));
    schedulerOf(own).killThread(0);
    expect(await search).toBe("failed");
    expect((await index.search(row(1), { k: 1 })).counts[0]).toBe(1);
    await index.upsert(Uint32Array.of(7), row(7));
    expect(index.size).toBe(500);
    await index.close();
  });

  test("a thread that dies in a change ends the index", async () => {
    const own = newPool({ threads: 2 });
    const index = await HnswIndex.create({ dim, pool: own });
    let settled = false;
    const upsert = codeOf(() => index.upsert(range(0, 50_000), clustered(50_000, dim, 108))).finally(() => {
      settled = true;
    });
    while (index.size === 0) await new Promise((resolve) => setImmediate(resolve));
    // Again and again: it may have been between two slices.
    while (!settled) {
      schedulerOf(own).killThread(0);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await upsert).toBe("failed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("failed");
    await index.close();
    const next = await HnswIndex.create({ dim, pool: own });
    await next.upsert(Uint32Array.of(7), row(7));
    expect(keysOf(await next.search(row(7), { k: 1 }))).toEqual([7]);
    await next.close();
  });

  test("what writes beside searches has a thread of its own, that runs when the others leave it time", async () => {
    const own = newPool({ threads: 2 });
    const other = await HnswIndex.create({ dim, pool: own });
    await other.upsert(range(0, 2000), clustered(2000, dim, 109));
    const index = await HnswIndex.create({ dim, pool: own });
    let settled = false;
    const failures: string[] = [];
    const searcher = async () => {
      while (!settled) {
        const code = await codeOf(() => other.search(clustered(40, dim, 110), { k: 10 }));
        if (code !== "none") failures.push(code);
      }
    };
    const searches = [searcher(), searcher()];
    await other.search(row(1), { k: 1 });
    const upsert = codeOf(() => index.upsert(range(0, 50_000), clustered(50_000, dim, 111))).finally(() => {
      settled = true;
    });
    while (index.size === 0) await new Promise((resolve) => setImmediate(resolve));
    if (process.platform === "linux")
      expect(nicenesses()).toContain(Math.min(19, getPriority() + besideNiceness));
    // Searches lose nothing by its death, as they have no part in it.
    while (!settled) {
      schedulerOf(own).killThread(own.threads);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await upsert).toBe("failed");
    await Promise.all(searches);
    expect(failures).toEqual([]);
    await index.close();
    await other.upsert(Uint32Array.of(5000), row(3));
    expect(keysOf(await other.search(row(3), { k: 1 }))).toEqual([5000]);
    await other.close();
  });

  test("of many threads those that searches leave idle write, too", async () => {
    const own = newPool({ threads: 4 });
    const other = await HnswIndex.create({ dim, pool: own });
    await other.upsert(range(0, 2000), clustered(2000, dim, 112));
    const index = await HnswIndex.create({ dim, pool: own });
    let settled = false;
    const searcher = async () => {
      while (!settled) await codeOf(() => other.search(row(1), { k: 1 }));
    };
    await other.search(row(1), { k: 1 });
    const searches = searcher();
    const upsert = codeOf(() => index.upsert(range(0, 50_000), clustered(50_000, dim, 113))).finally(() => {
      settled = true;
    });
    while (index.size === 0) await new Promise((resolve) => setImmediate(resolve));
    // The thread beside is not among them.
    while (!settled) {
      for (let number = 0; number < own.threads; number++) schedulerOf(own).killThread(number);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await upsert).toBe("failed");
    await searches;
    await index.close();
    await other.close();
  });

  test("copies of one vector stay findable, and hide nothing", async () => {
    const count = 2000;
    const copies = 300;
    const index = await create({});
    const vectors = clustered(count + copies, dim, 109);
    for (let i = count; i < count + copies; i++) vectors.set(vectors.subarray(0, dim), i * dim);
    await index.upsert(range(0, count + copies), vectors, { threads: 1 });
    const found = await index.search(vectors.slice(0, dim), { k: 100, ef: 200, exact: false });
    expect(found.scores.every((score) => score > 0.9999)).toBe(true);
    expect((await index.check()).unreachable).toBeLessThanOrEqual(3);
    await index.close();
  });
});
