import { describe, expect, it } from "vitest";
import { parseCpuSeconds, parseStatus } from "../src/build/descendants.ts";
import { type Phases, phasesOf } from "../src/build/end-to-end.ts";
import { footprintOf } from "../src/build/footprint.ts";
import { buildFigure, goalRows, memoryFigure, verdictOf, writersFigure } from "../src/build/goals.ts";
import type { BuildFigures } from "../src/build/indexer.ts";
import { memoryOfBuilds } from "../src/build/memory.ts";
import { readOptions } from "../src/build/options.ts";

describe("options", () => {
  it("take both engines, sizes in order and one number of rounds", () => {
    const options = readOptions(["--sizes", "3000,1000", "--rounds", "2"]);
    expect(options).toMatchObject({
      sizes: [1000, 3000],
      engines: expect.arrayContaining(["hnsw", "hnswlib"]),
      rounds: { hnsw: 2, hnswlib: 2 },
      only: ["build", "snapshot", "writers"],
      strict: false,
    });
    expect(readOptions(["--hnswlib-rounds", "1"])?.rounds).toEqual({ hnsw: 3, hnswlib: 1 });
  });

  it("refuse what cannot be, and print help instead of running", () => {
    expect(readOptions(["--help"])).toBeUndefined();
    for (const args of [
      ["--sizes", "10"],
      ["--sizes", "1e3.5"],
      ["--engines", "annoy"],
      ["--only", "all"],
      ["--rounds", "0"],
      ["--dim", "100000"],
    ])
      expect(() => readOptions(args), args.join(" ")).toThrow(/--/);
  });
});

describe("goals", () => {
  it("depend on the faces of the list", () => {
    expect(buildFigure(100_000, "", 0.89).map(verdictOf)).toEqual(["missed"]);
    expect(buildFigure(100_000, "", 0.9).map(verdictOf)).toEqual(["met"]);
    expect(buildFigure(99_999, "", 0.7).map(verdictOf)).toEqual(["met"]);
    expect(buildFigure(20_000, "", 0.699).map(verdictOf)).toEqual(["missed"]);
    expect(buildFigure(19_999, "", 0.1)).toEqual([]);
    expect(memoryFigure(19_999, "", 9)).toEqual([]);
  });

  it("are missed above a most, and not measured is neither", () => {
    expect(memoryFigure(20_000, "", 1.3).map(verdictOf)).toEqual(["met"]);
    expect(memoryFigure(20_000, "", 1.301).map(verdictOf)).toEqual(["missed"]);
    expect(writersFigure("", -0.02).map(verdictOf)).toEqual(["met"]);
    expect(writersFigure("", Number.NaN).map(verdictOf)).toEqual(["not measured"]);
    expect(goalRows(memoryFigure(20_000, "here", undefined))[0]?.slice(1)).toEqual([
      "here",
      "≤ 1.3",
      "–",
      "not measured",
    ]);
  });
});

describe("bytes of a face", () => {
  it("are those of the files' documented parts", () => {
    // g = 4: one of 16 is on level 1, one of 256 on level 2, and so on: 64 bytes × 1 / 15.
    expect(footprintOf("hnsw", 512, 16)).toMatchObject({ vectorBytes: 2048, besidesBytes: 516 });
    expect(footprintOf("hnsw", 512, 16).graphBytes).toBeCloseTo(128 + 64 / 15 + 4, 9);
    expect(footprintOf("hnswlib", 512, 16).graphBytes).toBeCloseTo(132 + 8 + 68 / 15, 9);
  });

  it("count what pads a row beside the vector", () => {
    expect(footprintOf("hnsw", 100, 16)).toMatchObject({
      vectorBytes: 400,
      besidesBytes: 128 + 4 + 28 * 4,
    });
  });
});

describe("what the system tells of a process", () => {
  it("is its resident memory now and at its peak", () => {
    const status = "Name:\tnode\nVmPeak:\t  900 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n";
    expect(parseStatus(status)).toEqual({ residentBytes: 200 * 1024, peakBytes: 300 * 1024 });
    expect(parseStatus("Name:\tnode\nState:\tZ (zombie)\n")).toBeUndefined();
  });

  it("is its processor time, whatever its name", () => {
    const stat = "12 (a ) b) S 1 12 12 0 -1 4194304 900 0 0 0 250 50 7 7 20 0 11 0 100";
    expect(parseCpuSeconds(stat)).toBe(3);
  });
});

const mib = 2 ** 20;

function buildOf(peaks: { build: number; publish: number } | undefined): BuildFigures {
  const child = (name: "build" | "publish", peakBytes: number) => ({
    pid: 1,
    name: `${name}-child`,
    residentBytes: 0,
    peakBytes,
    cpuSeconds: 0,
    firstSeenMs: 0,
    lastSeenMs: 0,
  });
  return {
    seconds: 10,
    startSeconds: 1,
    afterBuildSeconds: 2,
    meta: { build: { phases: { snapshot: 500, build: 6_000, verify: 1_500, store: 250 } } },
    sizeBytes: 0,
    children: peaks ? [child("build", peaks.build), child("publish", peaks.publish)] : [],
    togetherBytes: 260 * mib,
  } as unknown as BuildFigures;
}

describe("a build", () => {
  it("spends on the rest what no phase names; reading runs beside inserting", () => {
    const expected: Phases = {
      total: 10_000,
      start: 1_000,
      snapshot: 500,
      build: 6_000,
      verify: 1_500,
      store: 250,
      rest: 1_250,
      afterBuild: 2_000,
    };
    expect(phasesOf(buildOf(undefined))).toEqual(expected);
  });

  const idle = { waitingBytes: 60 * mib, emptyBytes: 80 * mib };
  const small = buildOf({ build: 100 * mib, publish: 110 * mib });
  const fixed = { idle: { build: idle, publish: idle }, builds: [small] };
  const shape = { dim: 512, m: 16 };

  it("is judged by the larger of its processes above an idle one", () => {
    const builds = [220, 240, 230].map((peak) => buildOf({ build: 200 * mib, publish: peak * mib }));
    const memory = memoryOfBuilds(shape, { engine: "hnsw", faces: 50_000, builds, fixed });
    const bytes = 50_000 * (2048 + 128 + 64 / 15 + 4);
    expect(memory?.vectorsAndGraphBytes).toBeCloseTo(bytes, 3);
    expect(memory?.judged).toBeCloseTo((150 * mib) / bytes, 9);
    expect(memory?.stages.build.aboveWaiting).toBeCloseTo((140 * mib) / bytes, 9);
    expect(memory?.stages.publish.aboveSmall).toBeCloseTo((120 * mib) / bytes, 9);
    expect(memory?.togetherAboveEmpty).toBeCloseTo((180 * mib) / bytes, 9);
  });

  it("has no figures of memory where the system told none", () => {
    const builds = [buildOf(undefined)];
    expect(memoryOfBuilds(shape, { engine: "hnsw", faces: 1000, builds, fixed })).toBeUndefined();
  });
});
