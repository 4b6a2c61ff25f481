// The faces that are indexed and searched for, as files that the engines' processes read, and the exact answers.
import { existsSync, readFileSync } from "node:fs";
import { appendFile, rename, truncate, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { loadRealDescriptors } from "@lim/testkit";
import { faceGenerator, type GenerateTask, type TruthTask } from "./data-worker.ts";
import { gatherRows, readRows, rowsIn } from "./vector-file.ts";

export interface Dataset {
  name: string;
  dim: number;
  /** Rows 0..rows-1 of the file are indexed under their number as key. */
  rows: number;
  rowsPath: string;
  queries: number;
  queriesPath: string;
  k: number;
  /** queries × k keys, nearest first. */
  truth: Uint32Array;
  /** Where the queries are themselves indexed: the key of each, and the identity of every key. */
  people?: { self: Uint32Array; identities: Uint32Array };
}

export interface DataContext {
  dir: string;
  dim: number;
  seed: number;
  signal: AbortSignal;
  say(text: string): void;
}

export const syntheticQueries = 1_000;
export const syntheticK = 10;
/** Of real faces the query is found as well, so eleven are asked for. */
export const realK = 11;
const maxQuickRealQueries = 1_000;
const sayEveryMs = 5_000;

function runWorker(task: GenerateTask | TruthTask, signal: AbortSignal, done: (rows: number) => void) {
  return new Promise<void>((resolve, reject) => {
    const worker = new Worker(new URL("./data-worker.js", import.meta.url), { workerData: task });
    const abort = () => {
      void worker.terminate();
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    worker.on("message", done);
    worker.on("error", reject);
    worker.on("exit", () => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
  });
}

/** Splits from..to-1 over a worker thread per core. */
async function inWorkers(
  context: DataContext,
  what: string,
  range: { from: number; to: number; total: number },
  taskOf: (from: number, to: number) => GenerateTask | TruthTask,
): Promise<void> {
  context.signal.throwIfAborted();
  const threads = availableParallelism();
  const step = Math.ceil((range.to - range.from) / threads);
  let done = 0;
  let saidMs = performance.now();
  const onDone = (rows: number) => {
    done += rows;
    if (performance.now() - saidMs < sayEveryMs) return;
    saidMs = performance.now();
    context.say(`${what}: ${Math.min(100, Math.round((100 * done) / range.total))} %`);
  };
  const tasks: Promise<void>[] = [];
  for (let from = range.from; from < range.to; from += step)
    tasks.push(runWorker(taskOf(from, Math.min(range.to, from + step)), context.signal, onDone));
  await Promise.all(tasks);
}

/** First images of persons 0..count-1; a file that has some is continued. */
export async function ensureFaces(context: DataContext, count: number): Promise<string> {
  const { dir, dim, seed } = context;
  const path = join(dir, `faces-${dim}-seed${seed}.f32`);
  const marker = `${path}.count`;
  const known = existsSync(marker) ? Number(readFileSync(marker, "utf8")) : 0;
  const had = Math.min(known, rowsIn(path, dim));
  if (had >= count) return path;
  context.say(`generating faces ${had.toLocaleString("en-US")} to ${count.toLocaleString("en-US")} × ${dim}`);
  if (!existsSync(path)) await writeFile(path, "");
  await truncate(path, count * dim * 4);
  await inWorkers(context, "faces", { from: had, to: count, total: count - had }, (from, to) => ({
    kind: "generate",
    path,
    dim,
    seed,
    from,
    to,
  }));
  await writeFile(marker, String(count));
  return path;
}

/** Second images of persons spread over 0..persons-1. */
export async function ensureQueries(context: DataContext, persons: number): Promise<string> {
  const { dir, dim, seed } = context;
  const path = join(dir, `queries-${dim}-seed${seed}-${persons}.f32`);
  if (rowsIn(path, dim) === syntheticQueries) return path;
  const generator = faceGenerator(dim, seed);
  const rows = new Float32Array(syntheticQueries * dim);
  for (let q = 0; q < syntheticQueries; q++)
    rows.set(generator.vector(Math.floor((q * persons) / syntheticQueries), 1), q * dim);
  await writeWhole(path, rows);
  return path;
}

/** Appears under its name only when it is complete. */
async function writeWhole(path: string, data: Float32Array | Uint32Array): Promise<void> {
  await writeFile(`${path}.part`, "");
  await appendFile(`${path}.part`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  await rename(`${path}.part`, path);
}

export interface TruthRequest {
  name: string;
  rowsPath: string;
  /** Key → row of the file; a number stands for that many rows as they are. */
  rowOf: Uint32Array | number;
  dim: number;
  queriesPath: string;
  k: number;
}

/** The k nearest keys of each query by float32 rows and float64 sums. Kept in the folder under the name. */
export async function ensureTruth(context: DataContext, request: TruthRequest): Promise<Uint32Array> {
  const { dim, k, rowOf } = request;
  const queries = rowsIn(request.queriesPath, dim);
  const path = join(context.dir, `${request.name}.truth${k}`);
  if (rowsIn(path, k) === queries) return new Uint32Array(new Uint8Array(readFileSync(path)).buffer);
  const count = typeof rowOf === "number" ? rowOf : rowOf.length;
  const shared = (floats: number) => new SharedArrayBuffer(floats * 4);
  const rows = shared(count * dim);
  if (typeof rowOf === "number") readRows(request.rowsPath, dim, 0, count, new Float32Array(rows));
  else gatherRows(request.rowsPath, dim, rowOf, new Float32Array(rows));
  const asked = shared(queries * dim);
  readRows(request.queriesPath, dim, 0, queries, new Float32Array(asked));
  const truth = shared(queries * k);
  context.say(
    `exact answers of ${request.name}: ${queries} queries over ${count.toLocaleString("en-US")} rows`,
  );
  const total = count * availableParallelism();
  await inWorkers(context, "exact answers", { from: 0, to: queries, total }, (from, to) => ({
    kind: "truth",
    rows,
    queries: asked,
    truth,
    dim,
    k,
    from,
    to,
  }));
  const answer = new Uint32Array(truth).slice();
  await writeWhole(path, answer);
  return answer;
}

export async function syntheticDataset(context: DataContext, rows: number): Promise<Dataset> {
  const { dim, seed } = context;
  const rowsPath = await ensureFaces(context, rows);
  const queriesPath = await ensureQueries(context, rows);
  const name = `${rows}x${dim}-seed${seed}`;
  const k = syntheticK;
  const truth = await ensureTruth(context, { name, rowsPath, rowOf: rows, dim, queriesPath, k });
  return { name, dim, rows, rowsPath, queries: syntheticQueries, queriesPath, k, truth };
}

/** Queries are the images of people who have another one. Undefined where there are no real descriptors. */
export async function realDataset(context: DataContext, quick: boolean): Promise<Dataset | undefined> {
  const real = await loadRealDescriptors();
  if (!real) return undefined;
  const { dim, count } = real;
  const numbers = new Map<string, number>();
  const identities = Uint32Array.from(real.identities, (identity) => {
    const number = numbers.get(identity) ?? numbers.size;
    numbers.set(identity, number);
    return number;
  });
  const images = new Uint32Array(numbers.size);
  for (const identity of identities) images[identity] = (images[identity] ?? 0) + 1;
  const paired = identities.reduce<number[]>((keys, identity, key) => {
    if ((images[identity] ?? 0) > 1) keys.push(key);
    return keys;
  }, []);
  const step = quick ? Math.ceil(paired.length / maxQuickRealQueries) : 1;
  const self = Uint32Array.from(paired.filter((_, i) => i % step === 0));
  const queries = new Float32Array(self.length * dim);
  self.forEach((key, q) => {
    queries.set(real.vectors.subarray(key * dim, (key + 1) * dim), q * dim);
  });
  const rowsPath = join(context.dir, "real.f32");
  const queriesPath = join(context.dir, "real-queries.f32");
  await writeWhole(rowsPath, real.vectors);
  await writeWhole(queriesPath, queries);
  const name = `real-${count}x${dim}`;
  const request = { name: `${name}-${self.length}`, rowsPath, rowOf: count, dim, queriesPath, k: realK };
  const truth = await ensureTruth(context, request);
  const people = { self, identities };
  return { name, dim, rows: count, rowsPath, queries: self.length, queriesPath, k: realK, truth, people };
}
