import { expect, test } from "vitest";
import { timeOf } from "../src/times.ts";

const nowMs = Date.parse("2026-11-21T10:00:00Z");

test.each([
  ["2026-11-20", "2026-11-20T00:00:00.000Z"],
  ["2026-11-20T08:30Z", "2026-11-20T08:30:00.000Z"],
  ["2026-11-20T08:30:15.5+02:00", "2026-11-20T06:30:15.500Z"],
  ["90s", "2026-11-21T09:58:30.000Z"],
  ["90m", "2026-11-21T08:30:00.000Z"],
  ["36h", "2026-11-19T22:00:00.000Z"],
  ["7d", "2026-11-14T10:00:00.000Z"],
])("%s is %s", (text, expected) => {
  expect(timeOf(text, nowMs)).toBe(expected);
});

test.each(["", "yesterday", "2026-13-01", "2026-11-20T08:30", "5", "-5m", "5w", "1.5h", "999999999d"])(
  'refused with the ways to write it: "%s"',
  (text) => {
    expect(() => timeOf(text, nowMs)).toThrow(/write 2026-11-21/);
  },
);
