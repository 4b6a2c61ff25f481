/** One fault of a run, and what it met. */
export interface FaultEvent {
  atMs: number;
  indexer: string;
  kind: string;
  /** Phase of the build that it met, by the indexer's own word. */
  phase: string;
  taskId: string | null;
}

const maxViolations = 100;
const maxEvents = 2_000;

/** Everything that a run found out: rules that were broken, faults that happened, things that were counted. */
export interface Findings {
  readonly violations: readonly string[];
  readonly events: readonly FaultEvent[];
  /** Checks that this machine does not allow, and why. */
  readonly skipped: Set<string>;
  violation(text: string): void;
  event(event: Omit<FaultEvent, "atMs">): void;
  count(group: string, key: string): void;
  figures(): Record<string, Record<string, number>>;
}

export function createFindings(): Findings {
  const startMs = performance.now();
  const violations: string[] = [];
  const events: FaultEvent[] = [];
  const groups = new Map<string, Map<string, number>>();
  return {
    violations,
    events,
    skipped: new Set(),
    violation(text) {
      if (violations.length < maxViolations) violations.push(text);
    },
    event(event) {
      if (events.length < maxEvents) events.push({ atMs: Math.round(performance.now() - startMs), ...event });
    },
    count(group, key) {
      const counts = groups.get(group) ?? new Map<string, number>();
      groups.set(group, counts.set(key, (counts.get(key) ?? 0) + 1));
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

export function textOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
