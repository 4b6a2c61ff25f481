import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HnswError } from "../src/errors.ts";
import { type FileHeader, planFile } from "../src/file/format.ts";
import { loadIndex, saveIndex } from "../src/file/index.ts";
import type { LoadOptions } from "../src/file/load.ts";
import type { RunInPool } from "../src/index-state.ts";
import { craftHeader, craftWord, headerIn } from "./file-craft.ts";
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
} from "./file-host.ts";

const folder = mkdtempSync(join(tmpdir(), "hnsw-errors-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, "index");
const loadBench = newBench(1 << 26);
const asFile: LoadOptions = { rows: undefined, rowsPath: undefined, capacity: undefined, signal: undefined };
let built: Built;
let bytes: Uint8Array<ArrayBuffer>;

beforeAll(async () => {
  built = createIndex({ dim: 64, metric: "l2", m: 8, efConstruction: 40, seed: 2, rows: "float32" }, 400);
  const random = numbersFrom(4);
  for (let slot = 0; slot < 400; slot++) insertAt(built, slot, slot, randomVector(random, 64));
  removeSlots(built, [10]);
  await saveIndex(built.state, { path }, saverOf(runIn(built.bench)));
  bytes = new Uint8Array(readFileSync(path));
});

async function loadBytes(changed: Uint8Array, options: Partial<LoadOptions> = {}): Promise<unknown> {
  const at = join(folder, "changed");
  writeFileSync(at, changed);
  return loadIndex(at, { ...asFile, ...options }, hostOf(loadBench));
}

async function refusalOf(changed: Uint8Array, options: Partial<LoadOptions> = {}): Promise<string> {
  const error = await loadBytes(changed, options).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(HnswError);
  expect(error).toMatchObject({ code: "refused" });
  return error instanceof HnswError ? error.message : "";
}

const headerOf = (): FileHeader => headerIn(bytes);
const withHeader = (changes: Partial<FileHeader>): Uint8Array => craftHeader(bytes, changes);
const withWord = (section: string, word: number, value: number): Uint8Array =>
  craftWord(bytes, section, word, value);

describe("a load says what is wrong", () => {
  test("not an index", async () => {
    expect(await refusalOf(new Uint8Array())).toBe("not an index");
    expect(await refusalOf(Buffer.from("SQLite format 3\0".repeat(40)))).toBe("not an index");
    expect(await refusalOf(new Uint8Array(5000))).toBe("not an index");
    mkdirSync(join(folder, "folder"));
    await expect(loadIndex(join(folder, "folder"), asFile, hostOf(loadBench))).rejects.toThrow(
      /not an index/,
    );
  });
  test("no file", async () => {
    await expect(loadIndex(join(folder, "nothing"), asFile, hostOf(loadBench))).rejects.toMatchObject({
      code: "failed",
      message: expect.stringContaining("ENOENT"),
    });
  });
  test("too new, too old", async () => {
    const copy = new Uint8Array(bytes);
    new DataView(copy.buffer).setUint32(8, 3, true);
    expect(await refusalOf(copy)).toMatch(/^too new: format 3/);
    new DataView(copy.buffer).setUint32(8, 1, true);
    expect(await refusalOf(copy)).toMatch(/^too old: format 1/);
  });
  test("truncated", async () => {
    for (const length of [4, 9, 100, 255, 256, 5000, bytes.length - 1])
      expect(await refusalOf(bytes.slice(0, length))).toMatch(/^truncated/);
  });
  test("extended", async () => {
    expect(await refusalOf(Buffer.concat([bytes, Buffer.alloc(1)]))).toMatch(/^extended/);
  });
  test("corrupt, and where", async () => {
    const plan = planFile(headerOf());
    const flipped = (at: number): Uint8Array => {
      const copy = new Uint8Array(bytes);
      copy[at] = (copy[at] ?? 0) ^ 0x10;
      return copy;
    };
    expect(await refusalOf(flipped(20))).toBe("corrupt: the header");
    expect(await refusalOf(flipped(plan.tableAt + 3))).toBe("corrupt: the table of checksums");
    expect(await refusalOf(flipped(plan.endAt + 3))).toBe("corrupt: the end mark");
    for (const { name, at, items, itemBytes } of plan.sections) {
      const message = `corrupt: the section "${name}"`;
      expect(await refusalOf(flipped(at))).toBe(message);
      expect(await refusalOf(flipped(at + items * itemBytes - 1))).toBe(message);
    }
  });
  test("chunks that changed places", async () => {
    const { sections, tableAt } = planFile(headerOf());
    const [coarse, fine] = ["coarse", "fine"].map((wanted) => sections.find(({ name }) => name === wanted));
    if (coarse === undefined || fine === undefined) throw new Error("no planes");
    const copy = new Uint8Array(bytes);
    const swap = (a: number, b: number, length: number) => {
      copy.set(bytes.subarray(b, b + length), a);
      copy.set(bytes.subarray(a, a + length), b);
    };
    swap(coarse.at, fine.at, coarse.items * coarse.itemBytes);
    swap(tableAt + 8 * coarse.firstChunk, tableAt + 8 * fine.firstChunk, 8);
    expect(await refusalOf(copy)).toBe("corrupt: the table of checksums");
  });
});

describe("a load refuses what its checksums vouch for and its rules do not", () => {
  const links = 16;
  test("headers", async () => {
    const cases: [Partial<FileHeader>, RegExp][] = [
      [{ dim: 0 }, /dim 0/],
      [{ dim: 5000 }, /dim 5000/],
      [{ m: 3 }, /m 3/],
      [{ m: 129 }, /m 129/],
      [{ efConstruction: 1 << 20 }, /efConstruction/],
      [{ slots: 398 }, /live of 398 slots/],
      [{ live: 398 }, /399 slots have a key/],
      [{ entrySlot: 400 }, /entry point 400/],
      [{ entrySlot: 10, entryLevel: headerOf().entryLevel }, /entry point is free/],
      [{ rows: "none" }, /rows without a place/],
    ];
    for (const [changes, message] of cases) {
      const refused = await refusalOf(withHeader(changes));
      expect(refused).toMatch(/^inconsistent/);
      expect(refused).toMatch(message);
    }
    expect(await refusalOf(withHeader({ dim: 65 }))).toMatch(/^inconsistent/);
    const lower = headerOf().entrySlot === 1 ? 2 : 1;
    expect(await refusalOf(withHeader({ entrySlot: lower }))).toMatch(/not on its level/);
  });
  test("links", async () => {
    const cases: [number, number, RegExp][] = [
      [links * 5, 400, /outside the index \(slot 5\)/],
      [links * 5, 0xfffffffe, /outside the index/],
      [links * 5, 10, /to a free slot \(slot 5\)/],
      [links * 5, 5, /links to itself \(slot 5\)/],
      [links * 10 + 3, 7, /a free slot has links \(slot 10\)/],
      [links * 5, 0xffff_ffff, /goes on after its end/],
    ];
    for (const [word, value, message] of cases)
      expect(await refusalOf(withWord("links", word, value))).toMatch(message);
    const plan = planFile(headerOf());
    const at = plan.sections.find(({ name }) => name === "links")?.at ?? 0;
    const list = new Uint32Array(bytes.buffer.slice(at + 4 * links * 5, at + 4 * links * 6));
    for (const [i, j] of [
      [0, 1],
      [1, 2],
      [0, 3],
    ] as const)
      expect(await refusalOf(withWord("links", links * 5 + i, list[j] ?? 0))).toMatch(/there twice/);
    // One of a group of eight slots is above the ground.
    const levels = Array.from({ length: 400 }, (_, slot) => built.bench.exports.levelOf(slot));
    const ground = levels.indexOf(0);
    const high = levels.findIndex((level, slot) => level > 0 && slot !== 10);
    expect(await refusalOf(withWord("upper", 8 * (high >> 3), ground))).toMatch(/not on its level/);
  });
  test("numbers", async () => {
    for (const bits of [0, 0x8000_0001, 0x7f80_0000, 0x7fc0_0000])
      expect(await refusalOf(withWord("scale", 5, bits))).toMatch(/a scale is not/);
    for (const bits of [0xbf80_0000, 0x7f80_0000, 0xffc0_0000])
      expect(await refusalOf(withWord("bias", 5, bits))).toMatch(/a squared norm is not/);
    const spoiled = withWord("rows", 64 * 5 + 9, 0x7f80_0000);
    expect(await refusalOf(spoiled)).toMatch(/not a finite number/);
    await loadBytes(spoiled, { checkRows: false });
    await loadBytes(spoiled, { rows: "none" });
  });
});

describe("a save that fails leaves nothing", () => {
  const target = join(folder, "target");
  const save = (run: RunInPool, at = target, rowsPath?: string, signal?: AbortSignal) =>
    saveIndex(built.state, { path: at, rowsPath }, saverOf(run, signal));

  test("a full disk", async () => {
    const rowsPath = join(folder, "target.rows");
    const run = runIn(built.bench);
    let writes = 0;
    const filling: RunInPool = (step, argument) => {
      if (argument.what === "write" && ++writes === 4)
        return Promise.reject(new HnswError("disk_full", "ENOSPC: no space left on device, write"));
      return run(step, argument);
    };
    await expect(save(filling, target, rowsPath)).rejects.toMatchObject({ code: "disk_full" });
    expect([target, rowsPath].filter(existsSync)).toEqual([]);
  });
  // The device that is always full: writes to it fail as those to a full disk do.
  test.runIf(existsSync("/dev/full"))("a device without space", async () => {
    const run = runIn(built.bench);
    const full = openSync("/dev/full", "w");
    const diverted: RunInPool = (step, argument) =>
      run(step, argument.what === "write" ? { ...argument, fd: full } : argument);
    try {
      await expect(save(diverted)).rejects.toMatchObject({ code: "disk_full" });
    } finally {
      closeSync(full);
    }
    expect(existsSync(target)).toBe(false);
  });
  test("a folder that is not there", async () => {
    await expect(save(runIn(built.bench), join(folder, "no", "target"))).rejects.toMatchObject({
      code: "failed",
      message: expect.stringContaining("ENOENT"),
    });
    const rowsPath = join(folder, "no", "rows");
    await expect(save(runIn(built.bench), target, rowsPath)).rejects.toMatchObject({ code: "failed" });
    expect(existsSync(target)).toBe(false);
  });
  test("an abort", async () => {
    const controller = new AbortController();
    const run = runIn(built.bench);
    const aborting: RunInPool = (step, argument) => {
      if (argument.what === "write") controller.abort();
      return run(step, argument);
    };
    await expect(save(aborting, target, undefined, controller.signal)).rejects.toMatchObject({
      code: "aborted",
    });
    expect(existsSync(target)).toBe(false);
    await expect(
      loadIndex(path, { ...asFile, signal: controller.signal }, hostOf(loadBench)),
    ).rejects.toMatchObject({ code: "aborted" });
  });
  test("bad arguments", async () => {
    await expect(save(runIn(built.bench), target, target)).rejects.toMatchObject({ code: "bad_input" });
    const working = { rows: { file: path } };
    await expect(loadIndex(path, { ...asFile, ...working }, hostOf(loadBench))).rejects.toMatchObject({
      code: "bad_input",
    });
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });
});
