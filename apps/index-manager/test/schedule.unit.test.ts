import fc from "fast-check";
import { createTask } from "node-cron";
import { describe, expect, it } from "vitest";
import {
  cronFault,
  isPlanDue,
  isTimeZone,
  nextOccurrence,
  nextPlanMs,
  previousOccurrence,
  type Schedule,
} from "../src/schedule.ts";

const at = (text: string) => Date.parse(text);
const daily = { kind: "cron" as const, expression: "0 3 * * *", timeZone: "UTC" };
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
});

/** Whether the cron string names the moment, as its library says; the walk must find exactly these. */
function moments(expression: string, timeZone: string, fromMs: number, untilMs: number): number[] {
  const task = createTask(expression, () => undefined, { timezone: timeZone });
  const found: number[] = [];
  for (let ms = fromMs; ms <= untilMs; ms += 1000) if (task.match(new Date(ms))) found.push(ms);
  void task.destroy();
  return found;
}

describe("occurrences", () => {
  const starts = ["2026-03-28T23:00:00Z", "2026-10-24T23:00:00Z", "2026-06-30T20:00:00Z"].map(at);
  const zones = ["Europe/Berlin", "UTC", "Australia/Lord_Howe"];

  it("forwards and backwards agree with a search second by second, across both changes of the clock", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...starts),
        fc.constantFrom(...zones),
        fc.nat(6 * 3600),
        fc.nat(3600),
        fc.constantFrom("*/7 * * * *", "13 1,2,3 * * *", "5,35 4 * * *", "20 30 */2 * * *", "0 0 L * *"),
        (start, timeZone, offsetS, spanS, expression) => {
          const schedule = { expression, timeZone };
          const [fromMs, untilMs] = [start + offsetS * 1000, start + (offsetS + spanS) * 1000];
          const all = moments(expression, timeZone, fromMs + 1000, untilMs);
          expect(nextOccurrence(schedule, fromMs, untilMs)).toBe(all[0]);
          expect(previousOccurrence(schedule, fromMs, untilMs)).toBe(all.at(-1));
        },
      ),
      { numRuns: 40 },
    );
  });

  it.each<[string, string, string, string | undefined, string?]>([
    ["a step", "*/10 * * * * *", "2026-11-21T10:00:19Z", "2026-11-21T10:00:20.000Z"],
    [
      "a whole second is past once it is there",
      "0 3 * * *",
      "2026-11-21T03:00:00Z",
      "2026-11-22T03:00:00.000Z",
    ],
    ["lists and ranges", "0 8-10,20 * * *", "2026-11-21T10:30:00Z", "2026-11-21T20:00:00.000Z"],
    ["names of days", "30 4 * * mon-wed", "2026-11-21T10:00:00Z", "2026-11-23T04:30:00.000Z"],
    ["Sunday as 7", "0 0 * * 7", "2026-11-21T10:00:00Z", "2026-11-22T00:00:00.000Z"],
    ["names of months", "0 0 1 feb,aug *", "2026-11-21T10:00:00Z", "2027-02-01T00:00:00.000Z"],
    ["the last day of a month", "0 0 L * *", "2027-02-01T00:00:00Z", "2027-02-28T00:00:00.000Z"],
    ["the last Friday", "0 0 12 * * 5L", "2026-11-21T10:00:00Z", "2026-11-27T12:00:00.000Z"],
    ["day of month and of week together", "0 0 13 * 5", "2026-11-21T10:00:00Z", "2027-08-13T00:00:00.000Z"],
    ["every second of a far day", "* * * 1 11 *", "2026-11-21T10:00:00Z", "2027-11-01T00:00:00.000Z"],
    ["a leap day within reach", "0 0 29 2 *", "2027-03-01T00:00:00Z", "2028-02-29T00:00:00.000Z"],
    ["no leap day in the next 400 days", "0 0 29 2 *", "2026-11-21T10:00:00Z", undefined],
    [
      "spring: clocks go forward over the night",
      "15 8 * * *",
      "2026-03-28T08:00:00Z",
      "2026-03-29T06:15:00.000Z",
      "Europe/Berlin",
    ],
    [
      "spring: a time that is skipped comes a day later",
      "30 2 * * *",
      "2026-03-28T03:00:00Z",
      "2026-03-30T00:30:00.000Z",
      "Europe/Berlin",
    ],
    [
      "autumn: clocks go back over the night",
      "15 8 * * *",
      "2026-10-24T08:00:00Z",
      "2026-10-25T07:15:00.000Z",
      "Europe/Berlin",
    ],
    [
      "autumn: a repeated time comes",
      "30 2 * * *",
      "2026-10-24T20:00:00Z",
      "2026-10-25T00:30:00.000Z",
      "Europe/Berlin",
    ],
    [
      "autumn: and comes again",
      "30 2 * * *",
      "2026-10-25T00:30:00Z",
      "2026-10-25T01:30:00.000Z",
      "Europe/Berlin",
    ],
  ])("next: %s", (_name, expression, now, expected, timeZone = "UTC") => {
    const found = nextOccurrence({ expression, timeZone }, at(now), at(now) + 400 * 24 * hourMs);
    expect(found === undefined ? undefined : new Date(found).toISOString()).toBe(expected);
  });
});

