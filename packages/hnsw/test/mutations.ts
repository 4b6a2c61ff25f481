// A campaign of damaged files. Half are damaged and left so: each must be refused, or answer as the original does. Of
// the other half every checksum is made right again, so that only the validator stands between the bytes and the
// searches: each must be refused, or answer with keys that exist. A trap, a hang or any other error is a violation.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HnswError } from "../src/errors.ts";
import {
  chunksOf,
  encodeEnd,
  encodeHeader,
  type FileHeader,
  type FileKind,
  type FilePlan,
  headerBytes,
  planFile,
  readFields,
} from "../src/file/format.ts";
import { loadIndex, saveIndex } from "../src/file/index.ts";
import type { Metric, RowKind } from "../src/layout.ts";
import { craftHeader } from "./file-craft.ts";
import {
  type Answer,
  type Bench,
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
  wordAt,
} from "./file-host.ts";

const noWord = 0xffff_ffff;
const maxRepairedSlots = 100_000;
const maxRepairedBytes = 1 << 24;
const searches = 3;

interface Original {
  name: string;
  /** The file that is damaged: an index, or rows that have a file of their own beside `index`. */
  bytes: Uint8Array;
  index: Uint8Array | undefined;
  header: FileHeader;
  plan: FilePlan;
  answers: Answer[];
  /** Without the re-rank. */
  bareAnswers: Answer[];
}

export interface Outcome {
  cases: number;
  refused: Record<string, number>;
  answered: number;
  /** Of the answered: damage that changed nothing. */
  unchanged: number;
  violations: string[];
}

type Random = () => number;
const below = (random: Random, n: number): number => Math.floor(random() * n);
const pick = <T>(random: Random, list: readonly T[]): T => {
  const one = list[below(random, list.length)];
  if (one === undefined) throw new RangeError("nothing to pick from");
  return one;
};

interface Kind {
  name: string;
  metric: Metric;
  rows: RowKind;
  m: number;
  count: number;
  apart?: true;
}
/** Several levels, free slots, one or two segments, all kinds of rows. */
const kinds: Kind[] = [
  { name: "l2", metric: "l2", rows: "float32", m: 4, count: 300 },
  { name: "cosine", metric: "cosine", rows: "float16", m: 5, count: 400 },
  { name: "segments", metric: "ip", rows: "none", m: 4, count: 4130 },
  { name: "apart", metric: "l2", rows: "float32", m: 4, count: 200, apart: true },
];

function answersOf(built: Built, depth = 20): Answer[] {
  const random = numbersFrom(11);
  const { dim } = built.state.layout;
  return Array.from({ length: searches }, () => searchFor(built, randomVector(random, dim), 10, 40, depth));
}

async function makeOriginals(folder: string): Promise<Original[]> {
  const originals: Original[] = [];
  for (const { name, metric, rows, m, count, apart } of kinds) {
    const random = numbersFrom(count);
    const built = createIndex({ dim: 64, metric, m, efConstruction: 20, seed: 3, rows }, count);
    for (let slot = 0; slot < count; slot++) insertAt(built, slot, 2 * slot + 5, randomVector(random, 64));
    removeSlots(
      built,
      Array.from({ length: 20 }, (_, i) => 7 * i + 2),
    );
    const path = join(folder, `${name}.original`);
    const rowsPath = `${path}.rows`;
    await saveIndex(built.state, { path, rowsPath: apart && rowsPath }, saverOf(runIn(built.bench)));
    const index = apart && new Uint8Array(readFileSync(path));
    const bytes = new Uint8Array(readFileSync(apart ? rowsPath : path));
    const header = readFields(new DataView(bytes.buffer), apart ? "rows" : "index");
    const [answers, bareAnswers] = [answersOf(built), answersOf(built, 0)];
    originals.push({ name, bytes, index, header, plan: planFile(header), answers, bareAnswers });
  }
  return originals;
}

/** Numbers that are likely to break a rule. */
function tellingWord(random: Random, { header }: Original): number {
  const some = below(random, header.slots);
  const words = [0, 1, some, some, some, header.slots - 1, header.slots, header.slots + 1, 4096];
  words.push(noWord, noWord - 1, 0x7fff_ffff, 0x8000_0000, 0x7f80_0000, 0x7fc0_0000, below(random, 2 ** 32));
  return pick(random, words) >>> 0;
}

