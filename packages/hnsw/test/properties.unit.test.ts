// Random sequences of calls against a model that holds the rows in a map.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { HnswIndex, HnswPool, type Metric, type SearchOptions } from "../src/index.ts";
import { exactFaultOf, faultOf, hitsOf, prepared } from "./oracle.ts";
import { randomFrom } from "./support.ts";

const seed = Number(process.env.HNSW_SEED ?? Math.floor(Math.random() * 2 ** 31));
const numRuns = Number(process.env.HNSW_RUNS ?? 25);
const folder = mkdtempSync(join(tmpdir(), "hnsw-properties-"));
const pools = [1, 2, 3, 4].map((threads) => new HnswPool({ threads }));
afterAll(async () => {
  await Promise.all(pools.map((pool) => pool.close()));
  rmSync(folder, { recursive: true });
});

interface Setup {
  dim: number;
  m: number;
  efConstruction: number;
  threads: number;
  /** Rows of few different components: many distances are equal. */
  coarse: boolean;
  seed: number;
}
const setups: fc.Arbitrary<Setup> = fc.record({
  dim: fc.constantFrom(1, 3, 16, 33, 64, 100),
  m: fc.constantFrom(4, 8, 16),
  efConstruction: fc.constantFrom(16, 60, 200),
  threads: fc.integer({ min: 1, max: 4 }),
  coarse: fc.boolean(),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
});

type Step =
  | { op: "add"; count: number }
  | { op: "replace" | "remove"; share: number }
  | { op: "change"; add: number; share: number }
  | { op: "search"; k: number; allowed: number }
  | { op: "removeAll" | "sweep" | "reload" };
const share = fc.constantFrom(0.02, 0.1, 0.4, 0.9);
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({ op: fc.constant("add" as const), count: fc.integer({ min: 1, max: 150 }) }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ op: fc.constantFrom("replace" as const, "remove" as const), share }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        op: fc.constant("change" as const),
        add: fc.integer({ min: 0, max: 40 }),
        share,
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        op: fc.constant("search" as const),
        k: fc.constantFrom(1, 5, 30, 500),
        allowed: fc.constantFrom(1, 1, 0.5, 0.05, 0),
      }),
    },
    { weight: 2, arbitrary: fc.record({ op: fc.constantFrom("sweep" as const, "reload" as const) }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constant("removeAll" as const) }) },
  ),
  { minLength: 6, maxLength: 20 },
);

/**
 * How often the graph missed something because no link led there. Many equal rows (few different components, few
 * dimensions) fill each other's lists and become islands; others must not.
 */
const seen = { searches: 0, unreachable: 0, checks: 0, missed: 0 };

class Subject {
  readonly metric: Metric;
  readonly setup: Setup;
  readonly random: () => number;
  readonly model = new Map<number, Float32Array>();
  index: HnswIndex;
  nextKey = 0;

  constructor(metric: Metric, setup: Setup, index: HnswIndex) {
    this.metric = metric;
    this.setup = setup;
    this.index = index;
    this.random = randomFrom(setup.seed);
  }

  row(): Float32Array {
    const { dim, coarse } = this.setup;
    const component = () => (coarse ? Math.floor(this.random() * 3) - 1 : this.random() - 0.5);
    const row = Float32Array.from({ length: dim }, component);
    if (row.every((x) => x === 0)) row[0] = 1;
    return row;
  }

  rowsFor(keys: number[]): { keys: Uint32Array; vectors: Float32Array } {
    const { dim } = this.setup;
    const vectors = new Float32Array(keys.length * dim);
    keys.forEach((key, i) => {
      const row = this.row();
      vectors.set(row, i * dim);
      this.model.set(key, prepared(this.metric, row));
    });
    return { keys: Uint32Array.from(keys), vectors };
  }

  newKeys(count: number): number[] {
    // Keys are not given in order, and those removed come again.
    return Array.from({ length: count }, () => {
      for (;;) {
        const key = this.random() < 0.3 ? Math.floor(this.random() * this.nextKey) : this.nextKey++;
        if (!this.model.has(key)) return key;
      }
    }).filter((key, i, all) => all.indexOf(key) === i);
  }

  some(part: number): number[] {
    return [...this.model.keys()].filter(() => this.random() < part);
  }

  async run(step: Step): Promise<void> {
    const { index, model, setup } = this;
    switch (step.op) {
      case "add": {
        const { keys, vectors } = this.rowsFor(this.newKeys(step.count));
        return index.upsert(keys, vectors, { threads: setup.threads });
      }
      case "replace": {
        const { keys, vectors } = this.rowsFor(this.some(step.share));
        return index.upsert(keys, vectors);
      }
      case "remove":
      case "removeAll": {
        const keys = this.some(step.op === "remove" ? step.share : 1);
        for (const key of keys) model.delete(key);
        return index.remove(Uint32Array.from(keys));
      }
      case "change": {
        const remove = this.some(step.share / 2);
        for (const key of remove) model.delete(key);
        const gone = new Set(remove);
        const replaced = this.some(step.share / 2);
        const added = this.newKeys(step.add).filter((key) => !gone.has(key));
        const upsert = this.rowsFor([...replaced, ...added]);
        return index.change({ upsert, remove: Uint32Array.from(remove) });
      }
      case "search":
        return this.search(step.k, step.allowed);
      case "sweep":
        return index.sweep();
      case "reload":
        return this.reload();
    }
  }

