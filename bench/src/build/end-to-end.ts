// Part "build": the bare engine and the indexer in turn, their memory, and where the time goes.
import type { EngineName } from "@lim/contracts";
import { median, ratios, type Spread, spreadOf } from "../engine/figures.ts";
import type { BareOperations, InsertFigures } from "./bare-child.ts";
import { buildFigure, memoryFigure } from "./goals.ts";
import { type BuildFigures, buildByIndexer, type RunningIndexer } from "./indexer.ts";
import { type BenchList, smallFaces } from "./lists.ts";
import { type FixedFigures, memoryOfBuilds } from "./memory.ts";
import { type PartResult, type Run, withProcess } from "./run.ts";
import { memoryTable, phaseTable, speedTable } from "./tables.ts";

const fixedRounds = 3;

export interface Round {
  bare: InsertFigures;
  build: BuildFigures;
}

/** Milliseconds of the whole build, and what they were spent on. */
export interface Phases {
  total: number;
  /** Until the build process has opened the snapshot. */
  start: number;
  /** Reading; beside `build`. */
  snapshot: number;
  build: number;
  /** Saving, hashing, opening anew, probing. */
  verify: number;
  store: number;
  /** All between and after: publishing, ends and starts of processes. */
  rest: number;
  /** From the end of the build process on: part of those before, NaN where the system does not tell. */
  afterBuild: number;
}

export interface SizeFigures {
  engine: EngineName;
  faces: number;
  bareSeconds: number[];
  bareCpuSeconds: number[];
  buildSeconds: number[];
  /** Processor time of both processes, which neighbours on the machine do not change much. */
  buildCpuSeconds: number[];
  /** bare / whole build, round by round. */
  ratio: Spread | undefined;
  /** The same without what a build of a tiny list costs. */
  ratioWithoutFixed: Spread | undefined;
  /** bare / phase `build` alone. */
  ratioOfInsertion: Spread | undefined;
  phasesMs: Phases;
  fixedPhasesMs: Phases;
  snapshotMbPerS: number;
  recall: number[];
  sizeBytes: number;
  memory: ReturnType<typeof memoryOfBuilds>;
}

export function phasesOf({ seconds, startSeconds, afterBuildSeconds, meta }: BuildFigures): Phases {
  const of = (name: string) => meta.build.phases[name] ?? Number.NaN;
  const known = { snapshot: of("snapshot"), build: of("build"), verify: of("verify"), store: of("store") };
  const total = seconds * 1000;
  const start = startSeconds * 1000;
  const rest = total - start - known.build - known.verify - known.store;
  const afterBuild = (afterBuildSeconds ?? Number.NaN) * 1000;
  return { total, start, ...known, rest, afterBuild };
}

function medianPhases(builds: readonly BuildFigures[]): Phases {
  const all = builds.map(phasesOf);
  const of = (name: keyof Phases) => median(all.map((phases) => phases[name]));
  return {
    total: of("total"),
    start: of("start"),
    snapshot: of("snapshot"),
    build: of("build"),
    verify: of("verify"),
    store: of("store"),
    rest: of("rest"),
    afterBuild: of("afterBuild"),
  };
}

function insertBare(run: Run, engine: EngineName, rows: number, name: string): Promise<InsertFigures> {
  const { dim, m, efConstruction } = run.options;
  return withProcess<BareOperations, InsertFigures>(run, "bare-child", name, (bare) =>
    bare.call("insert", {
      engine,
      rowsPath: run.rowsPath,
      dim,
      rows,
      m,
      efConstruction,
      batchRows: run.options.bareBatch,
    }),
  );
}

/** What a build costs whatever the size of its list. The first one finds cold caches and is left out. */
export async function measureFixed(
  run: Run,
  indexer: RunningIndexer,
  engine: EngineName,
): Promise<BuildFigures[]> {
  const builds: BuildFigures[] = [];
  const name = `${engine}, ${smallFaces} faces`;
  for (let round = 0; round <= fixedRounds; round++)
    builds.push(await buildByIndexer(run, indexer, { engine, list: run.lists.small, name }));
  return builds.slice(1);
}

/** Rounds begin with the bare engine and with the indexer in turn. */
async function alternate(run: Run, indexer: RunningIndexer, engine: EngineName, list: BenchList) {
  const rounds: Round[] = [];
  const count = run.options.rounds[engine];
  for (let round = 0; round < count; round++) {
    const where = `${engine}, ${list.faces.toLocaleString("en-US")} faces, round ${round + 1} of ${count}`;
    const bareNow = () => {
      run.say(`${where}: bare engine`);
      return insertBare(run, engine, list.faces, `${where}: bare engine`);
    };
    const bareFirst = round % 2 === 0 ? await bareNow() : undefined;
    run.say(`${where}: indexer`);
    const build = await buildByIndexer(run, indexer, { engine, list, name: where });
    const bare = bareFirst ?? (await bareNow());
    rounds.push({ bare, build });
    run.say(`${where}: bare ${bare.seconds.toFixed(1)} s, build ${build.seconds.toFixed(1)} s`);
  }
  return rounds;
}

export async function measureBuilds(
  run: Run,
  indexer: RunningIndexer,
  options: { engine: EngineName; list: BenchList; fixed: FixedFigures },
): Promise<PartResult> {
  const { engine, list, fixed } = options;
  const { faces } = list;
  const rounds = await alternate(run, indexer, engine, list);
  const builds = rounds.map(({ build }) => build);
  const bareSeconds = rounds.map(({ bare }) => bare.seconds);
  const phasesMs = medianPhases(builds);
  const fixedPhasesMs = medianPhases(fixed.builds);
  const fixedSeconds = fixedPhasesMs.total / 1000;
  const ratioTo = (secondsOf: (build: BuildFigures) => number) => ratios(bareSeconds, builds.map(secondsOf));
  const ratio = ratioTo(({ seconds }) => seconds);
  const memory = memoryOfBuilds(run.options, { engine, faces, builds, fixed });
  const figures: SizeFigures = {
    engine,
    faces,
    bareSeconds,
    bareCpuSeconds: rounds.map(({ bare }) => bare.cpuSeconds),
    buildSeconds: builds.map(({ seconds }) => seconds),
    buildCpuSeconds: builds.map(({ children }) => children.reduce((sum, child) => sum + child.cpuSeconds, 0)),
    ratio,
    ratioWithoutFixed: ratioTo(({ seconds }) => seconds - fixedSeconds),
    ratioOfInsertion: ratioTo(({ meta }) => (meta.build.phases.build ?? Number.NaN) / 1000),
    phasesMs,
    fixedPhasesMs,
    snapshotMbPerS: (faces * run.options.dim * 4) / 1e6 / (phasesMs.snapshot / 1000),
    recall: builds.map(({ meta }) => meta.recall.sampled),
    sizeBytes: spreadOf(builds.map(({ sizeBytes }) => sizeBytes))?.median ?? Number.NaN,
    memory,
  };
  const where = `${engine}, ${faces.toLocaleString("en-US")} × ${run.options.dim}`;
  return {
    figures,
    tables: [speedTable(where, figures), phaseTable(where, figures), ...memoryTable(where, memory)],
    goals: [...buildFigure(faces, where, ratio?.median), ...memoryFigure(faces, where, memory?.judged)],
  };
}
