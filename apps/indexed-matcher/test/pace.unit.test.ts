import { expect, test } from "vitest";
import { Gate } from "../src/gate.ts";
import { MemoryBudget, type MemoryState } from "../src/memory-budget.ts";
import { Backoff, Pace } from "../src/pace.ts";

const never = new AbortController().signal;

test("a pause ends when it is woken, and at once when it was woken during the round before", async () => {
  const pace = new Pace();
  const pausing = pace.pause(60_000, never);
  pace.wake();
  await pausing;
  pace.wake();
  await pace.pause(60_000, never);
  const stop = new AbortController();
  const stopped = pace.pause(60_000, stop.signal);
  stop.abort();
  await stopped;
});

test("waits between attempts double up to a limit; a reason is worth telling once", () => {
  const backoff = new Backoff({ firstMs: 100, mostMs: 300 });
  expect(backoff.failed("a", "broken", 0)).toBe(true);
  expect([backoff.isBlocked("a", 99), backoff.isBlocked("a", 100)]).toEqual([true, false]);
  expect(backoff.failed("a", "broken", 100)).toBe(false);
  expect([backoff.isBlocked("a", 299), backoff.isBlocked("a", 300)]).toEqual([true, false]);
  expect(backoff.failed("a", "otherwise broken", 300)).toBe(true);
  expect([backoff.isBlocked("a", 599), backoff.isBlocked("a", 600)]).toEqual([true, false]);
  backoff.keepOnly(new Set(["b"]));
  expect(backoff.isBlocked("a", 301)).toBe(false);
});

const budgetOf = (state: Partial<MemoryState>) =>
  new MemoryBudget(() => ({ limitBytes: 100, totalBytes: 125, residentBytes: 0, spareBytes: 0, ...state }));

test("I10: loads under way count towards the memory limit", () => {
  const budget = budgetOf({ limitBytes: 100, residentBytes: 40 });
  const free = budget.reserve(30);
  expect(() => budget.reserve(31)).toThrow(/LIM_MEMORY_LIMIT_RATIO/);
  free();
  free();
  budget.reserve(60);
  expect(() => budget.reserve(1)).toThrow();
});

test("I10: spare memory is for loads, growth beside it ends before the memory does", () => {
  const spare = budgetOf({ residentBytes: 105, spareBytes: 40 });
  spare.reserve(35)();
  expect(() => spare.reserve(36)).toThrow(/memory/);
  spare.assertMayGrow(7);
  expect(() => spare.assertMayGrow(8)).toThrow(/LIM_MEMORY_LIMIT_RATIO/);
  const full = budgetOf({ residentBytes: 95 });
  full.assertMayGrow(5);
  expect(() => full.assertMayGrow(6)).toThrow(/would pass the limit/);
  // What does not fit beside another index may fit in its place.
  expect(() => full.assertFits(40)).toThrow();
  full.assertFits(40, 40);
  expect(() => full.assertFits(40, 30)).toThrow();
});

test("I10: a gate lets no more through than it has places, also after failures", async () => {
  const gate = new Gate(2);
  let running = 0;
  let most = 0;
  const work = async (fails: boolean) => {
    running++;
    most = Math.max(most, running);
    await Promise.resolve();
    running--;
    if (fails) throw new Error("failed");
  };
  await Promise.allSettled(Array.from({ length: 9 }, (_, i) => gate.run(() => work(i % 3 === 0))));
  await gate.run(() => work(false));
  expect([most, running]).toEqual([2, 0]);
});