  async reload(): Promise<void> {
    const path = join(folder, "index.hnsw");
    await this.index.save(path);
    await this.index.close();
    this.index = await HnswIndex.load(path, { pool: pools[this.setup.threads - 1] });
  }

  filter(part: number): { filter: Uint8Array | undefined; allowed: (key: number) => boolean } {
    if (part === 1) return { filter: undefined, allowed: () => true };
    // Shorter than the keys now and then: those past its end are not allowed.
    const filter = new Uint8Array(Math.ceil((this.nextKey * (0.7 + 0.5 * this.random())) / 8));
    for (let key = 0; key < filter.length * 8; key++)
      if (this.random() < part) filter[key >> 3] = (filter[key >> 3] ?? 0) | (1 << (key & 7));
    return { filter, allowed: (key) => (((filter[key >> 3] ?? 0) >> (key & 7)) & 1) === 1 };
  }

  async search(k: number, part: number): Promise<void> {
    const { index, metric, model, setup } = this;
    const count = 3;
    const queries = new Float32Array(count * setup.dim);
    for (let i = 0; i < count; i++) queries.set(this.row(), i * setup.dim);
    const { filter, allowed } = this.filter(part);
    const { unreachable } = await index.check();
    seen.unreachable += unreachable;
    const easy = setup.dim >= 16 && !setup.coarse;
    if (easy && setup.m >= 8) expect(unreachable).toBeLessThanOrEqual(3 + model.size / 50);
    seen.checks++;
    const all = 2 * index.slots + 16;
    const modes: SearchOptions["exact"][] = [false, undefined, true, "rows"];
    for (const exact of modes) {
      const result = await index.search(queries, { k, ef: all, depth: all, filter, exact });
      for (let i = 0; i < count; i++) {
        const query = queries.subarray(i * setup.dim, (i + 1) * setup.dim);
        const hits = hitsOf(result, i);
        const note = `exact ${exact}, k ${k}, of ${model.size}, ${unreachable} unreachable`;
        expect(
          faultOf(metric, hits, query, (key) => model.get(key), allowed),
          note,
        ).toBeUndefined();
        const fault = exactFaultOf(metric, hits, query, model, k, allowed);
        seen.searches++;
        if (exact === false && fault !== undefined) seen.missed++;
        if (exact !== false || (unreachable === 0 && easy)) expect(fault, note).toBeUndefined();
      }
    }
  }

  async verify(): Promise<void> {
    const { index, model } = this;
    expect(index.size).toBe(model.size);
    const keys = [...index.keys()].sort((a, b) => a - b);
    expect(keys).toEqual([...model.keys()].sort((a, b) => a - b));
    for (let i = 0; i < 20; i++) {
      const key = Math.floor(this.random() * (this.nextKey + 5));
      expect(index.has(key)).toBe(model.has(key));
    }
    const rows = index.get(Uint32Array.from(keys));
    const { dim } = this.setup;
    keys.forEach((key, i) => {
      expect(rows.subarray(i * dim, (i + 1) * dim)).toEqual(model.get(key));
    });
    const report = await index.check();
    expect(report.problems).toEqual([]);
    expect(report).toMatchObject({ live: model.size, badLinks: 0 });
    expect(report.live + report.dead + report.free).toBe(report.slots);
    expect(report.levels.reduce((sum, n) => sum + n, 0)).toBe(model.size);
  }
}

describe("random sequences", () => {
  for (const metric of ["cosine", "ip", "l2"] as const)
    test(`${metric}: the index answers as the model does`, async () => {
      console.log(`properties, ${metric}: HNSW_SEED=${seed}`);
      await fc.assert(
        fc.asyncProperty(setups, steps, async (setup, sequence) => {
          const { threads, dim, m, efConstruction } = setup;
          const pool = pools[threads - 1];
          const options = { dim, m, efConstruction, metric, pool, seed: setup.seed };
          const subject = new Subject(metric, setup, await HnswIndex.create(options));
          try {
            for (const step of sequence) await subject.run(step);
            await subject.search(5, 1);
            await subject.verify();
            await subject.index.sweep();
            const { dead, deadLinks } = await subject.index.check();
            expect({ dead, deadLinks }).toEqual({ dead: 0, deadLinks: 0 });
            await subject.search(5, 1);
            await subject.verify();
          } finally {
            await subject.index.close();
          }
        }),
        { seed, numRuns, endOnFailure: true },
      );
      console.log(`properties, ${metric}: ${JSON.stringify(seen)}`);
    }, 120_000);
});
