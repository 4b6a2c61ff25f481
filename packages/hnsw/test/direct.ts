// The engine without the runtime: one instance on a memory of its own, compiled with its kernels within reach.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { EngineExports } from "../src/exports.ts";
import {
  addressOf,
  controlAt,
  type Layout,
  layOut,
  maxBatchQueries,
  memoryBytesFor,
  memoryLimitBytes,
  pageBytes,
  type Shape,
  writeControl,
} from "../src/layout.ts";
import { noWord } from "../src/limits.ts";

type Address = WebAssembly.Global<number>;

/** assembly/testing.ts */
export interface TestingExports extends EngineExports {
  readonly query8At: Address;
  readonly other8At: Address;
  readonly batchAt: Address;
  readonly distancesAt: Address;
  normaliseRow(row: number): void;
  quantise(row: number, into: number): number;
  walkFour(batch: number, query: number, bound: number): number;
  walkMargin(query: number): number;
  dotFloat32(a: number, b: number, count: number): number;
  squaredFloat32(a: number, b: number, count: number): number;
  narrowRow(from: number, into: number, count: number): void;
  widenRow(from: number, into: number, count: number): void;
  useQuery(query: number, scale: number, bias: number): void;
  useSlot(slot: number, into: number): void;
  walkTo(slot: number, query: number): number;
  fineTo(slot: number, query: number): number;
  orderedBits(distance: number): number;
  throughKey(distance: number, slot: number): number;
  slotThroughKey(distance: number, slot: number): number;
}

/** Compiles the engine's testing entry. Takes some seconds. */
export function compileTesting(): WebAssembly.Module {
  const folder = mkdtempSync(join(tmpdir(), "hnsw-testing-"));
  try {
    const out = join(folder, "testing.wasm");
    const script = fileURLToPath(new URL("../scripts/assemble.mjs", import.meta.url));
    execFileSync(process.execPath, [script, "--entry", "testing.ts", "--out", out]);
    return new WebAssembly.Module(readFileSync(out));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export interface Engine {
  exports: TestingExports;
  memory: WebAssembly.Memory;
  layout: Layout;
  floats(at: number, count: number): Float32Array;
  bytes(at: number, count: number): Uint8Array;
  /** Writes a row, padded with zeros, as query `index`; returns its address. */
  writeQuery(index: number, row: Float32Array): number;
  /** Gives a slot to a key of version 0 and links it; `slots` = those in use. */
  add(slot: number, key: number, row: Float32Array, slots?: number): void;
}

export function openEngine(
  module: WebAssembly.Module,
  shape: Partial<Shape> & { dim: number },
  slots = 64,
): Engine {
  const layout = layOut({
    metric: "ip",
    m: 16,
    efConstruction: 200,
    seed: 1,
    rows: "float32",
    instances: 1,
    ...shape,
  });
  const memory = new WebAssembly.Memory({
    initial: memoryBytesFor(layout, slots) / pageBytes,
    maximum: memoryLimitBytes / pageBytes,
    shared: true,
  });
  const abort = () => {
    throw new Error("the engine gave up");
  };
  const instance = new WebAssembly.Instance(module, { env: { memory, abort } });
  const exports = instance.exports as unknown as TestingExports;
  writeControl(memory, layout);
  exports.attach(controlAt, 0);
  const floats = (at: number, count: number) => new Float32Array(memory.buffer, at, count);
  const bytes = (at: number, count: number) => new Uint8Array(memory.buffer, at, count);
  const setWord = (array: "born" | "died" | "key", slot: number, value: number) => {
    new Uint32Array(memory.buffer, addressOf(layout, array, slot, 4), 1)[0] = value;
  };
  for (let slot = 0; slot < slots; slot++) {
    setWord("born", slot, noWord);
    setWord("key", slot, noWord);
  }
  const { paddedDim } = layout;
  const writeQuery = (index: number, row: Float32Array) => {
    if (index >= maxBatchQueries) throw new RangeError(`query ${index}`);
    const at = exports.queriesAt.value + index * paddedDim * 4;
    const target = floats(at, paddedDim);
    target.fill(0);
    target.set(row);
    return at;
  };
  const add = (slot: number, key: number, row: Float32Array, used = slot + 1) => {
    setWord("key", slot, key);
    setWord("died", slot, noWord);
    setWord("born", slot, 0);
    exports.insert(slot, writeQuery(0, row), used);
  };
  return { exports, memory, layout, floats, bytes, writeQuery, add };
}
