import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cronFault, isPlanDue, isTimeZone, previousOccurrence, type Schedule } from "../src/schedule.ts";

const at = (text: string) => Date.parse(text);
const daily: Schedule = { kind: "cron", expression: "0 3 * * *", timeZone: "UTC" };
const hourMs = 3_600_000;

describe("isPlanDue", () => {
  it("is due without a last plan, and after a clock that jumped back", () => {
    expect(isPlanDue(undefined, 0, daily)).toBe(true);
    expect(isPlanDue(5_000, 1_000, { kind: "period", periodMs: hourMs })).toBe(true);
  });

  it("by period: due exactly when the period has passed, whoever planned last", () => {
    fc.assert(
      fc.property(fc.nat(1e9), fc.nat(1e7), fc.integer({ min: 1, max: 1e7 }), (last, passed, periodMs) => {
        expect(isPlanDue(last, last + passed, { kind: "period", periodMs })).toBe(passed >= periodMs);
      }),
    );
  });

  it("by cron: due when a time named by it has come since the last plan", () => {
    expect(isPlanDue(at("2026-11-20T03:00:00Z"), at("2026-11-21T02:59:59Z"), daily)).toBe(false);
    expect(isPlanDue(at("2026-11-20T03:00:00Z"), at("2026-11-21T03:00:00Z"), daily)).toBe(true);
    expect(isPlanDue(at("2026-11-20T02:59:59Z"), at("2026-11-20T03:00:00.900Z"), daily)).toBe(true);
  });

  it("by cron: six fields, days of the week, months, the last day", () => {
    const previous = (expression: string, now: string, timeZone = "UTC") => {
      const found = previousOccurrence({ expression, timeZone }, at(now) - 370 * 24 * hourMs, at(now));
      return found === undefined ? undefined : new Date(found).toISOString();
    };
    expect(previous("*/10 * * * * *", "2026-11-21T10:00:19Z")).toBe("2026-11-21T10:00:10.000Z");
    expect(previous("30 4 * * 1", "2026-11-21T10:00:00Z")).toBe("2026-11-16T04:30:00.000Z");
    expect(previous("0 0 1 2 *", "2026-11-21T10:00:00Z")).toBe("2026-02-01T00:00:00.000Z");
    expect(previous("0 0 L * *", "2026-11-21T10:00:00Z")).toBe("2026-10-31T00:00:00.000Z");
    expect(previous("0 0 29 2 *", "2026-11-21T10:00:00Z")).toBeUndefined();
    expect(previous("15 8 * * *", "2026-07-01T10:00:00Z", "Europe/Berlin")).toBe("2026-07-01T06:15:00.000Z");
    expect(previous("15 8 * * *", "2026-01-05T10:00:00Z", "Europe/Berlin")).toBe("2026-01-05T07:15:00.000Z");
  });

  it("by cron: agrees with a search second by second, across both changes of the clock", () => {
    const starts = [at("2026-03-29T00:00:00Z"), at("2026-10-25T00:00:00Z"), at("2026-06-01T00:00:00Z")];
    const expressions = ["*/7 * * * *", "13 1,2,3 * * *", "5,35 4 * * *", "20 30 */2 * * *"];
    fc.assert(
      fc.property(
        fc.constantFrom(...starts),
        fc.nat(4 * 3600),
        fc.nat(3600),
        fc.constantFrom(...expressions),
        (start, offsetS, spanS, expression) => {
          const schedule = { expression, timeZone: "Europe/Berlin" };
          const untilMs = start + (offsetS + spanS) * 1000;
          const fast = previousOccurrence(schedule, start + offsetS * 1000, untilMs);
          let slow: number | undefined;
          for (let ms = untilMs; ms > start + offsetS * 1000 && slow === undefined; ms -= 1000)
            slow = previousOccurrence(schedule, ms - 1000, ms);
          expect(fast).toBe(slow);
        },
      ),
      { numRuns: 6 },
    );
  });
});

describe("schedule settings", () => {
  it("names the field of a bad cron string", () => {
    expect(cronFault("0 3 * * *")).toBeUndefined();
    expect(cronFault("0 0 3 * * *")).toBeUndefined();
    expect(cronFault("61 3 * * *")).toMatch(/minute/);
    expect(cronFault("0 0 30 2 *")).toBeDefined();
    expect(cronFault("@daily")).toMatch(/5 or 6/);
    expect(cronFault("")).toMatch(/5 or 6/);
  });
  it("knows time zones", () => {
    expect(isTimeZone("Europe/Berlin")).toBe(true);
    expect(isTimeZone("Mars/Olympus")).toBe(false);
  });
});
