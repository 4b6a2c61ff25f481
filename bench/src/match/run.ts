// What the parts of the benchmark share: options, servers, lists, processes of this run.
import type { FacesDb } from "@lim/faces-db";
import type { BenchList } from "../build/lists.ts";
import { type EngineProcess, type Operations, startEngine } from "../engine/rpc.ts";
import type { Options } from "./options.ts";

export type { PartResult, Table } from "../build/run.ts";

export interface MatchLists {
  throughput: BenchList | undefined;
  reload: BenchList | undefined;
  startup: BenchList[];
}

export interface Run {
  options: Options;
  /** Folder of this run. */
  dir: string;
  redisUrl: string;
  postgresUrl: string;
  db: FacesDb;
  rowsPath: string;
  /** Second images of listed persons. */
  queriesPath: string;
  lists: MatchLists;
  signal: AbortSignal;
  say(text: string): void;
}

/** A process of this folder; whoever starts it stops it. */
export function startChild<O extends Operations>(
  run: Run,
  module: "index-child" | "caller-child" | "echo-child",
  name: string,
): EngineProcess<O> {
  return startEngine<O>({
    module: `../match/${module}`,
    name,
    limitMs: run.options.limitMs,
    signal: run.signal,
    onProgress: run.say,
  });
}

export async function withChild<O extends Operations, T>(
  run: Run,
  module: Parameters<typeof startChild>[1],
  name: string,
  work: (child: EngineProcess<O>) => Promise<T>,
): Promise<T> {
  const child = startChild<O>(run, module, name);
  try {
    return await work(child);
  } finally {
    await child.stop();
  }
}