describe("nextPlanMs", () => {
  const now = at("2026-11-21T10:00:00Z");

  it("is now where a plan is due: none yet, overdue, or a clock that jumped back", () => {
    for (const schedule of [daily, { kind: "period", periodMs: hourMs } as const])
      for (const last of [undefined, now - 25 * hourMs, now + 1])
        expect(nextPlanMs(last, now, schedule)).toBe(now);
  });
  it("by period: a period after the last plan", () => {
    expect(nextPlanMs(now - 1_000, now, { kind: "period", periodMs: hourMs })).toBe(now - 1_000 + hourMs);
  });
  it("by cron: the next time that it names, or none", () => {
    expect(nextPlanMs(now - hourMs, now, daily)).toBe(at("2026-11-22T03:00:00Z"));
    expect(nextPlanMs(now - hourMs, now, { ...daily, expression: "0 0 29 2 *" })).toBeUndefined();
  });
  it("a plan is due at the time that was foretold, and not a second before", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: at("2026-03-28T00:00:00Z"), max: at("2026-03-30T00:00:00Z") }),
        fc.nat(2 * hourMs),
        fc.constantFrom<Schedule>(
          { kind: "period", periodMs: 90 * 60_000 },
          { kind: "cron", expression: "*/20 1-5 * * *", timeZone: "Europe/Berlin" },
          { kind: "cron", expression: "7 30 2 * * *", timeZone: "Europe/Berlin" },
        ),
        (last, passed, schedule) => {
          const nowMs = last + passed;
          const next = nextPlanMs(last, nowMs, schedule) ?? Number.NaN;
          expect(isPlanDue(last, next, schedule)).toBe(true);
          if (next > nowMs) expect(isPlanDue(last, Math.max(nowMs, next - 1_000), schedule)).toBe(false);
        },
      ),
      { numRuns: 60 },
    );
  });
  it("I10: the rarest string costs a bounded number of steps", () => {
    const asked = { calls: 0 };
    const format = Intl.DateTimeFormat.prototype.formatToParts;
    Intl.DateTimeFormat.prototype.formatToParts = function (...args) {
      asked.calls++;
      return format.apply(this, args);
    };
    try {
      const rare = { expression: "* * * 29 2 *", timeZone: "Europe/Berlin" };
      expect(nextOccurrence(rare, now, now + 400 * 24 * hourMs)).toBeUndefined();
    } finally {
      Intl.DateTimeFormat.prototype.formatToParts = format;
    }
    expect(asked.calls).toBeGreaterThan(400);
    expect(asked.calls).toBeLessThan(5_000);
  });
});

describe("schedule settings", () => {
  it("names the field of a bad cron string", () => {
    expect(cronFault("0 3 * * *")).toBeUndefined();
    expect(cronFault("0 0 3 * * *")).toBeUndefined();
    expect(cronFault("61 3 * * *")).toMatch(/field minute/);
    expect(cronFault("60 0 3 * * *")).toMatch(/field second/);
    expect(cronFault("0 24 * * *")).toMatch(/field hour/);
    expect(cronFault("0 0 32 * *")).toMatch(/field dayOfMonth/);
    expect(cronFault("0 0 * foo *")).toMatch(/field month/);
    expect(cronFault("0 0 * * 8")).toMatch(/field dayOfWeek/);
    expect(cronFault("*/0 * * * *")).toMatch(/field minute/);
    expect(cronFault("0 0 30 2 *")).toBeDefined();
    expect(cronFault("@daily")).toMatch(/5 or 6/);
    expect(cronFault("")).toMatch(/5 or 6/);
  });
  it("knows time zones", () => {
    expect(isTimeZone("Europe/Berlin")).toBe(true);
    expect(isTimeZone("Mars/Olympus")).toBe(false);
  });
});