/** Where a mutation hits: anywhere, or in a section chosen without regard to its size. */
function place(random: Random, original: Original, length: number): number {
  if (random() < 0.2) return below(random, Math.max(1, length));
  if (random() < 0.25) return Math.min(length - 1, 4 * below(random, headerBytes / 4));
  const section = pick(random, original.plan.sections);
  const at = section.at + below(random, section.items * section.itemBytes);
  return Math.max(0, Math.min(length - 1, random() < 0.7 ? section.at + ((at - section.at) & ~3) : at));
}

const splice = (bytes: Uint8Array, at: number, removed: number, added: Uint8Array): Uint8Array =>
  new Uint8Array(Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at + removed)]));

type Mutation = (random: Random, bytes: Uint8Array, original: Original) => Uint8Array;

const inPlace: Mutation[] = [
  (random, bytes, original) => {
    const at = place(random, original, bytes.length);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << below(random, 8));
    return bytes;
  },
  (random, bytes, original) => {
    const at = Math.max(0, Math.min(place(random, original, bytes.length), bytes.length - 4));
    if (bytes.length >= 4) new DataView(bytes.buffer).setUint32(at, tellingWord(random, original), true);
    return bytes;
  },
  (random, bytes, original) => {
    const at = place(random, original, bytes.length);
    return bytes.fill(pick(random, [0, 0xff, below(random, 256)]), at, at + 1 + below(random, 64));
  },
  (random, bytes, original) => {
    const from = place(random, original, bytes.length);
    const to = place(random, original, bytes.length);
    return bytes.copyWithin(to, from, Math.min(bytes.length, from + 1 + below(random, 300)));
  },
];
const resizing: Mutation[] = [
  (random, bytes) => bytes.slice(0, below(random, bytes.length)),
  (random, bytes) => bytes.slice(0, Math.max(0, bytes.length - 1 - below(random, 40))),
  (random, bytes, original) =>
    splice(
      bytes,
      place(random, original, bytes.length),
      0,
      Uint8Array.from({ length: 1 + below(random, 40) }, () => below(random, 256)),
    ),
  (random, bytes, original) =>
    splice(bytes, place(random, original, bytes.length), 1 + below(random, 40), new Uint8Array()),
];

function mutate(random: Random, original: Original, repaired: boolean): Uint8Array {
  let bytes = new Uint8Array(original.bytes);
  const times = random() < 0.6 ? 1 : 1 + below(random, 6);
  for (let i = 0; i < times; i++)
    bytes = pick(random, random() < (repaired ? 0.05 : 0.25) ? resizing : inPlace)(
      random,
      bytes,
      original,
    ) as Uint8Array<ArrayBuffer>;
  return bytes;
}

/** Makes every length and checksum right, as far as the header can be read at all. */
function repair(bytes: Uint8Array, hasher: Bench, kind: FileKind): Uint8Array {
  if (bytes.length < headerBytes) return bytes;
  let header: FileHeader;
  try {
    header = readFields(new DataView(bytes.buffer), kind);
  } catch {
    return bytes;
  }
  const { dim, m, slots, entryLevel } = header;
  if (slots > maxRepairedSlots || dim > 4096 || dim === 0 || m > 128 || m === 0 || entryLevel > 12)
    return bytes;
  const plan = planFile(header);
  if (plan.totalBytes > maxRepairedBytes) return bytes;
  const whole = new Uint8Array(plan.totalBytes);
  whole.set(bytes.subarray(0, plan.totalBytes));
  const scratch = new Uint8Array(hasher.memory.buffer);
  const at = 65_536;
  const sum = (piece: Uint8Array, seed: bigint): bigint => {
    scratch.set(piece, at);
    return BigInt.asUintN(64, hasher.exports.checksum(at, piece.length, seed));
  };
  const table = new BigUint64Array(plan.chunks);
  for (const chunk of chunksOf(plan, 0, plan.chunks))
    table[chunk.index] = sum(whole.subarray(chunk.at, chunk.at + chunk.bytes), BigInt(chunk.index));
  const tableBytes = new Uint8Array(table.buffer);
  whole.set(tableBytes, plan.tableAt);
  const head = encodeHeader({ ...header, tableSum: sum(tableBytes, 0n) }, plan);
  whole.set(head);
  whole.set(encodeEnd(head), plan.endAt);
  return whole;
}

/** Runs cases one after another; memories and the file are used again and again. */
export class Campaign {
  readonly outcome: Outcome = { cases: 0, refused: {}, answered: 0, unchanged: 0, violations: [] };
  readonly #path: string;
  readonly #bench = newBench(1 << 26);
  readonly #hasher = newBench(1 << 21);
  readonly #originals: Original[];

