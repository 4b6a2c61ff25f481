/// <reference path="../src/webassembly.d.ts" />
// Files without a pool: a host whose only thread is this one, for tests and the campaign of mutations.
import { readFileSync } from "node:fs";
import type { FileExports } from "../src/file/messages.ts";
import { runFilePart } from "../src/file/worker-side.ts";
import type { IndexState, LoadHost, RunInPool } from "../src/index-state.ts";
import {
  addressOf,
  controlAt,
  type Layout,
  layOut,
  memoryBytesFor,
  pageBytes,
  type Shape,
  writeControl,
} from "../src/layout.ts";

const noWord = 0xffff_ffff;
const wasm = await WebAssembly.compile(readFileSync(new URL("../dist/hnsw.wasm", import.meta.url)));
const maximumPages = 65_536;

/** A memory and the one instance that works on it. */
export interface Bench {
  memory: WebAssembly.Memory;
  exports: FileExports;
}

export function newBench(sizeBytes: number): Bench {
  const initial = Math.ceil(sizeBytes / pageBytes);
  const memory = new WebAssembly.Memory({ initial, maximum: maximumPages, shared: true });
  const abort = () => {
    throw new Error("the engine gave up");
  };
  const instance = new WebAssembly.Instance(wasm, { env: { memory, abort } });
  return { memory, exports: instance.exports as unknown as FileExports };
}

export const runIn =
  ({ memory, exports }: Bench): RunInPool =>
  async (step, argument) =>
    runFilePart(exports, memory, step, structuredClone(argument));

/** What saving needs. */
export const saverOf = (runInPool: RunInPool, signal?: AbortSignal) => ({ runInPool, threads: 1, signal });

/** A host that uses `bench` again and again. Its memory grows where it must. */
export function hostOf(bench: Bench): LoadHost {
  return {
    threads: 1,
    instances: 1,
    takeMemory(sizeBytes) {
      const missing = Math.ceil((sizeBytes - bench.memory.buffer.byteLength) / pageBytes);
      if (missing > 0) bench.memory.grow(missing);
      return bench.memory;
    },
    open(_memory, layout) {
      bench.exports.attach(controlAt, 0);
      zeroQueries(bench, layout);
      return runIn(bench);
    },
  };
}

function zeroQueries({ memory, exports }: Bench, layout: Layout): void {
  new Float32Array(memory.buffer, exports.queriesAt.value, layout.paddedDim * 16).fill(0);
}

export interface Built {
  bench: Bench;
  state: IndexState;
}

/** An empty index with room for `capacity` slots. */
export function createIndex(shape: Omit<Shape, "instances">, capacity: number, bench?: Bench): Built {
  const layout = layOut({ ...shape, instances: 1 });
  const used = bench ?? newBench(memoryBytesFor(layout, capacity));
  const { memory } = used;
  writeControl(memory, layout);
  hostOf(used).open(memory, layout, undefined);
  return { bench: used, state: { memory, layout, used: 0, committedVersion: 0, rowsFile: undefined } };
}

/** Word of a slot in one of the arrays of words. */
export function wordAt(
  state: IndexState,
  array: "key" | "born" | "died" | "lock",
  slot: number,
): Uint32Array {
  return new Uint32Array(state.memory.buffer, addressOf(state.layout, array, slot, 4), 1);
}

function putRow({ bench, state }: Built, vector: Float32Array): number {
  const at = bench.exports.queriesAt.value;
  new Float32Array(state.memory.buffer, at, state.layout.paddedDim).fill(0).set(vector);
  return at;
}

export function insertAt(built: Built, slot: number, key: number, vector: Float32Array): void {
  const { bench, state } = built;
  // The memory may have held another index: the runtime makes new segments empty as well.
  if (slot >= state.used) wordAt(state, "lock", slot)[0] = 0;
  state.used = Math.max(state.used, slot + 1);
  wordAt(state, "key", slot)[0] = key;
  wordAt(state, "born", slot)[0] = state.committedVersion;
  wordAt(state, "died", slot)[0] = noWord;
  bench.exports.insert(slot, putRow(built, vector), state.used);
}

/** Removes slots at once: repaired links, then free. */
export function removeSlots({ bench, state }: Built, slots: number[]): void {
  state.committedVersion++;
  for (const slot of slots) wordAt(state, "died", slot)[0] = state.committedVersion;
  const { committedVersion, used } = state;
  bench.exports.sweepRange(0, used, committedVersion, used);
  bench.exports.mendEntry(committedVersion, used);
  for (const slot of slots) {
    wordAt(state, "key", slot)[0] = noWord;
    wordAt(state, "born", slot)[0] = noWord;
    wordAt(state, "died", slot)[0] = 0;
  }
}

export interface Answer {
  keys: number[];
  scores: number[];
}

export function searchFor(built: Built, vector: Float32Array, k: number, ef: number, depth: number): Answer {
  const { bench, state } = built;
  const { exports } = bench;
  putRow(built, vector);
  const n = exports.search(0, k, ef, depth, state.used, state.committedVersion, false);
  const { buffer } = state.memory;
  return {
    keys: [...new Uint32Array(buffer, exports.outKeysAt.value, n)],
    scores: [...new Float32Array(buffer, exports.outScoresAt.value, n)],
  };
}

/** Numbers in [0, 1) by seed (mulberry32). */
export function numbersFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function randomVector(random: () => number, dim: number): Float32Array {
  return Float32Array.from({ length: dim }, () => random() + random() + random() - 1.5);
}
