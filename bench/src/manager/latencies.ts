import type { Caller } from "./caller.ts";
import { type Case, filterCases, queueCases } from "./cases.ts";
import type { History } from "./history.ts";
import { createRandom, shuffle } from "./random.ts";

export interface LatencyRow {
  name: string;
  /** Requests measured, and tasks in the answer. */
  n: number;
  found: number | null;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  /** Processor time of one request in the manager and Redis: what neighbours on the machine do not change much. */
  cpuMs: number;
  /** Of its 99th percentile to that of the baseline in the same run. */
  p99Ratio: number;
}

const baseline: Case = { name: "livez (baseline)", path: "/livez" };
/** Requests of one kind in a row, before those that are timed: they warm up and tell the processor time. */
const cpuRequests = 20;

/** One caller, every case `requests` times in random order, so that all of them meet the same neighbours. */
export async function measureLatencies(
  caller: Caller,
  history: History,
  options: { requests: number; seed: number; cpuSeconds: () => Promise<number> },
): Promise<LatencyRow[]> {
  const random = createRandom(options.seed + 1);
  const cases = [
    baseline,
    ...filterCases(history, random),
    { name: "tasks: no filter, deep cursor", path: await deepPath(caller, "/1/tasks?limit=1000") },
    {
      name: "tasks: indexer (frequent), deep cursor",
      path: await deepPath(
        caller,
        `/1/tasks?indexer=${encodeURIComponent(history.indexers[0] ?? "")}&limit=1000`,
      ),
    },
    ...queueCases,
    { name: "queue: deep cursor", path: await deepPath(caller, "/1/queue?limit=100") },
  ];
  const found = new Map<Case, number | null>();
  const cpuMs = new Map<Case, number>();
  for (const one of cases) {
    const answer = await caller.json<{ tasks?: unknown[] }>(one.path);
    found.set(one, answer.tasks?.length ?? null);
    const before = await options.cpuSeconds();
    for (let i = 0; i < cpuRequests; i++) await caller.timed(one.path);
    cpuMs.set(one, (((await options.cpuSeconds()) - before) * 1000) / cpuRequests);
  }
  const timesMs = new Map<Case, number[]>(cases.map((one) => [one, []]));
  const order = shuffle(
    cases.flatMap((one) => Array.from({ length: options.requests }, () => one)),
    random,
  );
  for (const one of order) timesMs.get(one)?.push(await caller.timed(one.path));
  const baselineP99 = percentile(timesMs.get(baseline) ?? [], 0.99);
  return cases.map((one) => {
    const times = timesMs.get(one) ?? [];
    const p99Ms = percentile(times, 0.99);
    return {
      name: one.name,
      n: times.length,
      found: found.get(one) ?? null,
      p50Ms: percentile(times, 0.5),
      p99Ms,
      maxMs: percentile(times, 1),
      cpuMs: cpuMs.get(one) ?? Number.NaN,
      p99Ratio: p99Ms / baselineP99,
    };
  });
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

/** The path of the last page, at the limit of an ordinary one. */
async function deepPath(caller: Caller, firstPath: string): Promise<string> {
  let path = firstPath;
  for (;;) {
    const { next_cursor } = await caller.json<{ next_cursor: string | null }>(path);
    if (next_cursor === null) return path.replace("limit=1000", "limit=100");
    path = `${firstPath}&cursor=${encodeURIComponent(next_cursor)}`;
  }
}

export function latencyTable(rows: readonly LatencyRow[]): string {
  const width = Math.max(...rows.map((row) => row.name.length));
  return [
    `${"request".padEnd(width)}     n  found  p50 ms  p99 ms  max ms  cpu ms  p99 / baseline's`,
    ...rows.map((row) =>
      [
        row.name.padEnd(width),
        String(row.n).padStart(4),
        String(row.found ?? "").padStart(5),
        row.p50Ms.toFixed(1).padStart(6),
        row.p99Ms.toFixed(1).padStart(6),
        row.maxMs.toFixed(1).padStart(6),
        row.cpuMs.toFixed(1).padStart(6),
        row.p99Ratio.toFixed(1).padStart(16),
      ].join("  "),
    ),
  ].join("\n");
}
