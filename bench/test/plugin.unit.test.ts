import { describe, expect, it } from "vitest";
import type { Measured } from "../src/match/throughput.ts";
import { lineOf, rowOf } from "../src/plugin/line.ts";
import { readOptions } from "../src/plugin/options.ts";
import { summaryOf } from "../src/plugin/round-trips.ts";

describe("options", () => {
  it("take both parts and hand on what bench:match reads", () => {
    expect(readOptions(["--callers", "64,1", "--seconds", "3"])).toMatchObject({
      only: ["round-trips", "line"],
      sizes: [250, 500, 1_000, 2_000, 5_000, 10_000],
      match: { callers: [1, 64], seconds: 3, rounds: 3, dim: 512 },
    });
    expect(readOptions(["--quick"])).toMatchObject({ sizes: [250, 1_000], match: { rounds: 1 } });
  });

  it("refuse what cannot be, and print help instead of running", () => {
    expect(readOptions(["--help"])).toBeUndefined();
    for (const args of [
      ["--only", "reload"],
      ["--sizes", "0"],
      ["--sizes", "many"],
      ["--line-callers", "-1"],
      ["--limit", "100000"],
    ])
      expect(() => readOptions(args), args.join(" ")).toThrow(/--/);
  });
});

const path = (perS: number) => ({ perS, p50Ms: 1_000 / perS, p99Ms: 1, failed: 0, cpuUs: 1e6 / perS });
const row = (faces: number, callers: number, exact: number, index: number) =>
  rowOf(faces, callers, [{ exact: path(exact), index: path(index) }]);

describe("figures", () => {
  it("the line is where exact search is no longer at least as fast with every number of callers", () => {
    const rows = [row(100, 1, 20, 10), row(100, 16, 30, 20), row(500, 1, 12, 10), row(500, 16, 20, 20)];
    expect(lineOf(rows)).toBe(500);
    expect(lineOf([...rows, row(1_000, 1, 12, 10), row(1_000, 16, 19, 20), row(2_000, 1, 99, 1)])).toBe(500);
    expect(lineOf([row(100, 1, 9, 10)])).toBe(0);
    expect(row(100, 1, 20, 10)).toMatchObject({
      rate: { median: 2 },
      p50: { median: 0.5 },
      cpu: { median: 0.5 },
    });
  });

  it("ratios are of neighbours in time", () => {
    const of = (perS: number, total: number): Measured => ({
      ...{ perS, p50Ms: 1, p99Ms: 2, failed: 1, reasons: [] },
      cpuUs: { answering: 1, callers: 2, redis: 3, total },
    });
    const summary = summaryOf(8, [
      { plugin: of(50, 30), plain: of(100, 10) },
      { plugin: of(200, 60), plain: of(100, 20) },
      { plugin: of(80, 90), plain: of(100, 30) },
    ]);
    expect(summary).toMatchObject({
      callers: 8,
      rate: { median: 0.8 },
      cpu: { median: 3 },
      plugin: { failed: 3 },
    });
  });
});
