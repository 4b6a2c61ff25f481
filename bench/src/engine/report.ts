import { mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism, cpus, totalmem } from "node:os";
import { dirname } from "node:path";
import { LimError } from "@lim/contracts";
import { drawCurves, type SvgPanel } from "../svg.ts";
import { frontOf } from "./curve.ts";
import { type GoalFigure, goalRows, goals, verdictOf } from "./goals.ts";
import type { Options } from "./options.ts";
import type { SearchFigures } from "./parts/search.ts";
import { medianPoints, type Series } from "./parts/search-tables.ts";
import { megabytes, type Table } from "./run.ts";

export interface Machine {
  cpu: string;
  cores: number;
  memoryBytes: number;
  node: string;
  platform: string;
  hnswlibNode: string;
  date: string;
}

/** It is an optional dependency: without a compiler it is not there, and without it there is nothing to compare with. */
function hnswlibVersion(): string {
  const require = createRequire(import.meta.url);
  try {
    return (require("hnswlib-node/package.json") as { version: string }).version;
  } catch (error) {
    throw new LimError("internal", "hnswlib-node is not installed: it needs a compiler at its installation", {
      cause: error,
    });
  }
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    hnswlibNode: hnswlibVersion(),
    date: new Date().toISOString(),
  };
}

export function printHead(machine: Machine, options: Options): void {
  const { cpu, cores, memoryBytes, node, platform, hnswlibNode, date } = machine;
  console.log(`${cpu}, ${cores} cores, ${megabytes(memoryBytes)}, ${platform}, Node ${node}, ${date}`);
  console.log(
    `hnswlib-node ${hnswlibNode} as installed; M ${options.m}, efConstruction ${options.efConstruction}, ` +
      `seed ${options.seed}, ${options.rounds} rounds; a range in brackets is least to most of the rounds`,
  );
}

export function printTable({ title, head, rows }: Table): void {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => (row[i] ?? "").length)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd();
  console.log(`\n${title}`);
  for (const row of [head, ...rows]) console.log(`  ${line(row)}`);
}

export function printGoals(figures: readonly GoalFigure[]): void {
  printTable({
    title: "Goals",
    head: ["goal", "data", "target", "measured", "range", "verdict"],
    rows: goalRows(figures),
  });
}

export interface Report {
  machine: Machine;
  options: Options;
  /** By part and data: its figures, or why there are none. */
  parts: Record<string, unknown>;
  failed: Record<string, string>;
  goals: GoalFigure[];
}

export async function writeReport(path: string, report: Report): Promise<void> {
  const told = report.goals.map((figure) => ({
    ...figure,
    ...goals[figure.goal],
    verdict: verdictOf(figure),
  }));
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify({ version: 1, ...report, goals: told }, typedArrays, 2)}\n`);
}

/** Arrays of numbers as such, where JSON.stringify would make objects of them. */
function typedArrays(_key: string, value: unknown): unknown {
  return value instanceof Uint32Array || value instanceof Float32Array ? Array.from(value) : value;
}

function panelOf({ dataset, k, curves }: SearchFigures): SvgPanel {
  const series = (name: string, style: number, measured: readonly Series[]) => ({
    name,
    style,
    // A setting that another beats would bend the line back.
    points: frontOf(medianPoints(measured).filter(({ perS }) => Number.isFinite(perS))),
  });
  return {
    title: dataset,
    xTitle: `recall@${k}`,
    series: [
      series("hnswlib-node, one thread", 0, curves.hnswlib),
      series("@lim/hnsw, one thread", 1, curves.one),
      series("@lim/hnsw, two threads", 2, curves.two),
    ],
  };
}

export async function writeSvg(path: string, searches: readonly SearchFigures[]): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, drawCurves("Searches per second against recall", searches.map(panelOf)));
}
