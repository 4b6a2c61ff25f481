// Our engine against hnswlib-node as installed, each in turn in one run: `npm run bench:engine -- --help`.
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type DataContext,
  type Dataset,
  ensureFaces,
  realDataset,
  syntheticDataset,
} from "./engine/dataset.ts";
import { help, type Options, type PartName, readOptions } from "./engine/options.ts";
import { measureBuild } from "./engine/parts/build.ts";
import { churnRows, measureChurn } from "./engine/parts/churn.ts";
import { dropRows, measureDrops } from "./engine/parts/drops.ts";
import { measureLoad } from "./engine/parts/load.ts";
import { measureRows } from "./engine/parts/rows.ts";
import { measureSearch, type SearchFigures } from "./engine/parts/search.ts";
import { measureWriter, writerRows } from "./engine/parts/writer.ts";
import {
  describeMachine,
  printGoals,
  printHead,
  printTable,
  type Report,
  writeReport,
  writeSvg,
} from "./engine/report.ts";
import { type PartResult, Run } from "./engine/run.ts";

const startedMs = performance.now();

function say(text: string): void {
  console.error(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)} s] ${text}`);
}

/** The most rows that the chosen parts want of one file, so that it is made once. */
function rowsNeeded({ only, sizes, churnSize, quick }: Options): number {
  const needs: Record<PartName, number> = {
    build: Math.max(...sizes),
    search: Math.max(...sizes),
    rows: Math.max(...sizes),
    load: Math.max(...sizes),
    writer: writerRows(Math.min(...sizes)),
    drops: dropRows(quick),
    churn: churnRows(churnSize),
  };
  return Math.max(...only.map((part) => needs[part]));
}

interface Step {
  part: PartName;
  data: string;
  run(): Promise<PartResult>;
}

/** Parts over data sets: builds and searches over each, the rest over the one that its goal names. */
function stepsOf(
  run: Run,
  searches: SearchFigures[],
  synthetic: Dataset[],
  real: Dataset | undefined,
): Step[] {
  const steps: Step[] = [];
  const { only } = run.options;
  const over = (
    part: PartName,
    datasets: readonly Dataset[],
    measure: (d: Dataset) => Promise<PartResult>,
  ) => {
    if (!only.includes(part)) return;
    for (const dataset of datasets) steps.push({ part, data: dataset.name, run: () => measure(dataset) });
  };
  const search = async (dataset: Dataset) => {
    const { search: figures, ...result } = await measureSearch(run, dataset);
    searches.push(figures);
    await writeSvg(run.options.svg, searches);
    return result;
  };
  for (const dataset of real ? [...synthetic, real] : synthetic) {
    over("build", [dataset], (d) => measureBuild(run, d));
    over("search", [dataset], search);
  }
  over("rows", synthetic.slice(-1), (d) => measureRows(run, d));
  over("writer", synthetic.slice(0, 1), (d) => measureWriter(run, d));
  over("load", synthetic.slice(-1), (d) => measureLoad(run, d));
  if (only.includes("drops")) steps.push({ part: "drops", data: "", run: () => measureDrops(run) });
  if (only.includes("churn")) steps.push({ part: "churn", data: "", run: () => measureChurn(run) });
  return steps;
}

async function prepare(options: Options, data: DataContext): Promise<[Dataset[], Dataset | undefined]> {
  await ensureFaces(data, rowsNeeded(options));
  const onData = options.only.some((part) => part !== "drops" && part !== "churn");
  const synthetic: Dataset[] = [];
  if (onData) for (const rows of options.sizes) synthetic.push(await syntheticDataset(data, rows));
  const wantsReal = options.real && (options.only.includes("build") || options.only.includes("search"));
  const real = wantsReal ? await realDataset(data, options.quick) : undefined;
  if (wantsReal && !real) say("no real descriptors: LIM_TEST_DATA says where they are");
  return [synthetic, real];
}

async function measure(options: Options, data: DataContext): Promise<Report> {
  const report: Report = { machine: describeMachine(), options, parts: {}, failed: {}, goals: [] };
  printHead(report.machine, options);
  const run = new Run(options, data);
  const [synthetic, real] = await prepare(options, data);
  for (const step of stepsOf(run, [], synthetic, real)) {
    const name = `${step.part} ${step.data}`.trim();
    say(`${name} begins`);
    try {
      const { figures, tables, goals } = await step.run();
      report.parts[name] = figures;
      report.goals.push(...goals);
      for (const table of tables) printTable(table);
    } catch (error) {
      data.signal.throwIfAborted();
      report.failed[name] = String(error);
      say(`${name} failed: ${error instanceof Error ? error.stack : error}`);
    } finally {
      await run.stopAll();
    }
    await writeReport(options.json, report);
  }
  printGoals(report.goals);
  for (const [name, reason] of Object.entries(report.failed))
    console.log(`  not measured: ${name}: ${reason}`);
  console.log(
    `\nfigures: ${options.json}${options.only.includes("search") ? `, drawing: ${options.svg}` : ""}`,
  );
  return report;
}

const options = readOptions(process.argv.slice(2));
if (!options) console.log(help);
else {
  const stopped = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => stopped.abort(new Error(`stopped by ${signal}`)));
  const dir = options.work ?? (await mkdtemp(join(tmpdir(), "lim-bench-engine-")));
  await mkdir(dir, { recursive: true });
  try {
    const { dim, seed } = options;
    const report = await measure(options, { dir, dim, seed, signal: stopped.signal, say });
    if (Object.keys(report.failed).length > 0) process.exitCode = 1;
  } finally {
    if (!options.work) await rm(dir, { recursive: true, force: true });
  }
}
