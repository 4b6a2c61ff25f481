// Worker thread of dataset.ts: generates a range of faces into a file, or finds the exact neighbours of a range of queries.
import { closeSync, openSync, writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { createFaceGenerator, defaultFaceModel } from "@lim/testkit";

export interface GenerateTask {
  kind: "generate";
  path: string;
  dim: number;
  seed: number;
  /** Persons whose first images become rows from..to-1 of the file. */
  from: number;
  to: number;
}
export interface TruthTask {
  kind: "truth";
  rows: SharedArrayBuffer;
  queries: SharedArrayBuffer;
  /** queries × k keys, each row by descending score; this task fills rows from..to-1. */
  truth: SharedArrayBuffer;
  dim: number;
  k: number;
  from: number;
  to: number;
}

const personsPerWrite = 500;
/** Rows that stay in the processor's cache while a thread's queries pass over them. */
const rowsPerBlock = 256;

export function faceGenerator(dim: number, seed: number) {
  const { effectiveDim } = defaultFaceModel;
  return createFaceGenerator({ dim, seed, effectiveDim: (dim * effectiveDim) / defaultFaceModel.dim });
}

function generate({ path, dim, seed, from, to }: GenerateTask): void {
  const generator = faceGenerator(dim, seed);
  const file = openSync(path, "r+");
  for (let first = from; first < to; first += personsPerWrite) {
    const persons = Math.min(personsPerWrite, to - first);
    const rows = generator.matrix({ firstPerson: first, persons });
    writeSync(file, new Uint8Array(rows.buffer), 0, rows.byteLength, first * dim * 4);
    parentPort?.postMessage(persons);
  }
  closeSync(file);
}

/** Keeps the k best of one query, best first. */
function offer(scores: Float64Array, keys: Uint32Array, at: number, k: number, score: number, key: number) {
  if (!(score > (scores[at + k - 1] ?? 0))) return;
  let i = at + k - 1;
  for (; i > at && score > (scores[i - 1] ?? 0); i--) {
    scores[i] = scores[i - 1] ?? 0;
    keys[i] = keys[i - 1] ?? 0;
  }
  scores[i] = score;
  keys[i] = key;
}

function findExact(task: TruthTask): void {
  const { dim, k, from, to } = task;
  const rows = new Float32Array(task.rows);
  const queries = new Float32Array(task.queries, from * dim * 4, (to - from) * dim);
  const keys = new Uint32Array(task.truth, from * k * 4, (to - from) * k);
  const scores = new Float64Array(keys.length).fill(-Infinity);
  const count = rows.length / dim;
  for (let block = 0; block < count; block += rowsPerBlock) {
    const end = Math.min(count, block + rowsPerBlock);
    for (let q = 0; q < to - from; q++) {
      const query = queries.subarray(q * dim, (q + 1) * dim);
      for (let row = block; row < end; row++)
        offer(scores, keys, q * k, k, dot(rows, row * dim, query, dim), row);
    }
    if (block % (rowsPerBlock * 16) === 0) parentPort?.postMessage(rowsPerBlock * 16);
  }
}

/** Four sums side by side; dimensions that four does not divide end in a fifth. */
function dot(rows: Float32Array, at: number, query: Float32Array, dim: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (; i + 3 < dim; i += 4) {
    a += (rows[at + i] as number) * (query[i] as number);
    b += (rows[at + i + 1] as number) * (query[i + 1] as number);
    c += (rows[at + i + 2] as number) * (query[i + 2] as number);
    d += (rows[at + i + 3] as number) * (query[i + 3] as number);
  }
  for (; i < dim; i++) a += (rows[at + i] as number) * (query[i] as number);
  return a + b + (c + d);
}

const task = workerData as GenerateTask | TruthTask | undefined;
if (task?.kind === "generate") generate(task);
else if (task?.kind === "truth") findExact(task);
