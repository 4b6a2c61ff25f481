import fc from "fast-check";
import { expect, it } from "vitest";
import { Pace } from "../src/pace.ts";

const bytesPerS = 1_000_000;

/** Reads the chunks one after the other, waiting as it is told, and returns for how long by its clock. */
function read(chunks: readonly number[], options: { inHurry?: () => boolean; lateMs?: number } = {}): number {
  let nowMs = 5_000;
  const pace = new Pace({ bytesPerS, inHurry: options.inHurry }, () => nowMs);
  for (const bytes of chunks)
    for (let waitMs = pace.waitMs(bytes); waitMs > 0; waitMs = pace.waitMs(0))
      nowMs += waitMs + (options.lateMs ?? 0);
  return nowMs - 5_000;
}

it("a pace is kept over any chunks, and made up for where timers are late", () => {
  const chunks = fc.array(fc.integer({ min: 0, max: 100_000 }), { minLength: 50, maxLength: 200 });
  fc.assert(
    fc.property(chunks, fc.integer({ min: 0, max: 4 }), (sizes, lateMs) => {
      const atPaceMs = (1_000 * sizes.reduce((sum, bytes) => sum + bytes, 0)) / bytesPerS;
      const ms = read(sizes, { lateMs });
      // 50 ms of credit, and 20 that are not worth a wait.
      expect(ms).toBeGreaterThanOrEqual(atPaceMs - 71);
      expect(ms).toBeLessThanOrEqual(atPaceMs + lateMs + 1);
    }),
  );
});

it("a pace waits for nothing in a hurry, and owes nothing for it afterwards", () => {
  expect(read(Array(100).fill(100_000), { inHurry: () => true })).toBe(0);
  let asked = 0;
  const ms = read([100_000, 100_000, 10_000], { inHurry: () => ++asked <= 2 });
  expect(ms).toBeLessThanOrEqual(25);
});

it("a pace asks again during a long wait whether there is any hurry", () => {
  let asked = 0;
  const ms = read([1_000_000], { inHurry: () => ++asked > 4 });
  expect(ms).toBeLessThan(300);
});
