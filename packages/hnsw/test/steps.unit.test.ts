// Changes that become visible one after another while later ones are being linked; concurrency.unit.test.ts searches beside them.
import { closeSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { EngineExports } from "../src/exports.ts";
import { coreOf } from "../src/hnsw-index.ts";
import { type Change, HnswIndex } from "../src/index.ts";
import { layOut, segmentSlots } from "../src/layout.ts";
import { linkedRow, wholeRow } from "../src/protocol.ts";
import { runInsert } from "../src/worker-write.ts";
import { clustered, codeOf, dim, keysOf, range, row, setUp } from "./support.ts";

const { create, folder, newPool } = setUp();

const added = (from: number, to: number): Change => ({
  upsert: { keys: range(from, to), vectors: clustered(to - from, dim, from + 1) },
});

describe("changes in steps", () => {
  test("are told in order, each in the turn in which it can be seen", async () => {
    const index = await create();
    await index.upsert(range(0, 50), clustered(50, dim, 1));
    const sizes: number[] = [];
    await index.changeInSteps(
      [{ remove: range(0, 5) }, added(100, 140), {}, { ...added(200, 203), remove: range(5, 7) }],
      { onApplied: (step) => sizes.push(step, index.size) },
    );
    expect(sizes).toEqual([0, 45, 1, 85, 2, 85, 3, 86]);
    expect(await index.check()).toMatchObject({ live: 86, badLinks: 0, problems: [] });
    await index.changeInSteps([]);
    await index.close();
  });

  test("a vector that is replaced is found by the new one alone", async () => {
    const index = await create();
    await index.upsert(range(0, 20), clustered(20, dim, 2));
    await index.upsert(Uint32Array.of(7), row(1));
    await index.changeInSteps([{ upsert: { keys: Uint32Array.of(7), vectors: row(2) } }]);
    expect(keysOf(await index.search(row(2), { k: 1 }))).toEqual([7]);
    expect(index.size).toBe(20);
    await index.close();
  });

  test("bad ones are refused before the first is begun", async () => {
    const index = await create();
    await index.upsert(range(0, 20), clustered(20, dim, 3));
    const bad: Change[][] = [
      [added(100, 110), { remove: Uint32Array.of(500) }],
      [added(100, 110), added(105, 106)],
      [added(100, 110), { remove: Uint32Array.of(3) }, { remove: Uint32Array.of(3) }],
      [added(100, 110), { upsert: { keys: Uint32Array.of(3), vectors: row(1) }, remove: Uint32Array.of(3) }],
      [
        added(100, 110),
        { upsert: { keys: Uint32Array.of(7), vectors: new Float32Array(dim).fill(Number.NaN) } },
      ],
    ];
    for (const [i, changes] of bad.entries()) {
      expect(await codeOf(() => index.changeInSteps(changes)), `case ${i}`).toBe("bad_input");
      expect(index.size).toBe(20);
    }
    expect(await index.check()).toMatchObject({ live: 20, badLinks: 0, problems: [] });
    await index.close();
  });

  test("those applied before an abort stay, and nothing of the others is left", async () => {
    const index = await create();
    await index.upsert(range(0, 20), clustered(20, dim, 4));
    const stop = new AbortController();
    let applied = 0;
    const steps = Array.from({ length: 60 }, (_, i) => added(1000 + 100 * i, 1100 + 100 * i));
    const code = await codeOf(() =>
      index.changeInSteps(steps, {
        signal: stop.signal,
        onApplied: () => {
          applied++;
          if (applied === 3) stop.abort();
        },
      }),
    );
    expect(code).toBe("aborted");
    expect(applied).toBeGreaterThanOrEqual(3);
    expect(applied).toBeLessThan(60);
    expect(index.size).toBe(20 + 100 * applied);
    for (const [step, { upsert }] of steps.entries())
      for (const key of upsert?.keys ?? []) expect(index.has(key)).toBe(step < applied);
    await index.sweep();
    const live = 20 + 100 * applied;
    expect(await index.check()).toMatchObject({ live, badLinks: 0, problems: [] });
    await index.changeInSteps(steps.slice(applied, applied + 2));
    expect(index.size).toBe(live + 200);
    await index.close();
  });

  test("a row that is held in a file counts as whole once it is there", () => {
    const path = join(folder, "rows");
    writeFileSync(path, "");
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    const layout = layOut({
      dim,
      metric: "ip",
      m: 16,
      efConstruction: 10,
      seed: 1,
      rows: "none",
      instances: 1,
    });
    const exports = { queriesAt: { value: 0 }, insert() {} } as unknown as EngineExports;
    const doneWith = (flags: string) => {
      const done = new Uint8Array(new SharedArrayBuffer(1));
      const rows = openSync(path, flags);
      try {
        runInsert(
          { memory, exports, layout, rows, filterId: 0, filterBytes: 0, allowed: 0 },
          {
            op: "insert",
            index: 1,
            rows: row(1),
            slots: Uint32Array.of(0),
            done,
            control: Int32Array.of(0, 1),
            used: 1,
            maxRows: 1,
            minRows: 1,
          },
          new Int32Array(1),
        );
      } catch {
        // It cannot be written.
      } finally {
        closeSync(rows);
      }
      return done[0];
    };
    expect([doneWith("r"), doneWith("r+")]).toEqual([linkedRow, wholeRow]);
  });

  test("where there is no room for all, each is applied that finds some after those before", async () => {
    const index = await create();
    await index.upsert(range(0, 295), clustered(295, dim, 6));
    coreOf(index).layout.maxSlots = 300;
    const applied: number[] = [];
    const steps = [
      { remove: range(0, 10) },
      added(500, 514),
      added(600, 601),
      added(700, 720),
      added(800, 801),
    ];
    const code = await codeOf(() =>
      index.changeInSteps(steps, { onApplied: (step) => applied.push(step, index.size) }),
    );
    expect([code, ...applied]).toEqual(["full", 0, 285, 1, 299, 2, 300]);
    expect(await index.check()).toMatchObject({ live: 300, badLinks: 0, problems: [] });
    await index.close();
  });

  test("where the memory cannot grow, those that need no more of it are applied, and nothing of the others is left", async () => {
    const index = await create({ pool: newPool({ threads: 2 }) });
    await index.upsert(range(0, segmentSlots - 6), clustered(segmentSlots - 6, dim, 7));
    const { memory } = coreOf(index).memory;
    memory.grow = () => {
      throw new RangeError("no more");
    };
    const applied: number[] = [];
    const steps = [added(5000, 5005), added(5100, 5105), added(5200, 5205)];
    const code = await codeOf(() => index.changeInSteps(steps, { onApplied: (step) => applied.push(step) }));
    expect([code, ...applied]).toEqual(["full", 0]);
    expect(index.keys().length).toBe(segmentSlots - 1);
    expect(await index.check()).toMatchObject({ live: segmentSlots - 1, badLinks: 0, problems: [] });
    await index.close();
  });

  test("a closed pool rejects them as closed while they run", async () => {
    const pool = newPool({ threads: 2 });
    const index = await HnswIndex.create({ dim, pool });
    const steps = Array.from({ length: 60 }, (_, i) => added(100 * i, 100 * i + 100));
    const code = await codeOf(() => index.changeInSteps(steps, { onApplied: () => void pool.close() }));
    expect(code).toBe("closed");
    expect(await codeOf(() => index.search(row(1), { k: 1 }))).toBe("closed");
    await index.close();
  });

  test("one whose listener throws is applied all the same, and sound", async () => {
    const index = await create();
    const code = await codeOf(() =>
      index.changeInSteps([added(0, 20), added(20, 40), added(40, 60)], {
        onApplied: (step) => {
          if (step === 1) throw new Error("no");
        },
      }),
    );
    expect(code).toBe("failed");
    expect(index.has(39)).toBe(true);
    expect(await index.check()).toMatchObject({ live: index.size, badLinks: 0, problems: [] });
    await index.close();
  });
});
