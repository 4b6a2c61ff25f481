// Part "line": up to which size of a list exact search in the platform's own process beats its matcher's index.
import { cpus } from "node:os";
import { join } from "node:path";
import { defaults } from "@lim/contracts";
import type { BenchList } from "../build/lists.ts";
import { ratioText } from "../build/tables.ts";
import { median, ratios, type Spread } from "../engine/figures.ts";
import { type EngineProcess, startEngine } from "../engine/rpc.ts";
import { publishIndex } from "../match/indexes.ts";
import { withMatcher } from "../match/matcher.ts";
import type { PartResult, Run } from "../match/run.ts";
import type { PathName, SearchOperations } from "./search-child.ts";

export interface PathFigures {
  perS: number;
  p50Ms: number;
  p99Ms: number;
  failed: number;
  /** Processor time of all processes of the machine per match, microseconds. */
  cpuUs: number;
}

export interface LineRound {
  index: PathFigures;
  exact: PathFigures;
}

export interface LineRow {
  faces: number;
  callers: number;
  index: PathFigures;
  exact: PathFigures;
  /** Exact to index, round by round. */
  rate: Spread | undefined;
  p50: Spread | undefined;
  cpu: Spread | undefined;
}

export async function measureLine(
  run: Run,
  lists: readonly BenchList[],
  lineCallers: readonly number[],
): Promise<PartResult> {
  const root = join(run.dir, "indexes-line");
  for (const list of lists) await publishIndex(run, { engine: defaults.engine, root, list });
  const rows = await withMatcher(run, root, {}, async () => {
    const child = startEngine<SearchOperations>({
      module: "../plugin/search-child",
      name: "platform",
      limitMs: run.options.limitMs,
      signal: run.signal,
      onProgress: run.say,
    });
    try {
      const { redisUrl, postgresUrl: databaseUrl, queriesPath, options } = run;
      const { dim, limit } = options;
      const labels = lists.map(({ listId }) => listId);
      await child.call("open", { redisUrl, databaseUrl, dim, limit, queriesPath, labels });
      return await measureRows(run, child, lists, lineCallers);
    } finally {
      await child.stop();
    }
  });
  return { figures: { rows, line: lineOf(rows) }, tables: [tableOf(rows)], goals: [] };
}

async function measureRows(
  run: Run,
  child: EngineProcess<SearchOperations>,
  lists: readonly BenchList[],
  lineCallers: readonly number[],
): Promise<LineRow[]> {
  const cases = lists.flatMap((list) => lineCallers.map((callers) => ({ list, callers })));
  const measured = new Map<(typeof cases)[number], LineRound[]>(cases.map((one) => [one, []]));
  for (let round = 0; round < run.options.rounds; round++) {
    run.say(`line: round ${round + 1} of ${run.options.rounds}`);
    for (const [one, rounds] of measured) {
      const of = (path: PathName) =>
        measurePath(run, child, { path, label: one.list.listId, callers: one.callers });
      rounds.push({ index: await of("index"), exact: await of("exact") });
    }
  }
  return [...measured].map(([{ list, callers }, rounds]) => rowOf(list.faces, callers, rounds));
}

async function measurePath(
  run: Run,
  child: EngineProcess<SearchOperations>,
  asked: { path: PathName; label: string; callers: number },
): Promise<PathFigures> {
  const durationMs = run.options.seconds * 1_000;
  await child.call("search", { ...asked, durationMs: durationMs / 10 });
  const before = busyMs();
  const { answeredPerS, failed, latency } = await child.call("search", { ...asked, durationMs });
  const cpuUs = ((busyMs() - before) * 1_000) / latency.count;
  return { perS: answeredPerS, p50Ms: latency.p50Ms, p99Ms: latency.p99Ms, failed, cpuUs };
}

/** Postgres answers in processes of its own: only the whole machine tells what an exact search costs. */
function busyMs(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.sys + times.nice + times.irq, 0);
}

export function rowOf(faces: number, callers: number, rounds: readonly LineRound[]): LineRow {
  const of = (value: (one: PathFigures) => number) =>
    ratios(
      rounds.map(({ exact }) => value(exact)),
      rounds.map(({ index }) => value(index)),
    );
  const medians = (path: PathName): PathFigures => {
    const all = rounds.map((round) => round[path]);
    return {
      perS: median(all.map(({ perS }) => perS)),
      p50Ms: median(all.map(({ p50Ms }) => p50Ms)),
      p99Ms: median(all.map(({ p99Ms }) => p99Ms)),
      failed: all.reduce((sum, { failed }) => sum + failed, 0),
      cpuUs: median(all.map(({ cpuUs }) => cpuUs)),
    };
  };
  return {
    faces,
    callers,
    index: medians("index"),
    exact: medians("exact"),
    rate: of(({ perS }) => perS),
    p50: of(({ p50Ms }) => p50Ms),
    cpu: of(({ cpuUs }) => cpuUs),
  };
}

/** The largest size up to which exact search gives more answers a second with any number of callers; 0 where none. */
export function lineOf(rows: readonly LineRow[]): number {
  let line = 0;
  for (const faces of [...new Set(rows.map((row) => row.faces))].toSorted((a, b) => a - b)) {
    const isBetter = rows.every((row) => row.faces !== faces || (row.rate?.median ?? 0) >= 1);
    if (!isBetter) break;
    line = faces;
  }
  return line;
}

function tableOf(rows: readonly LineRow[]) {
  const cells = ({ perS, p50Ms, p99Ms, failed, cpuUs }: PathFigures) => [
    Math.round(perS).toLocaleString("en-US"),
    p50Ms.toFixed(2),
    p99Ms.toFixed(2),
    String(failed),
    cpuUs.toFixed(0),
  ];
  return {
    title: `Exact search and index; exact is at least as fast up to ${lineOf(rows).toLocaleString("en-US")} faces`,
    head: [
      "faces",
      "callers",
      "",
      "/s",
      "p50 ms",
      "p99 ms",
      "failed",
      "machine µs",
      "rate",
      "p50",
      "processor",
    ],
    rows: rows.flatMap(({ faces, callers, index, exact, rate, p50, cpu }) => [
      [
        ...[faces.toLocaleString("en-US"), String(callers), "exact", ...cells(exact)],
        ...[ratioText(rate), ratioText(p50), ratioText(cpu)],
      ],
      ["", "", "index", ...cells(index)],
    ]),
  };
}
