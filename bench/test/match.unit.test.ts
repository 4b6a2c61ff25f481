import type { IndexMeta } from "@lim/contracts";
import { describe, expect, it } from "vitest";
import { verdictOf } from "../src/build/goals.ts";
import { metaOfCopy } from "../src/match/indexes.ts";
import { listsFor } from "../src/match/lists.ts";
import { type Options, readOptions } from "../src/match/options.ts";
import { memoryOfReloads, goalsOf as reloadGoals, slopeOf } from "../src/match/reload-figures.ts";
import type { Measured, Round } from "../src/match/throughput.ts";
import { goalsOf, summaryOf } from "../src/match/throughput-figures.ts";

describe("options", () => {
  it("take all parts, both engines and callers in order; --quick only changes what is not named", () => {
    expect(readOptions(["--callers", "64,1,8"])).toMatchObject({
      only: ["throughput", "reload", "startup"],
      engines: expect.arrayContaining(["hnsw", "hnswlib"]),
      callers: [1, 8, 64],
      faces: 20_000,
      reloads: 200,
      labels: 10,
      strict: false,
    });
    const quick = readOptions(["--quick", "--reloads", "30"]);
    expect(quick).toMatchObject({ reloads: 30, rounds: 1 });
    expect(quick?.faces).toBeLessThan(20_000);
  });

  it("refuse what cannot be, and print help instead of running", () => {
    expect(readOptions(["--help"])).toBeUndefined();
    for (const args of [
      ["--only", "refresh"],
      ["--callers", "0"],
      ["--callers", "1,100000"],
      ["--engines", "annoy"],
      ["--reload-load", "0"],
      ["--reload-load", "1.1"],
      ["--faces", "10"],
      ["--limit", "100000"],
    ])
      expect(() => readOptions(args), args.join(" ")).toThrow(/--/);
  });

  it("say which lists are needed, smallest first", () => {
    const options = readOptions([
      "--only",
      "startup,throughput",
      "--labels",
      "2",
      "--faces",
      "300",
    ]) as Options;
    expect(listsFor({ ...options, labelFaces: 200 })).toEqual([
      { part: "startup", faces: 200 },
      { part: "startup", faces: 200 },
      { part: "throughput", faces: 300 },
    ]);
  });
});

describe("figures of throughput", () => {
  const latency = { count: 100, p50Ms: 1, p90Ms: 2, p99Ms: 4, maxMs: 5 };
  const searched = (queriesPerS: number, cpuUsPerQuery: number) => ({
    callers: 1,
    answeredPerS: queriesPerS,
    failed: 0,
    latency,
    queriesPerS,
    cpuUsPerQuery,
  });
  const measured = (total: number, perS = 500): Measured => ({
    perS,
    p50Ms: 2,
    p99Ms: 8,
    failed: 1,
    reasons: ["late"],
    cpuUs: { answering: total / 2, callers: total / 4, redis: total / 4, total },
  });
  const round = (matcherUs: number, searchUs: number, echoUs: number): Round => ({
    saturated: searched(2_000, searchUs),
    byCallers: [
      {
        callers: 1,
        bare: searched(1_000, searchUs),
        plainEcho: measured(echoUs),
        streamsEcho: measured(2 * echoUs),
        matcher: measured(matcherUs),
      },
    ],
  });

  it("compare within a round what a match costs outside its search with an echo", () => {
    const summary = summaryOf([round(300, 100, 50), round(1_000, 400, 200), round(200, 100, 50)]);
    expect(summary.byCallers[0]).toMatchObject({
      outsideUs: { median: 200, min: 100, max: 600 },
      outsideToPlain: { median: 3, min: 2, max: 4 },
      outsideToStreams: { median: 1.5 },
      rateToSaturated: { median: 0.25 },
      rateToBare: { median: 0.5 },
      p99ToBare: { median: 2 },
      matcher: { failed: 3, reasons: ["late"] },
    });
    expect(goalsOf("", summary).map(verdictOf)).toEqual(["missed"]);
    expect(goalsOf("", summaryOf([round(200, 100, 50)])).map(verdictOf)).toEqual(["met"]);
  });

  it("take what the engine's threads spent for the search where the system tells it", () => {
    const told = round(300, 100, 50);
    for (const { matcher } of told.byCallers) matcher.engineUs = 220;
    expect(summaryOf([told]).byCallers[0]).toMatchObject({
      engineUs: { median: 220 },
      outsideUs: { median: 80 },
      outsideToPlain: { median: 1.6 },
    });
  });
});

describe("figures of reloads", () => {
  it("take memory from the 20th reload on for flat where it does not rise", () => {
    const rising = [...Array.from({ length: 19 }, (_, i) => i * 100), ...Array<number>(181).fill(2_000)];
    expect(memoryOfReloads(rising)).toMatchObject({ from: 20, medianBytes: 2_000, growth: 0 });
    const leaking = Array.from({ length: 200 }, (_, i) => 1_000 + i);
    expect(memoryOfReloads(leaking)).toMatchObject({ slopeBytesPerReload: expect.closeTo(1) });
    expect(memoryOfReloads(leaking)?.growth).toBeCloseTo(180 / 1_109);
    expect(memoryOfReloads([undefined, undefined, undefined])).toBeUndefined();
    expect(slopeOf([5, 3, 1])).toBeCloseTo(-2);
  });

  it("miss the goal by one failed request", () => {
    const p99Ratio = { median: 1.5, min: 1, max: 9, rounds: 4 };
    const summary = { failed: 1, p99Ratio, memory: undefined } as Parameters<typeof reloadGoals>[1];
    expect(reloadGoals("", summary).map(verdictOf)).toEqual(["missed", "met", "not measured"]);
  });
});

describe("copies of an index", () => {
  it("have no checksum of the original's meta", () => {
    const meta = { index_id: "a", label: "b", count: 3, meta_sha256: "c" } as IndexMeta;
    const create_time = "2026-11-21T00:00:00Z";
    const changes = { index_id: "d", label: "e", history_id: "f", revision: 7, create_time };
    expect(metaOfCopy(meta, changes)).toEqual({ count: 3, ...changes });
  });
});
