import { LimError } from "@lim/contracts";
import { createTask, validateDetailed } from "node-cron";

export type Schedule =
  | { kind: "period"; periodMs: number }
  | { kind: "cron"; expression: string; timeZone: string };

/** A cron string that has not come due for this long is taken to be due: the search back has to end. */
const maxLookBackMs = 400 * 24 * 3600 * 1000;

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
  if (nowMs - lastPlanMs > maxLookBackMs) return true;
  return previousOccurrence(schedule, lastPlanMs, nowMs) !== undefined;
}

/** The newest time in (afterMs, untilMs] that the cron string names, in milliseconds; whole seconds. */
export function previousOccurrence(
  schedule: { expression: string; timeZone: string },
  afterMs: number,
  untilMs: number,
): number | undefined {
  const { fields } = validateDetailed(schedule.expression);
  if (!fields) throw new LimError("bad_settings", `"${schedule.expression}" is not a cron string`);
  // Never started: only asked whether it names a moment, days and months included.
  const task = createTask(schedule.expression, () => undefined, { timezone: schedule.timeZone });
  const clock = new Intl.DateTimeFormat("en", {
    timeZone: schedule.timeZone,
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
    hourCycle: "h23",
  });
  try {
    let at = Math.floor(untilMs / 1000) * 1000;
    while (at > afterMs) {
      const [hour, minute, second] = clock
        .formatToParts(at)
        .filter((part) => part.type !== "literal")
        .map((part) => Number(part.value)) as [number, number, number];
      // Whole hours and minutes that it does not name are stepped over: a year back is 9,000 steps.
      if (!fields.hour.includes(hour)) at -= (minute * 60 + second + 1) * 1000;
      else if (!fields.minute.includes(minute)) at -= (second + 1) * 1000;
      else if (fields.second.includes(second) && task.match(new Date(at))) return at;
      else at -= 1000;
    }
    return undefined;
  } finally {
    void task.destroy();
  }
}
