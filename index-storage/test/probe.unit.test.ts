import { expect, it } from "vitest";
import { recallSampleSize, samplePositions } from "../src/probe.ts";

it("recall is exact for small indexes and its sample stays a small share of a build's work above", () => {
  expect([0, 1, 2_000, 2_048].map(recallSampleSize)).toEqual([0, 1, 2_000, 2_048]);
  for (const count of [10_000, 20_000, 50_000, 1_000_000, 10_000_000]) {
    const size = recallSampleSize(count);
    expect(size / count).toBeLessThanOrEqual(0.25);
    expect(size).toBeGreaterThanOrEqual(2_048);
    expect(size).toBeLessThanOrEqual(8_192);
  }
});

it("samples live positions only, each once, spread over the whole index", () => {
  const ids = new Uint8Array(1_000 * 16).fill(7);
  for (let position = 0; position < 1_000; position += 3) ids.fill(0, position * 16, (position + 1) * 16);
  const positions = samplePositions(ids, 100);
  expect(new Set(positions).size).toBe(100);
  expect(positions.every((position) => position % 3 !== 0)).toBe(true);
  expect(Math.min(...positions)).toBeLessThan(10);
  expect(Math.max(...positions)).toBeGreaterThan(980);
  expect(samplePositions(ids, 5_000).length).toBe(666);
});
