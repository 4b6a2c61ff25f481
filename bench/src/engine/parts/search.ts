import { evenly, fastestFrom, frontOf } from "../curve.ts";
import type { Dataset } from "../dataset.ts";
import { rankOneOf, recallOf, withoutSelf } from "../figures.ts";
import { formatFigure, type GoalFigure, ratioFigure } from "../goals.ts";
import type { PointFigures } from "../protocol.ts";
import type { Hnswlib, Own, PartResult, Run, Table } from "../run.ts";
import {
  type Curves,
  goalRatios,
  goalRecall,
  type LatencyRow,
  labelOf,
  medianPoints,
  type Series,
  type Setting,
  searchTables,
} from "./search-tables.ts";

const efs = [10, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 400, 500, 600, 800, 1200];
const depths = [0, 16, 24, 40, 80, 160];
/** As the engine's own. */
export const defaultEf = 64;
/** Settings of our engine that are measured in the rounds, of the many that are tried. */
const maxFrontPoints = 13;

export interface SearchFigures {
  dataset: string;
  k: number;
  curves: Curves;
  latencies: LatencyRow[];
}

interface Engines {
  hnswlib: Hnswlib;
  one: Own;
  two: Own;
}

async function openAll(run: Run, dataset: Dataset): Promise<Engines> {
  const hnswlib = await run.openHnswlib(dataset);
  const one = await run.openOwn(dataset, 1);
  const two = await run.openOwn(dataset, 2);
  const { queriesPath: path, dim } = dataset;
  for (const engine of [hnswlib, one, two]) await engine.call("queries", { path, dim });
  return { hnswlib, one, two };
}

/** Every other one for a smoke test. */
const thin = (run: Run): number[] => efs.filter((_, i) => !run.options.quick || i % 2 === 1);

const seriesOf = (setting: Setting, recall: number): Series => ({
  label: labelOf(setting),
  setting,
  recall,
  perS: [],
  cpuUs: [],
});

/** Measures settings once, briefly, with their recall. */
async function tryOut(run: Run, dataset: Dataset, engine: Hnswlib | Own, settings: readonly Setting[]) {
  const tried: (Series & { once: number })[] = [];
  for (const setting of settings) {
    const args = { k: dataset.k, ...setting, durationMs: run.options.pointMs / 3, withKeys: true };
    const { keys, perS } = await engine.call("point", args);
    const recall = recallOf(keys ?? new Uint32Array(0), dataset.truth, dataset.k);
    tried.push({ ...seriesOf(setting, recall), once: perS });
  }
  return tried;
}

/** Of all settings of our engine those that no other beats, and the default. */
async function chooseSettings(run: Run, dataset: Dataset, one: Own): Promise<Series[]> {
  const thinned = thin(run);
  const all = thinned.flatMap((ef) =>
    depths.filter((rows) => rows === 0 || (rows <= ef && rows >= dataset.k)).map((depth) => ({ ef, depth })),
  );
  const tried = await tryOut(run, dataset, one, all);
  const front = frontOf(tried.map((series) => ({ ...series, perS: series.once })));
  // The setting that the goal is about stays, wherever it lies.
  const goal = fastestFrom(front, goalRecall);
  const kept = new Set([...evenly(front, maxFrontPoints), ...(goal ? [goal] : [])]);
  const chosen = front
    .filter((series) => kept.has(series))
    .map(({ setting, recall }) => seriesOf(setting, recall));
  const [standard] = await tryOut(run, dataset, one, [{ ef: defaultEf }]);
  return standard ? [...chosen, seriesOf(standard.setting, standard.recall)] : chosen;
}

function note(series: Series | undefined, { perS, cpuUs }: PointFigures): void {
  series?.perS.push(perS);
  series?.cpuUs.push(cpuUs);
}

/** Engines in turn, setting by setting; one thread and two at the same setting one right after the other. */
async function measureCurves(run: Run, dataset: Dataset, engines: Engines): Promise<Curves> {
  const { pointMs, rounds } = run.options;
  run.say(`search ${dataset.name}: trying settings`);
  const one = await chooseSettings(run, dataset, engines.one);
  const tried = await tryOut(
    run,
    dataset,
    engines.hnswlib,
    thin(run).map((ef) => ({ ef })),
  );
  const curves: Curves = {
    hnswlib: tried.map(({ setting, recall }) => seriesOf(setting, recall)),
    one,
    two: one.map(({ setting, recall }) => seriesOf(setting, recall)),
  };
  const measure = async (engine: Hnswlib | Own, series: Series | undefined) => {
    if (!series) return;
    const args = { k: dataset.k, ...series.setting, durationMs: pointMs, withKeys: false };
    note(series, await engine.call("point", args));
  };
  for (let round = 0; round < rounds; round++) {
    run.say(`search ${dataset.name}: round ${round + 1} of ${rounds}`);
    for (let i = 0; i < Math.max(curves.hnswlib.length, one.length); i++) {
      await measure(engines.hnswlib, curves.hnswlib[i]);
      await measure(engines.one, curves.one[i]);
      await measure(engines.two, curves.two[i]);
    }
  }
  return curves;
}

