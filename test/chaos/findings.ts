import type { Service } from "@lim/testkit";

/** One fault of a run and what it met, or anything else worth knowing beside a violation. */
export type FaultEvent = { readonly atMs: number; readonly kind: string } & Readonly<
  Record<string, string | number | null>
>;

const maxViolations = 100;
const maxEvents = 2_000;
const maxEvidenceLines = 300;

/** Everything that a run found out: rules that were broken, faults that happened, things that were counted. */
export interface Findings {
  readonly violations: readonly string[];
  /** Of very many, the last ones. */
  readonly events: readonly FaultEvent[];
  /** Checks that this machine does not allow, and why. */
  readonly skipped: Set<string>;
  violation(text: string): void;
  event(event: { kind: string } & Readonly<Record<string, string | number | null>>): void;
  count(group: string, key: string, times?: number): void;
  figures(): Record<string, Record<string, number>>;
}

export function createFindings(options: { onViolation?: () => void } = {}): Findings {
  const startMs = performance.now();
  const violations: string[] = [];
  const events: FaultEvent[] = [];
  const groups = new Map<string, Map<string, number>>();
  const event: Findings["event"] = (one) => {
    events.push({ atMs: Math.round(performance.now() - startMs), ...one });
    if (events.length > maxEvents) events.splice(0, events.length - maxEvents);
  };
  return {
    violations,
    events,
    skipped: new Set(),
    violation(text) {
      if (violations.length < maxViolations) violations.push(text);
      event({ kind: "VIOLATION", text });
      options.onViolation?.();
    },
    event,
    count(group, key, times = 1) {
      const counts = groups.get(group) ?? new Map<string, number>();
      groups.set(group, counts.set(key, (counts.get(key) ?? 0) + times));
    },
    figures: () =>
      Object.fromEntries(
        [...groups].map(([group, counts]) => [
          group,
          Object.fromEntries([...counts].toSorted(([a], [b]) => a.localeCompare(b))),
        ]),
      ),
  };
}

/** What services logged of the ids that the texts name. */
export function evidenceOf(
  services: readonly Pick<Service, "name" | "process">[],
  texts: readonly string[],
): string[] {
  const ids = new Set(
    texts.flatMap((text) => text.match(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g) ?? []),
  );
  if (ids.size === 0) return [];
  return services
    .flatMap(({ name, process }) =>
      process.lines
        .filter((line) => [...ids].some((id) => line.includes(id)))
        .map((line) => `${name} ${line}`),
    )
    .slice(0, maxEvidenceLines);
}

/** The last that a service wrote. */
export function lastWords({ process }: Pick<Service, "process">, lines = 3): string {
  return process.lines
    .slice(-lines)
    .join(" | ")
    .slice(0, lines * 500);
}

export function textOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
