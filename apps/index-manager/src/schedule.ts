import { LimError } from "@lim/contracts";
import { createTask, validateDetailed } from "node-cron";

export type Schedule =
  | { kind: "period"; periodMs: number }
  | { kind: "cron"; expression: string; timeZone: string };

/** A cron string that has not come due for this long is taken to be due, and is not looked for further ahead. */
const maxLookMs = 400 * 24 * 3600 * 1000;

/** Why `expression` is no cron string of 5 or 6 fields; undefined where it is one. */
export function cronFault(expression: string): string | undefined {
  const fields = expression.trim().split(/\s+/).length;
  if (fields !== 5 && fields !== 6) return `expected 5 or 6 cron fields, found ${fields}`;
  const { valid, errors } = validateDetailed(expression);
  if (valid) return undefined;
  return errors.map(({ field, message }) => `field ${field}: ${message}`).join("; ") || "not a cron string";
}

export function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether planning is due, by the stored time of the last plan (whoever made it) and the clock. A last plan in the
 * future means that the clock jumped back: it is due, rather than blocked until the clock has caught up.
 */
export function isPlanDue(lastPlanMs: number | undefined, nowMs: number, schedule: Schedule): boolean {
  if (lastPlanMs === undefined || lastPlanMs > nowMs) return true;
  if (schedule.kind === "period") return nowMs - lastPlanMs >= schedule.periodMs;
  if (nowMs - lastPlanMs > maxLookMs) return true;
  return previousOccurrence(schedule, lastPlanMs, nowMs) !== undefined;
}

/**
 * When the next plan is due: `nowMs` where one is due already, undefined where the cron string names no time in the
 * next 400 days. Local times that a change of the clock skips do not come that day, those that it repeats come twice.
 */
export function nextPlanMs(
  lastPlanMs: number | undefined,
  nowMs: number,
  schedule: Schedule,
): number | undefined {
  if (lastPlanMs === undefined || isPlanDue(lastPlanMs, nowMs, schedule)) return nowMs;
  if (schedule.kind === "period") return lastPlanMs + schedule.periodMs;
  return nextOccurrence(schedule, nowMs, nowMs + maxLookMs);
}

interface CronString {
  expression: string;
  timeZone: string;
}

/** The newest time in (afterMs, untilMs] that the cron string names, in milliseconds; whole seconds. */
export function previousOccurrence(schedule: CronString, afterMs: number, untilMs: number) {
  const fromMs = Math.floor(untilMs / 1000) * 1000;
  return firstOccurrence(schedule, { fromMs, direction: -1, isPast: (ms) => ms <= afterMs });
}

/** The earliest time in (afterMs, untilMs] that the cron string names, in milliseconds; whole seconds. */
export function nextOccurrence(schedule: CronString, afterMs: number, untilMs: number) {
  const fromMs = (Math.floor(afterMs / 1000) + 1) * 1000;
  return firstOccurrence(schedule, { fromMs, direction: 1, isPast: (ms) => ms > untilMs });
}

/**
 * Walks second by second, but steps over what the cron string does not name: whole minutes, hours, and most of a day
 * at once. So a year is at most some thousand steps, whatever the string.
 */
function firstOccurrence(
  { expression, timeZone }: CronString,
  walk: { fromMs: number; direction: 1 | -1; isPast: (ms: number) => boolean },
): number | undefined {
  const { fields } = validateDetailed(expression);
  if (!fields) throw new LimError("bad_settings", `"${expression}" is not a cron string`);
  const days = expression.trim().split(/\s+/).slice(-3).join(" ");
  // Never started: only asked whether they name a moment, days and months included.
  const moment = createTask(expression, () => undefined, { timezone: timeZone });
  const anyTimeOfDay = createTask(`* * * ${days}`, () => undefined, { timezone: timeZone });
  const clock = localClock(timeZone);
  const { direction, isPast } = walk;
  try {
    for (let at = walk.fromMs; !isPast(at); ) {
      const { hour, minute, second } = clock(at);
      const toMinuteEdge = direction === 1 ? 60 - second : second + 1;
      const toHourEdge = toMinuteEdge + 60 * (direction === 1 ? 59 - minute : minute);
      if (!fields.hour.includes(hour)) at += direction * toHourEdge * 1000;
      else if (!anyTimeOfDay.match(new Date(at)))
        at += direction * (toHourEdge + 3600 * hoursToSkip(hour, direction)) * 1000;
      else if (!fields.minute.includes(minute)) at += direction * toMinuteEdge * 1000;
      else if (fields.second.includes(second) && moment.match(new Date(at))) return at;
      else at += direction * 1000;
    }
    return undefined;
  } finally {
    void moment.destroy();
    void anyTimeOfDay.destroy();
  }
}

/** Whole hours to the day's end, less two: a change of the clock must not carry the walk into the next day. */
function hoursToSkip(hour: number, direction: 1 | -1): number {
  return Math.max(0, (direction === 1 ? 23 - hour : hour) - 2);
}

function localClock(timeZone: string): (ms: number) => { hour: number; minute: number; second: number } {
  const format = new Intl.DateTimeFormat("en", {
    timeZone,
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
    hourCycle: "h23",
  });
  return (ms) => {
    const [hour = 0, minute = 0, second = 0] = format
      .formatToParts(ms)
      .filter((part) => part.type !== "literal")
      .map((part) => Number(part.value));
    return { hour, minute, second };
  };
}
