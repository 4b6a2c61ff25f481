// Faces in Postgres to a published index through a real indexer, against the bare engine in the same run; reading of
// snapshots against psql; writers beside a snapshot: `npm run bench:build -- --help`.
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import type { EngineName } from "@lim/contracts";
import { measureBuilds, measureFixed } from "./build/end-to-end.ts";
import { type GoalFigure, goalRows, verdictOf } from "./build/goals.ts";
import { measureIdle } from "./build/idle.ts";
import { type RunningIndexer, startIndexer } from "./build/indexer.ts";
import { makeLists, smallFaces } from "./build/lists.ts";
import { help, type Options, readOptions } from "./build/options.ts";
import type { PartResult, Run } from "./build/run.ts";
import { measureSnapshot } from "./build/snapshot.ts";
import { measureWriters } from "./build/writers.ts";
import { ensureFaces } from "./engine/dataset.ts";
import { printTable } from "./engine/report.ts";
import { startBenchServers } from "./servers.ts";

const startedMs = performance.now();

function say(text: string): void {
  console.error(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)} s] ${text}`);
}

interface Report {
  version: 2;
  machine: object;
  options: Options;
  importPerS: number | undefined;
  /** By part, engine and size: its figures, or why there are none. */
  parts: Record<string, unknown>;
  failed: Record<string, string>;
  goals: GoalFigure[];
}

async function writeReport(report: Report): Promise<void> {
  const { json } = report.options;
  const goals = report.goals.map((goal) => ({ ...goal, verdict: verdictOf(goal) }));
  await mkdir(dirname(json), { recursive: true });
  await writeFile(json, `${JSON.stringify({ ...report, goals }, undefined, 2)}\n`);
}

function describeMachine() {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    date: new Date().toISOString(),
  };
}

function printHead({ machine, options }: Report & { machine: ReturnType<typeof describeMachine> }): void {
  const { cpu, cores, memoryBytes, node, platform, date } = machine;
  console.log(
    `${cpu}, ${cores} cores, ${Math.round(memoryBytes / 1e9)} GB, ${platform}, Node ${node}, ${date}`,
  );
  console.log(
    `${options.sizes.join(", ")} faces × ${options.dim}, M ${options.m}, efConstruction ` +
      `${options.efConstruction}, seed ${options.seed}; bare engine gets ${options.bareBatch} rows at ` +
      "once; medians, in brackets least to most of the rounds",
  );
}

type Step = (name: string, measure: () => Promise<PartResult>) => Promise<void>;

/** A step that fails leaves the others to be measured; a run that is stopped ends. */
function stepsInto(report: Report, signal: AbortSignal): Step {
  return async (name, measure) => {
    signal.throwIfAborted();
    say(`${name} begins`);
    try {
      const { figures, tables, goals } = await measure();
      report.parts[name] = figures;
      report.goals.push(...goals);
      for (const table of tables) printTable(table);
    } catch (error) {
      signal.throwIfAborted();
      report.failed[name] = String(error);
      say(`${name} failed: ${error instanceof Error ? error.stack : error}`);
    }
    await writeReport(report);
  };
}

/** All sizes of one engine, through one indexer. */
async function buildsOf(run: Run, engine: EngineName, indexer: RunningIndexer, step: Step): Promise<void> {
  say(`${engine}: idle processes, and builds of ${smallFaces} faces`);
  const idle = {
    build: await measureIdle(run, engine, "build"),
    publish: await measureIdle(run, engine, "publish"),
  };
  const fixed = { idle, builds: await measureFixed(run, indexer, engine) };
  for (const list of run.lists.sized)
    await step(`build ${engine} ${list.faces}`, () => measureBuilds(run, indexer, { engine, list, fixed }));
}

async function measureAll(run: Run, report: Report): Promise<void> {
  const { only, engines } = run.options;
  const step = stepsInto(report, run.signal);
  if (only.includes("build")) {
    const indexer = await startIndexer(run);
    try {
      for (const engine of engines)
        await buildsOf(run, engine, indexer, step).catch((error) => {
          run.signal.throwIfAborted();
          report.failed[`build ${engine}`] = String(error);
          say(`${engine} failed: ${error instanceof Error ? error.stack : error}`);
        });
    } finally {
      await indexer.process.stop();
    }
  }
  if (only.includes("snapshot")) await step("snapshot", () => measureSnapshot(run));
  if (only.includes("writers")) await step("writers", () => measureWriters(run));
}

async function measure(
  options: Options,
  dir: string,
  closers: (() => Promise<unknown>)[],
  signal: AbortSignal,
): Promise<Report> {
  const { dim, seed, sizes } = options;
  const machine = describeMachine();
  const report = {
    version: 2 as const,
    machine,
    options,
    importPerS: undefined as number | undefined,
    parts: {},
    failed: {} as Record<string, string>,
    goals: [] as GoalFigure[],
  };
  printHead(report);
  const rowsPath = await ensureFaces({ dir, dim, seed, signal, say }, sizes.at(-1) ?? 0);
  const { redisUrl, postgresUrl, db } = await startBenchServers(dir, closers);
  const lists = await makeLists(db, { databaseUrl: postgresUrl, rowsPath, dim, sizes, signal, say });
  report.importPerS = lists.importPerS;
  say(`imported ${lists.importPerS.toFixed(0)} faces/s`);
  await measureAll({ options, dir, redisUrl, postgresUrl, db, rowsPath, lists, signal, say }, report);
  const figures = report.goals;
  if (figures.length > 0)
    printTable({
      title: "Goals",
      head: ["goal", "where", "target", "measured", "verdict"],
      rows: goalRows(figures),
    });
  for (const [name, reason] of Object.entries(report.failed))
    console.log(`  not measured: ${name}: ${reason}`);
  console.log(`\nfigures: ${options.json}`);
  return report;
}

async function main(options: Options): Promise<void> {
  const stopped = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => {
      say(`${signal}: stops and cleans up`);
      stopped.abort(new Error(`stopped by ${signal}`));
    });
  const dir = await mkdtemp(join(tmpdir(), "lim-bench-build-"));
  // The account of Postgres, where root starts it, must get to its folder; else it would be elsewhere, and stay there.
  await chmod(dir, 0o711);
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const report = await measure(options, dir, closers, stopped.signal);
    const missed = report.goals.some((goal) => verdictOf(goal) !== "met");
    if (Object.keys(report.failed).length > 0 || (options.strict && missed)) process.exitCode = 1;
  } catch (error) {
    if (!stopped.signal.aborted) throw error;
    process.exitCode = 130;
  } finally {
    for (const close of closers.toReversed()) await close().catch((error) => say(`closing: ${error}`));
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

const options = readOptions(process.argv.slice(2));
if (options) await main(options);
else console.log(help);
