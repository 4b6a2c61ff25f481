import type { IndexerState } from "@lim/contracts";
import { describe, expect, it } from "vitest";
import { retryDelayMs } from "../src/dispatching.ts";
import { createIndexerWatch } from "../src/indexer-watch.ts";
import { managerLimits } from "../src/limits.ts";
import { building, idle, origins } from "./reconcile-cases.ts";

const [a, b] = origins;

/** Questions that are answered when the test says so. */
function questions() {
  const open = new Map<string, (state: IndexerState | undefined) => void>();
  const asked: string[] = [];
  const client = {
    state(origin: string) {
      asked.push(origin);
      return new Promise<IndexerState | undefined>((resolve) => open.set(origin, resolve));
    },
  };
  const answer = (origin: string, state: IndexerState | undefined) => {
    open.get(origin)?.(state);
    open.delete(origin);
  };
  const leadership = new AbortController();
  return { watch: createIndexerWatch(client, leadership.signal), asked, answer, leadership };
}

describe("the watch of indexers", () => {
  it("takes an unanswered one for late, asks it nothing more, and tells its answer to the next look, once", async () => {
    const { watch, asked, answer } = questions();
    expect(await watch.look([a])).toMatchObject([{ late: true, state: undefined }]);
    expect(await watch.look([a])).toMatchObject([{ late: true }]);
    const state = idle();
    answer(a, state);
    await Promise.resolve();
    expect(await watch.look([a])).toEqual([{ origin: a, late: false, state, bootId: state.boot_id }]);
    expect(asked).toEqual([a]);
    expect(await watch.look([a])).toMatchObject([{ late: true, bootId: state.boot_id }]);
    expect(asked).toEqual([a, a]);
  });

  it("takes a question that failed late for one silent look", async () => {
    const { watch, answer } = questions();
    await watch.look([a]);
    answer(a, undefined);
    await Promise.resolve();
    expect(await watch.look([a])).toMatchObject([{ late: false, state: undefined }]);
  });

  it("asks nothing of one that a command is on its way to", async () => {
    const { watch, asked, answer } = questions();
    let end = () => {};
    watch.command(a, () => new Promise((resolve) => (end = resolve)));
    expect(await watch.look([a])).toMatchObject([{ late: true }]);
    expect(asked).toEqual([]);
    end();
    await new Promise(setImmediate);
    const look = watch.look([a]);
    answer(a, idle());
    expect(await look).toMatchObject([{ late: false, state: { state: "idle" } }]);
  });

  it("of one indexer under two names, what was asked for last counts for both", async () => {
    const { watch, answer } = questions();
    await watch.look([a]);
    const before = idle({ boot_id: "one" });
    answer(a, before);
    await new Promise(setImmediate);
    const look = watch.look([a, b]);
    const now = building("t1", 1, { boot_id: "one" });
    answer(b, now);
    expect((await look).map((seen) => seen.state)).toEqual([now, now]);
  });

  it("I10: asks no more than so many at a time, those first that were asked longest ago", async () => {
    const { watch, asked, answer } = questions();
    const many = Array.from({ length: 2 * managerLimits.maxOpenQuestions }, (_, i) => `http://i${i}:1`);
    for (const begins of [0, managerLimits.maxOpenQuestions]) {
      const look = watch.look(many);
      expect(asked).toHaveLength(begins + managerLimits.maxOpenQuestions);
      for (const origin of asked.slice(begins)) answer(origin, idle());
      expect((await look).filter((seen) => seen.late)).toHaveLength(managerLimits.maxOpenQuestions);
    }
    expect(new Set(asked).size).toBe(many.length);
  });

  it("ends a look at once when the leadership ends", async () => {
    const { watch, leadership } = questions();
    leadership.abort();
    expect(await watch.look([a])).toMatchObject([{ late: true }]);
  });
});

describe("the pause before another attempt", () => {
  const after = (attempt: number, spared = 0) =>
    retryDelayMs("failed", { attempt, spared, retryBackoffMs: 5_000 });

  it("doubles with each attempt that cost one, up to its limit", () => {
    expect([1, 2, 3].map((attempt) => after(attempt))).toEqual([5_000, 10_000, 20_000]);
    expect(after(3, 2)).toBe(5_000);
    expect(after(40)).toBe(300_000);
  });

  it("is none where the indexer refused, or handed the task back", () => {
    for (const cause of ["refused", "handed back"] as const)
      expect(retryDelayMs(cause, { attempt: 3, spared: 1, retryBackoffMs: 5_000 })).toBe(0);
  });
});
