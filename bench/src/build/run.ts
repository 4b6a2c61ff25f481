// What the parts of the benchmark share: options, servers, lists, processes of this run.
import type { FacesDb } from "@lim/faces-db";
import { type EngineProcess, type Operations, startEngine } from "../engine/rpc.ts";
import type { GoalFigure } from "./goals.ts";
import {
  type BenchList,
  type BenchLists,
  descriptorVersion,
  type SnapshotArgs,
  snapshotBatchRows,
} from "./lists.ts";
import type { Options } from "./options.ts";

export interface Table {
  title: string;
  head: string[];
  rows: string[][];
}

/** What a part hands back: figures for the JSON, tables to print, goals. */
export interface PartResult {
  figures: unknown;
  tables: Table[];
  goals: GoalFigure[];
}

export interface Run {
  options: Options;
  /** Folder of this run. */
  dir: string;
  redisUrl: string;
  postgresUrl: string;
  db: FacesDb;
  rowsPath: string;
  lists: BenchLists;
  signal: AbortSignal;
  say(text: string): void;
}

/** A process of this folder for one piece of work; it is gone when that has ended. */
export async function withProcess<O extends Operations, T>(
  run: Run,
  module: "bare-child" | "drain-child",
  name: string,
  work: (process: EngineProcess<O>) => Promise<T>,
): Promise<T> {
  const process = startEngine<O>({
    module: `../build/${module}`,
    name,
    limitMs: run.options.limitMs,
    signal: run.signal,
    onProgress: run.say,
  });
  try {
    return await work(process);
  } finally {
    await process.stop();
  }
}

/** Ends when the run is stopped or a step took too long. */
export function stepSignal({ signal, options }: Run): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(options.limitMs)]);
}

export function largestList({ lists }: Run): BenchList {
  const list = lists.sized.at(-1);
  if (!list) throw new Error("no lists");
  return list;
}

export function snapshotArgs({ options, postgresUrl }: Run, { listId }: BenchList): SnapshotArgs {
  const { dim } = options;
  return { databaseUrl: postgresUrl, listId, descriptorVersion, dim, batchRows: snapshotBatchRows };
}
