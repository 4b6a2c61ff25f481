import {
  type BuildRequest,
  defaults,
  indexerStateSchema,
  isLimError,
  LimError,
  limits,
  maxReportedOutcomes,
} from "@lim/contracts";
import { describe, expect, it } from "vitest";
import type { BuildEnd } from "../src/build-process.ts";
import { type BuildSummary, createIndexer } from "../src/indexer.ts";

const uuid = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const request = (over: Partial<BuildRequest> = {}): BuildRequest => ({
  task_id: uuid(1),
  list_id: uuid(2),
  attempt: 1,
  epoch: 10,
  mode: "rebuild",
  engine: defaults.engine,
  params: { m: 16, ef_construction: 200 },
  descriptor_version: 1,
  dim: 64,
  ...over,
});
const noneSkipped = { wrong_length: 0, not_finite: 0, zero_norm: 0 };
const published: BuildEnd = {
  report: { type: "published", count: 5, revision: 7, sizeBytes: 100, skipped: noneSkipped, phases: {} },
  error: undefined,
  peakResidentBytes: 0,
};
const failed = (error: LimError): BuildEnd => ({ report: undefined, error, peakResidentBytes: 0 });

function setUp() {
  const started: { request: BuildRequest; end: (end: BuildEnd) => void; cancels: number }[] = [];
  const summaries: BuildSummary[] = [];
  const indexer = createIndexer({
    bootId: uuid(9),
    now: () => new Date("2026-01-01T00:00:00Z"),
    afterBuild: async (_request, end) => end,
    onEnd: (summary) => summaries.push(summary),
    startBuild(of) {
      const { promise, resolve } = Promise.withResolvers<BuildEnd>();
      const build = { request: of, end: resolve, cancels: 0 };
      started.push(build);
      return { progress: () => null, ended: promise, cancel: () => void build.cancels++ };
    },
  });
  const finish = async (end: BuildEnd = published) => {
    started.at(-1)?.end(end);
    const before = summaries.length;
    while (summaries.length === before) await new Promise(setImmediate);
  };
  return { indexer, started, summaries, finish };
}

function refusalOf(call: () => void): string {
  try {
    call();
  } catch (error) {
    if (isLimError(error)) return error.errorName;
    throw error;
  }
  return "accepted";
}

