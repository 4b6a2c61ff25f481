import { expect, it } from "vitest";
import { createSnapshotPacer } from "../src/pace.ts";

it("a snapshot is read in a hurry while less waits than one call and a quarter of a second of the engine", () => {
  let nowMs = 0;
  const pacer = createSnapshotPacer({ bytesPerS: 1e6, nowMs: () => nowMs });
  const inHurry = () => pacer.pace?.inHurry?.();
  expect(inHurry()).toBe(true);
  pacer.read(4_095);
  expect(inHurry()).toBe(true);
  pacer.read(4_096);
  expect(inHurry()).toBe(false);
  nowMs = 100;
  // 10 rows a millisecond: 2,500 in a quarter of a second.
  pacer.inserted(1_000);
  expect(inHurry()).toBe(true);
  pacer.read(1_000 + 4_096 + 2_499);
  expect(inHurry()).toBe(true);
  pacer.read(1_000 + 4_096 + 2_500);
  expect(inHurry()).toBe(false);
  nowMs = 200;
  pacer.inserted(6_000);
  expect(inHurry()).toBe(true);
});

it("no limit is no pace", () => {
  for (const bytesPerS of [0, undefined])
    expect(createSnapshotPacer({ bytesPerS, nowMs: () => 0 }).pace).toBeUndefined();
});
