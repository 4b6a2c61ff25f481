import { LimError, parseRedisUrl, redisPlace } from "@lim/contracts";

export const statuses = ["ok", "warn", "fail", "skip"] as const;
export type Status = (typeof statuses)[number];

/** One thing that was looked at. `remedy` says what to do; ok and skip have none. */
export interface Finding {
  /** Stable name for programs, like `redis.policy`. */
  check: string;
  status: Status;
  text: string;
  remedy: string | null;
}

export const ok = (check: string, text: string): Finding => ({ check, status: "ok", text, remedy: null });
export const skip = (check: string, text: string): Finding => ({ check, status: "skip", text, remedy: null });
export const warn = (check: string, text: string, remedy: string): Finding => ({
  check,
  status: "warn",
  text,
  remedy,
});
export const fail = (check: string, text: string, remedy: string): Finding => ({
  check,
  status: "fail",
  text,
  remedy,
});

export interface DoctorReport {
  report_version: 1;
  time: string;
  findings: Finding[];
  summary: Record<Status, number>;
  duration_ms: number;
  exit_code: number;
}

export function summaryOf(findings: readonly Finding[]): Record<Status, number> {
  const count = (status: Status) => findings.filter((finding) => finding.status === status).length;
  return { ok: count("ok"), warn: count("warn"), fail: count("fail"), skip: count("skip") };
}

/** The findings of `probe`, or one failure where it throws or takes longer than `limitMs`. Never throws. */
export async function within(
  limitMs: number,
  probe: { check: string; subject?: string; remedy: string; run: () => Promise<Finding[]> },
): Promise<Finding[]> {
  const subject = probe.subject === undefined ? "" : `${probe.subject}: `;
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<Finding[]>((resolve) => {
    timer = setTimeout(
      () => resolve([fail(probe.check, `${subject}no answer within ${limitMs / 1000} s`, probe.remedy)]),
      limitMs,
    );
  });
  const findings = probe
    .run()
    .catch((thrown: unknown) => [fail(probe.check, reasonOf(thrown), probe.remedy)]);
  try {
    return await Promise.race([findings, limit]);
  } finally {
    clearTimeout(timer);
  }
}

export function reasonOf(thrown: unknown): string {
  if (thrown instanceof LimError) return thrown.detail;
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** A URL's hosts, ports and path: never its user and password, nor what does not read as a URL. */
export function placeOf(text: string): string {
  if (/^rediss?[-:]/.test(text))
    try {
      return redisPlace(parseRedisUrl(text));
    } catch {
      return "(not a Redis URL)";
    }
  if (!URL.canParse(text)) return "(not a URL)";
  const { protocol, host, pathname } = new URL(text);
  return `${protocol}//${host}${pathname === "/" ? "" : pathname}`;
}

/** Cuts the passwords of URLs, and other secrets, out of every text. */
export function withoutSecrets(
  findings: readonly Finding[],
  urls: readonly (string | undefined)[],
  others: readonly (string | undefined)[],
): Finding[] {
  const secrets = new Set([...urls.flatMap(passwordsOf), ...others]);
  const longestFirst = [...secrets]
    .filter((secret): secret is string => secret !== undefined && secret.length > 2)
    .toSorted((a, b) => b.length - a.length);
  const clean = (text: string) => longestFirst.reduce((t, secret) => t.replaceAll(secret, "***"), text);
  return findings.map((finding) => ({
    ...finding,
    text: clean(finding.text),
    remedy: finding.remedy === null ? null : clean(finding.remedy),
  }));
}

/** As written and decoded: between the first colon and the last @, and in options. */
function passwordsOf(url = ""): string[] {
  const written = [
    /^[^:]+:\/\/[^:@/]*:(.*)@/.exec(url)?.[1],
    ...[...url.matchAll(/[?&]\w*password=([^&]*)/g)].map((match) => match[1]),
  ].filter((text) => text !== undefined);
  return written.flatMap((text) => {
    try {
      return [text, decodeURIComponent(text)];
    } catch {
      // Not percent-encoded.
      return [text];
    }
  });
}

const units = ["bytes", "KiB", "MiB", "GiB", "TiB"] as const;
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
