import type { LabelLock } from "@lim/coordination";
import { Registry } from "@lim/service-kit";
import { expect, test } from "vitest";
import { countedLocks } from "../src/metrics.ts";

test("locks are counted as they are taken, busy, held and lost", async () => {
  const registry = new Registry();
  const lost = new AbortController();
  const granted: (LabelLock | undefined)[] = [
    { signal: new AbortController().signal, release: async () => {} },
    { signal: lost.signal, release: async () => {} },
    undefined,
  ];
  const locks = countedLocks(registry, { tryAcquire: async () => granted.shift() });
  const [first, second, busy] = [
    await locks.tryAcquire("a", { ttlMs: 1 }),
    await locks.tryAcquire("b", { ttlMs: 1 }),
    await locks.tryAcquire("b", { ttlMs: 1 }),
  ];
  expect(busy).toBeUndefined();
  expect(await registry.getSingleMetricAsString("lim_matcher_label_locks_held")).toMatch(/ 2$/);
  lost.abort();
  await Promise.all([first?.release(), second?.release()]);
  const text = await registry.metrics();
  for (const line of ['{event="acquired"} 2', '{event="busy"} 1', '{event="lost"} 1'])
    expect(text).toContain(`lim_matcher_label_locks_total${line}`);
  expect(text).toMatch(/^lim_matcher_label_locks_held 0$/m);
});
