// Checks what callers give, before anything changes.
import { badInput } from "./errors.ts";
import type { Metric, RowKind, Shape } from "./layout.ts";
import {
  defaultEfConstruction,
  defaultM,
  defaultSeed,
  maxDim,
  maxEfConstruction,
  maxM,
  minM,
  noWord,
} from "./limits.ts";
import { HnswPool } from "./pool.ts";
import type { RowsFile } from "./rows-file.ts";

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

/** Where full precision is kept for the re-rank: in memory, nowhere, or in a private working file (overwritten). */
export type RowsOption = RowKind | { file: string };
/** Of a new index also: `{ spool }`, the file of rows to be. Its rows come by `spool` and `insertSpooled` alone. */
export type NewRowsOption = RowsOption | { spool: string };
/** Of a loaded index also: the file at `rowsPath` itself, which must stay as it is. Such an index takes no rows. */
export type LoadedRowsOption = RowsOption | { inPlace: true };

export interface HnswOptions {
  /** 1 to 4096. */
  dim: number;
  /** `cosine` (default) brings rows to norm 1; `ip` takes them as they are. */
  metric?: Metric | undefined;
  /** Links of a node, twice as many on level 0: 4 to 128, default 16. */
  m?: number | undefined;
  /** Default 200. */
  efConstruction?: number | undefined;
  /** Default 1. */
  seed?: number | undefined;
  /** Slots reserved at once; the index grows by itself up to `maxSlots`. */
  capacity?: number | undefined;
  /** Default `float32`. */
  rows?: NewRowsOption | undefined;
  /** Default: `sharedPool()`. */
  pool?: HnswPool | undefined;
}

export function wholeNumber(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
    throw badInput(`${name} must be a whole number from ${least} to ${most}`);
  return value;
}

const metrics: readonly Metric[] = ["cosine", "ip", "l2"];

export function rowsOf(
  rows: NewRowsOption | LoadedRowsOption,
  rowsPath?: string,
): { kind: RowKind; file: RowsFile | undefined } {
  if (rows === "float32" || rows === "float16" || rows === "none") return { kind: rows, file: undefined };
  const isPath = (path: unknown): path is string => typeof path === "string" && path !== "";
  const inFile = (path: string, mode: RowsFile["mode"]) => ({ kind: "none" as const, file: { path, mode } });
  if (typeof rows === "object" && rows !== null) {
    if ("file" in rows && isPath(rows.file)) return inFile(rows.file, "private");
    if ("spool" in rows && isPath(rows.spool)) return inFile(rows.spool, "spooled");
    if ("inPlace" in rows && isPath(rowsPath)) return inFile(rowsPath, "in place");
    if ("inPlace" in rows) throw badInput("rows in place need rowsPath");
  }
  throw badInput('rows must be "float32", "float16", "none" or a file');
}

export function checkPool(pool: HnswPool | undefined): void {
  if (pool !== undefined && !(pool instanceof HnswPool)) throw badInput("pool must be an HnswPool");
}

/** The shape without its instances. */
export function shapeOf(options: HnswOptions): Omit<Shape, "instances"> & { file: RowsFile | undefined } {
  if (typeof options !== "object" || options === null) throw badInput("options are missing");
  const metric = options.metric ?? "cosine";
  if (!metrics.includes(metric)) throw badInput(`metric must be one of ${metrics.join(", ")}`);
  checkPool(options.pool);
  const { kind, file } = rowsOf(options.rows ?? "float32");
  if (file?.mode === "spooled" && metric === "cosine")
    throw badInput("spooled rows are taken as they are, and cosine wants norm 1: use ip and rows of norm 1");
  return {
    dim: wholeNumber("dim", options.dim, 1, maxDim),
    metric,
    m: wholeNumber("m", options.m ?? defaultM, minM, maxM),
    efConstruction: wholeNumber(
      "efConstruction",
      options.efConstruction ?? defaultEfConstruction,
      1,
      maxEfConstruction,
    ),
    seed: wholeNumber("seed", options.seed ?? defaultSeed, 0, noWord),
    rows: kind,
    file,
  };
}

export function checkKeys(keys: unknown): Uint32Array {
  if (!(keys instanceof Uint32Array)) throw badInput("keys must be a Uint32Array");
  return keys;
}

export function checkRows(keys: unknown, vectors: unknown, dim: number): void {
  const count = checkKeys(keys).length;
  if (!(vectors instanceof Float32Array)) throw badInput("vectors must be a Float32Array");
  if (vectors.length !== count * dim)
    throw badInput(`${count} keys need ${count * dim} components, not ${vectors.length}`);
}
