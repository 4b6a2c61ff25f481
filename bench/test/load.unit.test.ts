import { setTimeout } from "node:timers/promises";
import { expect, test } from "vitest";
import { closedLoop } from "../src/load/closed-loop.ts";
import { latenciesOf } from "../src/load/latencies.ts";
import { openLoop } from "../src/load/open-loop.ts";

test("open loop: a stall counts in full for every request that fell due meanwhile", async () => {
  const stallMs = 200;
  const stalledUntilMs = performance.now() + stallMs;
  const figures = await openLoop({
    perS: 200,
    durationMs: stallMs,
    seed: 1,
    maxInFlight: 1_000,
    ask: async () => {
      // Blocks whoever asks, as a service would that takes nothing from its socket.
      while (performance.now() < stalledUntilMs);
      return true;
    },
  });
  expect(figures.latency.count).toBeGreaterThan(20);
  // Requests were due all over the stall, so their waits are spread over it; counted from sending they would be 0.
  expect(figures.latency.p50Ms).toBeGreaterThan(stallMs / 5);
  expect(figures.latency.maxMs).toBeGreaterThan(stallMs * 0.8);
});

test("open loop: failures and requests past the limit are counted apart", async () => {
  let open = 0;
  let most = 0;
  const figures = await openLoop({
    perS: 1_000,
    durationMs: 100,
    seed: 2,
    maxInFlight: 3,
    ask: async (n) => {
      most = Math.max(most, ++open);
      await setTimeout(150);
      open--;
      if (n === 0) throw new Error("no answer");
      return n !== 1;
    },
  });
  expect(most).toBe(3);
  expect(figures.failed).toBe(2);
  expect(figures.notSent + figures.latency.count).toBeGreaterThan(10);
});

test("closed loop: every caller has one request at a time", async () => {
  let open = 0;
  let most = 0;
  const figures = await closedLoop({
    callers: 4,
    durationMs: 50,
    ask: async () => {
      most = Math.max(most, ++open);
      await setTimeout(1);
      open--;
      return true;
    },
  });
  expect(most).toBe(4);
  expect(figures.failed).toBe(0);
  expect(figures.latency.count).toBeGreaterThan(0);
});

test("percentiles are by nearest rank", () => {
  const latencies = latenciesOf(Array.from({ length: 100 }, (_, i) => 100 - i));
  expect(latencies).toEqual({ count: 100, p50Ms: 50, p90Ms: 90, p99Ms: 99, maxMs: 100 });
  expect(latenciesOf([]).p99Ms).toBeNaN();
});
