// Matches over the Redis streams through a real matcher, against the bare engine and an echo in the same run; reloads
// under load; start-up: `npm run bench:match -- --help`.
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { type GoalFigure, goalRows, verdictOf } from "./build/goals.ts";
import { ensureFaces, ensureQueries } from "./engine/dataset.ts";
import { printTable } from "./engine/report.ts";
import { listsFor, makeMatchLists } from "./match/lists.ts";
import { help, type Options, readOptions } from "./match/options.ts";
import { measureReload } from "./match/reload.ts";
import type { PartResult, Run } from "./match/run.ts";
import { measureStartup } from "./match/startup.ts";
import { measureThroughput } from "./match/throughput.ts";
import { startBenchServers } from "./servers.ts";

const startedMs = performance.now();

function say(text: string): void {
  console.error(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)} s] ${text}`);
}

interface Report {
  version: 2;
  machine: object;
  options: Options;
  /** By part: its figures. */
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
    loadAverage: loadavg(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    date: new Date().toISOString(),
  };
}

function printHead({ machine, options }: Report & { machine: ReturnType<typeof describeMachine> }): void {
  const { cpu, cores, memoryBytes, node, platform, date, loadAverage } = machine;
  console.log(
    `${cpu}, ${cores} cores, ${Math.round(memoryBytes / 1e9)} GB, ${platform}, Node ${node}, ${date}, ` +
      `load ${loadAverage.map((load) => load.toFixed(2)).join(" ")}`,
  );
  console.log(
    `dim ${options.dim}, M ${options.m}, efConstruction ${options.efConstruction}, ef ${options.ef}, ` +
      `limit ${options.limit}, seed ${options.seed}; medians, in brackets least to most of the rounds`,
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

async function measureAll(run: Run, report: Report): Promise<void> {
  const { only, engines } = run.options;
  const step = stepsInto(report, run.signal);
  if (only.includes("throughput"))
    for (const engine of engines) await step(`throughput ${engine}`, () => measureThroughput(run, engine));
  if (only.includes("reload")) await step("reload", () => measureReload(run));
  if (only.includes("startup")) await step("startup", () => measureStartup(run));
}

async function measure(
  options: Options,
  dir: string,
  closers: (() => Promise<unknown>)[],
  signal: AbortSignal,
): Promise<Report> {
  const { dim, seed } = options;
  const report = {
    version: 2 as const,
    machine: describeMachine(),
    options,
    parts: {},
    failed: {} as Record<string, string>,
    goals: [] as GoalFigure[],
  };
  printHead(report);
  const sizes = listsFor(options).map(({ faces }) => faces);
  const data = { dir, dim, seed, signal, say };
  const rowsPath = await ensureFaces(data, sizes.at(-1) ?? 0);
  const queriesPath = await ensureQueries(data, sizes[0] ?? 0);
  const servers = await startBenchServers(dir, closers);
  const known = { options, dir, ...servers, rowsPath, queriesPath, signal, say };
  await measureAll({ ...known, lists: await makeMatchLists(known) }, report);
  if (report.goals.length > 0)
    printTable({
      title: "Goals",
      head: ["goal", "where", "target", "measured", "verdict"],
      rows: goalRows(report.goals),
    });
  for (const [name, reason] of Object.entries(report.failed))
    console.log(`  not measured: ${name}: ${reason}`);
  console.log(`\nload ${loadavg()[0]?.toFixed(2)}; figures: ${options.json}`);
  return report;
}

async function main(options: Options): Promise<void> {
  const stopped = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => {
      say(`${signal}: stops and cleans up`);
      stopped.abort(new Error(`stopped by ${signal}`));
    });
  const dir = await mkdtemp(join(tmpdir(), "lim-bench-match-"));
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
