import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadIndex, saveIndex } from "../src/file/index.ts";
import type { LoadOptions } from "../src/file/load.ts";
import { xxh64 } from "../src/file/xxh64.ts";
import type { IndexState } from "../src/index-state.ts";
import type { Metric, RowKind } from "../src/layout.ts";
import {
  type Built,
  createIndex,
  hostOf,
  insertAt,
  newBench,
  numbersFrom,
  randomVector,
  removeSlots,
  runIn,
  saverOf,
  searchFor,
} from "./file-host.ts";

const folder = mkdtempSync(join(tmpdir(), "hnsw-file-"));
afterAll(() => rmSync(folder, { recursive: true }));
const seed = 20_260_101;
const asFile: LoadOptions = { rows: undefined, rowsPath: undefined, capacity: undefined, signal: undefined };
const loadBench = newBench(1 << 26);

function build(dim: number, metric: Metric, rows: RowKind, count: number, m = 8): Built {
  const random = numbersFrom(seed + dim);
  const built = createIndex({ dim, metric, m, efConstruction: 40, seed: 7, rows }, count + 16);
  for (let slot = 0; slot < count; slot++) insertAt(built, slot, 3 * slot + 1, randomVector(random, dim));
  return built;
}

const save = ({ bench, state }: Built, path: string, rowsPath?: string) =>
  saveIndex(state, { path, rowsPath }, saverOf(runIn(bench)));

async function load(path: string, options: Partial<LoadOptions> = {}): Promise<Built> {
  const state: IndexState = await loadIndex(path, { ...asFile, ...options }, hostOf(loadBench));
  return { bench: loadBench, state };
}

function answersOf(built: Built, depth = 20): unknown[] {
  const random = numbersFrom(99);
  const { dim } = built.state.layout;
  return Array.from({ length: 12 }, () => searchFor(built, randomVector(random, dim), 10, 48, depth));
}

test("XXH64 is that of its specification, in JavaScript and in the sandbox", () => {
  const known: [string, bigint, bigint][] = [
    ["", 0n, 0xef46db3751d8e999n],
    ["a", 0n, 0xd24ec4f1a98c6e5bn],
    ["abc", 0n, 0x44bc2cf5ad770999n],
    ["Nobody inspects the spammish repetition", 0n, 0xfbcea83c8a378bf1n],
  ];
  const { exports, memory } = newBench(1 << 20);
  const bytes = new Uint8Array(memory.buffer);
  const at = 200_003;
  const inSandbox = (text: Uint8Array, s: bigint): bigint => {
    bytes.set(text, at);
    return BigInt.asUintN(64, exports.checksum(at, text.length, s));
  };
  for (const [text, s, sum] of known) {
    expect(xxh64(Buffer.from(text), s)).toBe(sum);
    expect(inSandbox(Buffer.from(text), s)).toBe(sum);
  }
  const random = numbersFrom(seed);
  for (let length = 0; length < 200; length++) {
    const text = Uint8Array.from({ length }, () => random() * 256);
    expect(inSandbox(text, BigInt(length))).toBe(xxh64(text, BigInt(length)));
  }
});

