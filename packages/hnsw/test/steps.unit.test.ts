// Changes that become visible one after another while later ones are being linked; concurrency.unit.test.ts searches beside them.
import { describe, expect, test } from "vitest";
import type { Change } from "../src/index.ts";
import { clustered, codeOf, dim, keysOf, range, row, setUp } from "./support.ts";

const { create } = setUp();

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
});
