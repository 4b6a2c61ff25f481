import { buildPhases, type Progress, progressSchema } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createProgressMeter } from "../src/progress.ts";

function meterAt(minIntervalMs = 0) {
  const clock = { nowMs: 0 };
  const heard: Progress[] = [];
  const meter = createProgressMeter({
    nowMs: () => clock.nowMs,
    emit: (progress) => heard.push(progress),
    minIntervalMs,
  });
  return { clock, heard, meter };
}

describe("progress", () => {
  it("tells rate and remaining time from what was done in the last seconds", () => {
    const { clock, heard, meter } = meterAt();
    meter.report("build", 0, 1000);
    clock.nowMs = 2000;
    meter.report("build", 200, 1000);
    expect(heard.at(-1)).toEqual({ phase: "build", done: 200, total: 1000, rate_per_s: 100, eta_s: 8 });
  });

  it("forgets how fast it once was", () => {
    const { clock, heard, meter } = meterAt();
    meter.report("build", 0, 100_000);
    for (let second = 1; second <= 60; second++) {
      clock.nowMs = second * 1000;
      meter.report("build", second <= 10 ? second * 1000 : 10_000 + (second - 10) * 100, 100_000);
    }
    expect(heard.at(-1)?.rate_per_s).toBeCloseTo(100, -1);
  });

  it("has no rate where none is known, and none of the phase before", () => {
    const { clock, heard, meter } = meterAt();
    meter.report("snapshot", 5, 5);
    clock.nowMs = 1000;
    meter.report("build", 3, 5);
    expect(heard.at(-1)).toMatchObject({ phase: "build", rate_per_s: null, eta_s: null });
  });

  it("is throttled, but never on a new phase or on completion", () => {
    const { clock, heard, meter } = meterAt(200);
    meter.report("build", 0, 100);
    for (let done = 1; done < 100; done++) {
      clock.nowMs += 10;
      meter.report("build", done, 100);
    }
    expect(heard.length).toBeLessThanOrEqual(6);
    meter.report("build", 100, 100);
    expect(heard.at(-1)?.done).toBe(100);
    meter.report("verify", 0, 100);
    expect(heard.at(-1)?.phase).toBe("verify");
  });

  it("never goes back, whatever is reported, and always fits the contract", () => {
    const reports = fc.array(
      fc.record({
        phase: fc.constantFrom(...buildPhases),
        done: fc.nat(1000),
        total: fc.nat(1000),
        afterMs: fc.nat(5000),
      }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(reports, (steps) => {
        const { clock, heard, meter } = meterAt();
        for (const step of steps) {
          clock.nowMs += step.afterMs;
          meter.report(step.phase, step.done, step.total);
        }
        const rank = (p: Progress) => buildPhases.indexOf(p.phase) * 10_000 + p.done;
        for (const [i, progress] of heard.entries()) {
          expect(progressSchema.safeParse(progress).success).toBe(true);
          expect(progress.done).toBeLessThanOrEqual(progress.total);
          const before = heard[i - 1];
          if (before) expect(rank(progress)).toBeGreaterThanOrEqual(rank(before));
        }
      }),
    );
  });
});