describe("round trip", () => {
  const cases: [number, Metric, RowKind][] = [];
  for (const dim of [64, 100, 128, 512, 1024]) cases.push([dim, "cosine", "float32"]);
  for (const metric of ["ip", "l2"] as const)
    for (const rows of ["none", "float32", "float16"] as const) cases.push([100, metric, rows]);
  cases.push([64, "cosine", "none"], [1, "l2", "float16"]);

  test.each(cases)("dim %i, %s, rows %s", async (dim, metric, rows) => {
    const built = build(dim, metric, rows, 400);
    removeSlots(built, [0, 17, 18, 256, 399]);
    const before = answersOf(built);
    const path = join(folder, "round");
    await save(built, path);
    const bytes = readFileSync(path);
    const loaded = await load(path);
    expect(answersOf(loaded)).toEqual(before);
    expect(loaded.state).toMatchObject({ used: 400, committedVersion: 0, rowsFile: undefined });
    // The same content is the same file.
    const again = join(folder, "again");
    await save(loaded, again);
    expect(readFileSync(again).equals(bytes)).toBe(true);
  });

  test("segments, and changes after a load, as if it had never been saved", async () => {
    const built = build(64, "l2", "float32", 4300, 6);
    const path = join(folder, "segments");
    await save(built, path);
    const loaded = await load(path, { capacity: 6000 });
    expect(answersOf(loaded)).toEqual(answersOf(built));
    for (const one of [built, loaded]) {
      const random = numbersFrom(5);
      removeSlots(one, [3, 4096, 4097]);
      for (const slot of [3, 4096, 4300, 4301]) insertAt(one, slot, 90_000 + slot, randomVector(random, 64));
    }
    expect(answersOf(loaded)).toEqual(answersOf(built));
    await save(built, join(folder, "one"));
    await save(loaded, join(folder, "two"));
    expect(readFileSync(join(folder, "one")).equals(readFileSync(join(folder, "two")))).toBe(true);
  });

  test("an empty index, and one from which everything was removed", async () => {
    const built = build(64, "cosine", "float32", 0);
    const path = join(folder, "empty");
    await save(built, path);
    const loaded = await load(path);
    expect(loaded.state.used).toBe(0);
    expect(answersOf(loaded)).toEqual(answersOf(built));
    insertAt(loaded, 0, 5, randomVector(numbersFrom(1), 64));
    expect(searchFor(loaded, randomVector(numbersFrom(1), 64), 3, 10, 0).keys).toEqual([5]);
    removeSlots(loaded, [0]);
    await save(loaded, path);
    const again = await load(path);
    expect(again.state.used).toBe(1);
    expect(searchFor(again, randomVector(numbersFrom(1), 64), 3, 10, 0).keys).toEqual([]);
  });

  test("a memory that holds another index's bytes", async () => {
    const big = build(128, "ip", "float32", 900);
    const small = build(64, "cosine", "float16", 300);
    await save(big, join(folder, "big"));
    await save(small, join(folder, "small"));
    for (const [name, built] of [
      ["big", big],
      ["small", small],
      ["big", big],
    ] as const)
      expect(answersOf(await load(join(folder, name)))).toEqual(answersOf(built));
  });
});