describe("the indexer's state", () => {
  it("goes from idle to building and back, and reports the outcome", async () => {
    const { indexer, finish } = setUp();
    expect(indexer.state()).toMatchObject({ state: "idle", task_id: null, outcomes: [] });
    indexer.submit(request());
    const building = indexer.state();
    expect(building).toMatchObject({ state: "building", task_id: uuid(1), attempt: 1, mode: "rebuild" });
    expect(indexerStateSchema.parse(building)).toEqual(building);
    await finish();
    const idle = indexer.state();
    expect(idle).toMatchObject({ state: "idle", task_id: null, start_time: null });
    expect(idle.outcomes).toEqual([
      {
        task_id: uuid(1),
        list_id: uuid(2),
        attempt: 1,
        status: "success",
        error: null,
        end_time: "2026-01-01T00:00:00.000Z",
        skipped: noneSkipped,
      },
    ]);
  });

  it("I3 refuses a second build while one runs", () => {
    const { indexer, started } = setUp();
    indexer.submit(request());
    expect(refusalOf(() => indexer.submit(request({ task_id: uuid(5) })))).toBe("indexer_busy");
    expect(refusalOf(() => indexer.submit(request({ attempt: 2 })))).toBe("indexer_busy");
    expect(started).toHaveLength(1);
  });

  it("I3 takes the same attempt twice without building twice, also after it has ended", async () => {
    const { indexer, started, finish } = setUp();
    indexer.submit(request());
    expect(refusalOf(() => indexer.submit(request({ epoch: 11 })))).toBe("accepted");
    await finish();
    expect(refusalOf(() => indexer.submit(request({ epoch: 11 })))).toBe("accepted");
    expect(started).toHaveLength(1);
    expect(indexer.state().state).toBe("idle");
  });

  it("I4 refuses a lower epoch than the highest seen, by build or by stop", async () => {
    const { indexer, started, finish } = setUp();
    indexer.submit(request({ epoch: 10 }));
    expect(refusalOf(() => indexer.stop({ task_id: uuid(1), attempt: 1, epoch: 9 }))).toBe("fenced");
    expect(refusalOf(() => indexer.stop({ task_id: uuid(7), attempt: 1, epoch: 12 }))).toBe("not_found");
    await finish();
    expect(refusalOf(() => indexer.submit(request({ task_id: uuid(5), epoch: 11 })))).toBe("fenced");
    expect(refusalOf(() => indexer.submit(request({ task_id: uuid(5), epoch: 12 })))).toBe("accepted");
    expect(started[0]?.cancels).toBe(0);
  });

  it("I4 refuses an attempt older than one seen", async () => {
    const { indexer, finish } = setUp();
    indexer.submit(request({ attempt: 2 }));
    expect(refusalOf(() => indexer.submit(request({ attempt: 1 })))).toBe("fenced");
    await finish();
    expect(refusalOf(() => indexer.submit(request({ attempt: 1 })))).toBe("fenced");
    expect(refusalOf(() => indexer.submit(request({ attempt: 3 })))).toBe("accepted");
  });

  it("stops only the task and attempt named", () => {
    const { indexer, started } = setUp();
    indexer.submit(request());
    expect(refusalOf(() => indexer.stop({ task_id: uuid(1), attempt: 2, epoch: 10 }))).toBe("not_found");
    expect(refusalOf(() => indexer.stop({ task_id: uuid(3), attempt: 1, epoch: 10 }))).toBe("not_found");
    expect(started[0]?.cancels).toBe(0);
    indexer.stop({ task_id: uuid(1), attempt: 1, epoch: 10 });
    expect(started[0]?.cancels).toBe(1);
  });

  it("I10 keeps a bounded number of outcomes, newest first, with bounded texts", async () => {
    const { indexer, finish } = setUp();
    for (let n = 0; n < maxReportedOutcomes + 3; n++) {
      indexer.submit(request({ task_id: uuid(100 + n) }));
      await finish(failed(new LimError("build_crashed", "x".repeat(10_000))));
    }
    const { outcomes } = indexer.state();
    expect(outcomes).toHaveLength(maxReportedOutcomes);
    expect(outcomes[0]?.task_id).toBe(uuid(100 + maxReportedOutcomes + 2));
    expect(outcomes[0]?.error?.error_code).toBe(26104);
    expect(outcomes[0]?.error?.detail.length).toBe(limits.maxErrorDetailChars);
  });

  it("drains: takes no build, lets the running one finish", async () => {
    const { indexer, started, finish } = setUp();
    indexer.submit(request());
    const drained = indexer.drain({ timeoutMs: 60_000 });
    expect(indexer.state()).toMatchObject({ state: "draining", task_id: uuid(1) });
    expect(refusalOf(() => indexer.submit(request({ task_id: uuid(5) })))).toBe("indexer_busy");
    await finish();
    await drained;
    expect(started[0]?.cancels).toBe(0);
    expect(refusalOf(() => indexer.submit(request({ task_id: uuid(5) })))).toBe("indexer_busy");
  });

  it("drains: cancels what outlives the timeout", async () => {
    const { indexer, started, finish } = setUp();
    indexer.submit(request());
    const drained = indexer.drain({ timeoutMs: 1 });
    while (started[0]?.cancels === 0) await new Promise(setImmediate);
    await finish(failed(new LimError("build_cancelled", "drain")));
    await drained;
    expect(indexer.state().outcomes[0]?.error?.error_code).toBe(26106);
  });
});
