import type { Dataset } from "../dataset.ts";
import { ratios, type Spread, spreadOf } from "../figures.ts";
import { formatFigure, ratioFigure } from "../goals.ts";
import type { BuildFigures } from "../protocol.ts";
import { inThousands, type PartResult, type Run } from "../run.ts";

interface Round {
  hnswlib: BuildFigures;
  one: BuildFigures;
  two: BuildFigures;
}

async function buildHnswlib(run: Run, dataset: Dataset, save: boolean): Promise<BuildFigures> {
  const engine = run.hnswlib();
  const figures = await engine.call("build", run.buildArgs(dataset));
  if (save) await run.saveHnswlib(engine, dataset);
  await engine.stop();
  return figures;
}

async function buildOwn(run: Run, dataset: Dataset, threads: number, save: boolean): Promise<BuildFigures> {
  const engine = run.own(`@lim/hnsw, ${threads} thread${threads > 1 ? "s" : ""}`);
  const { dim, m, efConstruction, seed, rows, rowsPath } = run.buildArgs(dataset);
  const shape = { dim, m, efConstruction, seed, capacity: rows, rows: "float32" as const };
  await engine.call("create", { ...shape, poolThreads: threads });
  const figures = await engine.call("add", { rowsPath, from: 0, count: rows, threads });
  if (save) await run.saveOwn(engine, dataset);
  await engine.stop();
  return figures;
}

/** Bytes per row of the line from the first to the last measurement. */
function slopeOf(resident: readonly [number, number][]): number | undefined {
  const [first, last] = [resident[0], resident.at(-1)];
  if (!first || !last || first[0] === last[0]) return undefined;
  return (last[1] - first[1]) / (last[0] - first[0]);
}

function describe(name: string, rows: number, figures: readonly BuildFigures[], over?: Spread): string[] {
  const speed = spreadOf(figures.map(({ seconds }) => rows / seconds));
  const slope = slopeOf(figures[0]?.resident ?? []);
  return [
    name,
    inThousands(speed?.median ?? Number.NaN),
    speed && speed.rounds > 1 ? `${inThousands(speed.min)}–${inThousands(speed.max)}` : "",
    formatFigure(spreadOf(figures.map(({ seconds }) => seconds))?.median ?? Number.NaN),
    inThousands(spreadOf(figures.map(({ cpuSeconds }) => rows / cpuSeconds))?.median ?? Number.NaN),
    slope === undefined ? "" : inThousands(slope),
    over ? `${formatFigure(over.median)} ×` : "",
  ];
}

/** Builds by each engine in turn, each in a process of its own. */
export async function measureBuild(run: Run, dataset: Dataset): Promise<PartResult> {
  const rounds: Round[] = [];
  for (let round = 0; round < run.options.buildRounds; round++) {
    run.say(`build ${dataset.name}, round ${round + 1} of ${run.options.buildRounds}`);
    const save = round === 0;
    rounds.push({
      hnswlib: await buildHnswlib(run, dataset, save),
      one: await buildOwn(run, dataset, 1, false),
      two: await buildOwn(run, dataset, 2, save),
    });
  }
  const { rows } = dataset;
  const speeds = (engine: keyof Round) => rounds.map((round) => rows / round[engine].seconds);
  const perCore = ratios(speeds("one"), speeds("hnswlib"));
  const threads = ratios(speeds("two"), speeds("one"));
  const of = (engine: keyof Round) => rounds.map((round) => round[engine]);
  return {
    figures: { rounds, perCore, threads },
    goals: [ratioFigure("build", dataset.name, perCore), ratioFigure("buildThreads", dataset.name, threads)],
    tables: [
      {
        title: `Build of ${dataset.name}`,
        head: ["engine", "rows/s", "rounds", "s", "rows per CPU s", "bytes/row", "to hnswlib-node"],
        rows: [
          describe("hnswlib-node", rows, of("hnswlib")),
          describe("@lim/hnsw, 1 thread", rows, of("one"), perCore),
          describe("@lim/hnsw, 2 threads", rows, of("two"), ratios(speeds("two"), speeds("hnswlib"))),
        ],
      },
    ],
  };
}