/** At the default and at the fastest setting of the goal's recall. */
async function measureLatencies(run: Run, dataset: Dataset, engines: Engines, curves: Curves) {
  const fastest = (series: readonly Series[]) => {
    const label = fastestFrom(medianPoints(series), goalRecall)?.label;
    return series.find((one) => one.label === label)?.setting ?? { ef: 256 };
  };
  const asked: [string, Hnswlib | Own, Setting][] = [
    ["hnswlib-node", engines.hnswlib, fastest(curves.hnswlib)],
    ["@lim/hnsw, 1 thread", engines.one, fastest(curves.one)],
    ["@lim/hnsw, 2 threads", engines.two, fastest(curves.two)],
    ["@lim/hnsw, 1 thread", engines.one, { ef: defaultEf }],
  ];
  const rows: LatencyRow[] = [];
  for (const [engine, process, setting] of asked) {
    const args = { k: dataset.k, ...setting, durationMs: 2 * run.options.pointMs };
    rows.push({ engine, setting: labelOf(setting), latency: await process.call("latency", args) });
  }
  return rows;
}

/** Where the queries are people in the index: do the engines recognise as many as exact search? */
async function measurePeople(dataset: Dataset, engines: Engines) {
  const { people, k, truth, name } = dataset;
  if (!people) return undefined;
  const { self, identities } = people;
  const ask = async (title: string, engine: Hnswlib | Own, setting: Setting) => {
    const { keys = truth } = await engine.call("point", { k, ...setting, durationMs: 1, withKeys: true });
    return {
      title,
      rankOne: rankOneOf(keys, self, identities, k),
      recall10: recallOf(withoutSelf(keys, self, k), withoutSelf(truth, self, k), k - 1),
      recall11: recallOf(keys, truth, k),
    };
  };
  const rows = [
    { title: "exact", rankOne: rankOneOf(truth, self, identities, k), recall10: 1, recall11: 1 },
    await ask("@lim/hnsw, default", engines.one, { ef: defaultEf }),
    await ask("@lim/hnsw, ef 128", engines.one, { ef: 128 }),
    await ask("@lim/hnsw, ef 256", engines.one, { ef: 256 }),
    await ask(`hnswlib-node, ef ${defaultEf}`, engines.hnswlib, { ef: defaultEf }),
    await ask("hnswlib-node, ef 256", engines.hnswlib, { ef: 256 }),
  ];
  const table: Table = {
    title: `People recognised by another image, ${self.length} images of ${name}`,
    head: ["engine", "rank-1", "recall@10 of others", "recall@11"],
    rows: rows.map((row) => [
      row.title,
      row.rankOne.toFixed(4),
      row.recall10.toFixed(4),
      row.recall11.toFixed(4),
    ]),
  };
  const [exact, standard] = rows;
  const goals: GoalFigure[] = [
    { goal: "rankOne", where: name, measured: (exact?.rankOne ?? 0) - (standard?.rankOne ?? 0) },
    { goal: "realRecall", where: name, measured: standard?.recall10 },
  ];
  return { rows, table, goals };
}

export async function measureSearch(
  run: Run,
  dataset: Dataset,
): Promise<PartResult & { search: SearchFigures }> {
  const engines = await openAll(run, dataset);
  const people = await measurePeople(dataset, engines);
  const curves = await measureCurves(run, dataset, engines);
  const latencies = await measureLatencies(run, dataset, engines, curves);
  const ratios = goalRatios(curves);
  const { name, k } = dataset;
  run.say(`search ${name}: ${formatFigure(ratios.perCore?.median ?? Number.NaN)} × hnswlib-node per core`);
  const search: SearchFigures = { dataset: name, k, curves, latencies };
  return {
    search,
    figures: { ...search, ratios, people: people?.rows },
    goals: [
      ratioFigure("search", name, ratios.perCore),
      ratioFigure("searchThreads", name, ratios.threads),
      ...(people?.goals ?? []),
    ],
    tables: [...searchTables(name, k, curves, latencies), ...(people ? [people.table] : [])],
  };
}
