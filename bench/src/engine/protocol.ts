// What the parts ask of the engines' processes.
import type { Latency } from "./figures.ts";

export interface BuildArgs {
  rowsPath: string;
  dim: number;
  rows: number;
  m: number;
  efConstruction: number;
  seed: number;
}

export interface BuildFigures {
  seconds: number;
  /** Processor time of all threads of the process. */
  cpuSeconds: number;
  /** [rows, resident bytes] while it grew. */
  resident: [number, number][];
}

export interface QueryArgs {
  path: string;
  dim: number;
}

export interface PointArgs {
  k: number;
  ef: number;
  /** Rows that are re-ranked; undefined is the engine's default. Only our engine has it. */
  depth?: number | undefined;
  durationMs: number;
  /** Also all answers: queries × k keys, before the timing. */
  withKeys: boolean;
}

export interface PointFigures {
  perS: number;
  /** Processor time of all threads of the process for one query. */
  cpuUs: number;
  keys?: Uint32Array | undefined;
}

export type LatencyArgs = Omit<PointArgs, "withKeys">;

export interface HnswlibOperations {
  [name: string]: (args: never) => Promise<unknown>;
  build(args: BuildArgs): Promise<BuildFigures>;
  save(args: { path: string }): Promise<{ seconds: number }>;
  load(args: { path: string; dim: number; rows: number }): Promise<{ seconds: number }>;
  queries(args: QueryArgs): Promise<void>;
  point(args: PointArgs): Promise<PointFigures>;
  latency(args: LatencyArgs): Promise<Latency>;
}

/** Rows that are read and handed over at a time; reading is not timed. */
export const chunkRows = 20_000;

/** Where our engine holds the rows of the re-rank. */
export const rowPlaces = ["none", "float32", "float16", "file"] as const;
export type RowPlace = (typeof rowPlaces)[number];

export interface CreateArgs {
  dim: number;
  m: number;
  efConstruction: number;
  seed: number;
  capacity: number;
  rows: RowPlace;
  /** Only of the place `file`. */
  rowsFile?: string | undefined;
  poolThreads: number;
}

export interface AddArgs {
  rowsPath: string;
  /** Keys from..from+count-1, whose rows have the same numbers. */
  from: number;
  count: number;
  /** Threads that insert. */
  threads: number;
}

export interface ChurnArgs {
  rowsPath: string;
  /** Keys to replace, one after another, and the row that each gets. */
  keys: Uint32Array;
  rows: Uint32Array;
  packet: number;
}

export interface LoadArgs {
  path: string;
  rows: "none" | "float32";
  rowsPath: string;
  poolThreads: number;
}

export type Writer = "none" | "bulk" | "packets";

export interface WriterArgs extends LatencyArgs {
  writer: Writer;
  rowsPath: string;
  /** Rows that are added under their number as key, in turn and again. */
  from: number;
  count: number;
}

export interface WriterFigures extends Latency {
  addedPerS: number;
}

export interface OwnStatus {
  size: number;
  slots: number;
  /** What the index says it holds. */
  memoryBytes: number;
  residentBytes: number;
}

export interface OwnOperations {
  [name: string]: (args: never) => Promise<unknown>;
  create(args: CreateArgs): Promise<{ plannedBytesPerVector: number }>;
  add(args: AddArgs): Promise<BuildFigures>;
  /** Adds rows of the file as keys 0..rowOf.length-1. */
  addMapped(args: { rowsPath: string; rowOf: Uint32Array; threads: number }): Promise<void>;
  churn(args: ChurnArgs): Promise<{ seconds: number }>;
  save(args: { path: string; rowsPath: string }): Promise<{ seconds: number }>;
  load(args: LoadArgs): Promise<{ firstSeconds: number; secondSeconds: number }>;
  queries(args: QueryArgs): Promise<void>;
  point(args: PointArgs): Promise<PointFigures>;
  latency(args: LatencyArgs): Promise<Latency>;
  besideWriter(args: WriterArgs): Promise<WriterFigures>;
  /** Resident bytes after each of `times` loads and drops, and at the end after garbage was collected. */
  drops(
    args: LoadArgs & { times: number },
  ): Promise<{ resident: number[]; settled: number; indexBytes: number }>;
  status(args: undefined): Promise<OwnStatus>;
}