  private constructor(folder: string, originals: Original[]) {
    this.#path = join(folder, "mutated");
    this.#originals = originals;
  }

  static async in(folder: string): Promise<Campaign> {
    return new Campaign(folder, await makeOriginals(folder));
  }

  /** One damaged file: `number` and `seed` make it what it is; odd ones are repaired. */
  async run(seed: number, number: number): Promise<void> {
    const random = numbersFrom(seed ^ Math.imul(number + 1, 0x9e3779b1));
    const original = pick(random, this.#originals);
    const repaired = number % 2 === 1;
    let bytes = mutate(random, original, repaired);
    if (repaired) bytes = repair(bytes, this.#hasher, original.header.kind);
    this.#write(original, bytes, repaired);
    this.outcome.cases++;
    const answeredBefore = this.outcome.answered;
    try {
      await this.#try(random, original, repaired);
      const answered = this.outcome.answered > answeredBefore;
      if (answered && Buffer.from(bytes.buffer).equals(original.bytes)) this.outcome.unchanged++;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.outcome.violations.push(
        `case ${number} (${original.name}${repaired ? ", repaired" : ""}): ${text}`,
      );
    }
  }

  #write({ index }: Original, bytes: Uint8Array, repaired: boolean): void {
    writeFileSync(index === undefined ? this.#path : `${this.#path}.rows`, bytes);
    if (index === undefined) return;
    const known = repaired && bytes.length >= headerBytes;
    const otherSum = known ? new DataView(bytes.buffer).getBigUint64(80, true) : undefined;
    writeFileSync(this.#path, otherSum === undefined ? index : craftHeader(index, { otherSum }));
  }

  async #try(random: Random, original: Original, repaired: boolean): Promise<void> {
    let built: Built;
    // Rows that stay in their file are verified as those that are read into memory.
    const inPlace = original.index !== undefined && random() < 0.5;
    try {
      const options = {
        rows: inPlace ? { inPlace: true as const } : undefined,
        rowsPath: original.index && `${this.#path}.rows`,
        capacity: undefined,
        signal: undefined,
      };
      built = { bench: this.#bench, state: await loadIndex(this.#path, options, hostOf(this.#bench)) };
    } catch (error) {
      if (!(error instanceof HnswError) || (error.code !== "refused" && error.code !== "full")) throw error;
      if (/trapped/.test(error.message)) throw error;
      this.#count(error.message.replace(/\d+/g, "#"));
      return;
    }
    const keys = keysOf(built);
    if (keys === undefined) return this.#count("the key map: a key is there twice");
    this.outcome.answered++;
    const answers = answersOf(built);
    const expected = inPlace ? original.bareAnswers : original.answers;
    if (!repaired && JSON.stringify(answers) !== JSON.stringify(expected))
      throw new Error("answers differ from the original's");
    for (const answer of [...answers, ...scansOf(built)]) checkAnswer(answer, keys);
    if (random() < 0.25) change(built, random);
  }

  #count(why: string): void {
    this.outcome.refused[why] = (this.outcome.refused[why] ?? 0) + 1;
  }
}

/** What the runtime's key map would do: undefined when a key is there twice. */
function keysOf({ state }: Built): Set<number> | undefined {
  const keys = new Set<number>();
  for (let slot = 0; slot < state.used; slot++) {
    const key = wordAt(state, "key", slot)[0] ?? noWord;
    if (key === noWord) continue;
    if (keys.has(key)) return undefined;
    keys.add(key);
  }
  return keys;
}

function checkAnswer({ keys }: Answer, known: Set<number>): void {
  if (keys.length > 10) throw new Error(`${keys.length} results of 10`);
  if (new Set(keys).size !== keys.length) throw new Error("a key was returned twice");
  for (const key of keys) if (!known.has(key)) throw new Error(`key ${key} was returned, and does not exist`);
}

function scansOf({ bench, state }: Built): Answer[] {
  const { exports, memory } = bench;
  const n = exports.scan(0, 10, 20, state.used, state.committedVersion, false);
  return [{ keys: [...new Uint32Array(memory.buffer, exports.outKeysAt.value, n)], scores: [] }];
}

/** A graph that was let in must also bear changes. */
function change(built: Built, random: Random): void {
  const { state } = built;
  const { dim } = state.layout;
  if (state.used > 2) removeSlots(built, [0, state.used >> 1]);
  insertAt(built, state.used > 2 ? 0 : state.used, 0xffff_0000, randomVector(random, dim));
  answersOf(built);
}
