// Checks what callers give, before anything changes.
import { badInput } from "./errors.ts";
import type { Layout, Metric, RowKind, Shape } from "./layout.ts";
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

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

/** Where full precision is kept for the re-rank: in memory, nowhere, or in a private working file (overwritten). */
export type RowsOption = RowKind | { file: string };

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
  rows?: RowsOption | undefined;
  /** Default: `sharedPool()`. */
  pool?: HnswPool | undefined;
}

export function wholeNumber(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
    throw badInput(`${name} must be a whole number from ${least} to ${most}`);
  return value;
}

const metrics: readonly Metric[] = ["cosine", "ip", "l2"];

export function rowKindOf(rows: RowsOption): { kind: RowKind; file: string | undefined } {
  if (rows === "float32" || rows === "float16" || rows === "none") return { kind: rows, file: undefined };
  if (typeof rows === "object" && rows !== null && typeof rows.file === "string" && rows.file !== "")
    return { kind: "none", file: rows.file };
  throw badInput('rows must be "float32", "float16", "none" or { file: path }');
}

export function checkPool(pool: HnswPool | undefined): void {
  if (pool !== undefined && !(pool instanceof HnswPool)) throw badInput("pool must be an HnswPool");
}

/** The shape without its threads. */
export function shapeOf(options: HnswOptions): Omit<Shape, "threads"> & { file: string | undefined } {
  if (typeof options !== "object" || options === null) throw badInput("options are missing");
  const metric = options.metric ?? "cosine";
  if (!metrics.includes(metric)) throw badInput(`metric must be one of ${metrics.join(", ")}`);
  checkPool(options.pool);
  const { kind, file } = rowKindOf(options.rows ?? "float32");
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

/** Largest norm of a vector: its distances stay finite in 32 bits. Under cosine also the smallest. */
export const maxNorm = 1e15;
export const minNorm = 1e-15;

/** Vectors from..to-1 of dim components must be finite and have a norm that 32 bits can hold. */
export function checkVectors(
  what: string,
  vectors: Float32Array,
  layout: Layout,
  from: number,
  to: number,
): void {
  const { dim, metric } = layout;
  const least = metric === "cosine" ? minNorm * minNorm : 0;
  for (let i = from; i < to; i++) {
    let sum = 0;
    for (let j = i * dim, end = j + dim; j < end; j++) {
      const x = vectors[j] as number;
      sum += x * x;
    }
    if (sum <= maxNorm * maxNorm && sum >= least) continue;
    if (sum < least) throw badInput(`${what} ${i} has no direction: its norm is below ${minNorm}`);
    throw badInput(`${what} ${i} is not finite, or its norm is above ${maxNorm}`);
  }
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
