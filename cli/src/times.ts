import { LimError } from "@lim/contracts";

const unitsMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** RFC 3339 in UTC, of a time or date (a date is its first moment in UTC), or of a span before now like `90m`. */
export function timeOf(text: string, nowMs: number): string {
  const span = /^(\d{1,9})([smhd])$/.exec(text);
  const unit = span?.[2] as keyof typeof unitsMs | undefined;
  const full = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/i.test(text);
  const ms =
    unit === undefined ? (full ? Date.parse(text) : Number.NaN) : nowMs - Number(span?.[1]) * unitsMs[unit];
  const time = new Date(ms);
  if (Number.isNaN(time.getTime()) || time.getTime() < 0)
    throw new LimError(
      "bad_input",
      `"${text}" is no time: write 2026-11-21, 2026-11-21T10:00:00Z, or a span before now like 90m or 7d`,
    );
  return time.toISOString();
}