describe("rows", () => {
  test("in a file of their own", async () => {
    const built = build(100, "cosine", "float32", 300);
    const path = join(folder, "apart");
    const rowsPath = join(folder, "apart.rows");
    await save(built, path, rowsPath);
    expect(answersOf(await load(path, { rowsPath }))).toEqual(answersOf(built));
    expect(answersOf(await load(path, { rows: "none" }), 0)).toEqual(answersOf(built, 0));
    await expect(load(path)).rejects.toThrow(/rows: they are in a file of their own/);
    await expect(load(path, { rowsPath: path })).rejects.toThrow(/not a file of rows/);
    await expect(load(rowsPath)).rejects.toThrow(/not an index/);
    const other = build(100, "cosine", "float32", 301);
    await save(other, join(folder, "other"), join(folder, "other.rows"));
    await expect(load(path, { rowsPath: join(folder, "other.rows") })).rejects.toThrow(/another index/);
    const bytes = readFileSync(rowsPath);
    bytes[bytes.length - 5000] = (bytes[bytes.length - 5000] ?? 0) ^ 1;
    writeFileSync(rowsPath, bytes);
    await expect(load(path, { rowsPath })).rejects.toThrow(/corrupt: the section "rows"/);
  });

  test("narrowed, left out, or refused", async () => {
    const full = build(100, "l2", "float32", 300);
    const path = join(folder, "full");
    await save(full, path);
    const narrow = build(100, "l2", "float16", 300);
    expect(answersOf(await load(path, { rows: "float16" }))).toEqual(answersOf(narrow));
    expect(answersOf(await load(path, { rows: "none" }))).toEqual(answersOf(full, 0));
    const halves = join(folder, "halves");
    await save(narrow, halves);
    await expect(load(halves, { rows: "float32" })).rejects.toThrow(/file has float16/);
    await expect(load(halves, { rows: { file: join(folder, "w") } })).rejects.toThrow(/file has float16/);
    const bare = join(folder, "bare");
    await save(await load(path, { rows: "none" }), bare);
    await expect(load(bare, { rows: "float16" })).rejects.toThrow(/the file has none/);
  });

  test("copied to a working file, and saved from there", async () => {
    const built = build(100, "ip", "float32", 700);
    removeSlots(built, [5, 6]);
    const path = join(folder, "source");
    await save(built, path);
    const working = join(folder, "working");
    const loaded = await load(path, { rows: { file: working } });
    expect(loaded.state).toMatchObject({
      rowsFile: { path: working, mode: "private" },
      layout: { rows: "none" },
    });
    expect(statSync(working).size).toBe(256 + 700 * 128 * 4);
    const again = join(folder, "from-working");
    await save(loaded, again);
    expect(readFileSync(again).equals(readFileSync(path))).toBe(true);
    truncateSync(working, 256 + 699 * 128 * 4);
    await expect(save(loaded, again)).rejects.toMatchObject({ code: "failed" });
    expect(() => statSync(again)).toThrow(/ENOENT/);
    truncateSync(path, 100_000);
    await expect(load(path, { rows: { file: join(folder, "never") } })).rejects.toThrow(/truncated/);
    expect(() => statSync(join(folder, "never"))).toThrow(/ENOENT/);
  });
});

test("bytes lie where FORMAT.md says", async () => {
  const built = build(100, "l2", "float32", 300);
  removeSlots(built, [4]);
  const path = join(folder, "format");
  await save(built, path);
  const bytes = readFileSync(path);
  expect(bytes.subarray(0, 8).toString("latin1")).toBe("\x89HNSW\r\n\x1a");
  const words = Array.from({ length: 11 }, (_, i) => bytes.readUInt32LE(8 + 4 * i));
  expect(words).toEqual([2, 256, 100, 2, 8, 40, 7, 1, 1, 300, 299]);
  expect(bytes.readBigUInt64LE(72)).toBe(BigInt(bytes.length));
  expect(bytes.readBigUInt64LE(248)).toBe(xxh64(bytes.subarray(0, 248)));
  const chunks = bytes.readUInt32LE(68);
  const tableAt = bytes.length - 16 - 8 * chunks;
  expect(bytes.readBigUInt64LE(80)).toBe(xxh64(bytes.subarray(tableAt, tableAt + 8 * chunks)));
  const keysAt = 256;
  expect(bytes.readBigUInt64LE(tableAt)).toBe(xxh64(bytes.subarray(keysAt, keysAt + 1200), 0n));
  expect([3, 4, 5].map((slot) => bytes.readUInt32LE(keysAt + 4 * slot))).toEqual([10, 0xffffffff, 16]);
  const rowsAt = tableAt - 300 * 512;
  const random = numbersFrom(seed + 100);
  const rows = Array.from({ length: 300 }, () => randomVector(random, 100));
  const rowAt = (slot: number) =>
    Array.from({ length: 128 }, (_, i) => bytes.readFloatLE(rowsAt + 512 * slot + 4 * i));
  expect(rowAt(7)).toEqual([...(rows[7] ?? []), ...Array(28).fill(0)]);
  expect(rowAt(4)).toEqual(Array(128).fill(0));
  expect(bytes.subarray(-16, -8).toString("latin1")).toBe("HNSW-end");
  expect(bytes.subarray(-8).equals(bytes.subarray(248, 256))).toBe(true);
});
