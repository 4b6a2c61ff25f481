/** The file format, version 2, as numbers; FORMAT.md says it in words. Everything is little-endian. */
import { groupBitsFor, type Metric, type RowKind, rowKinds } from "../layout.ts";
import { maxDim, maxEfConstruction, maxM, minM } from "../limits.ts";
import { refusal } from "./refusal.ts";
import { xxh64 } from "./xxh64.ts";

export const formatVersion = 2;
export const headerBytes = 256;
export const endBytes = 16;
/** Sections are checked in chunks of at most this size, which a core's cache holds. */
export const chunkBytes = 262_144;
const maxChunkItems = 4096;
const magicBytes = 8;
const headerSumAt = headerBytes - 8;
const maxLevel = 12;

export type FileKind = "index" | "rows";
const magics: Record<FileKind, Uint8Array> = {
  // A byte above 127 and both ends of line: transfers that treat the file as text are noticed at once.
  index: Uint8Array.of(0x89, 0x48, 0x4e, 0x53, 0x57, 0x0d, 0x0a, 0x1a),
  rows: Uint8Array.of(0x89, 0x48, 0x4e, 0x52, 0x57, 0x0d, 0x0a, 0x1a),
};
const endMagic = Uint8Array.of(0x48, 0x4e, 0x53, 0x57, 0x2d, 0x65, 0x6e, 0x64);
const metrics: readonly Metric[] = ["cosine", "ip", "l2"];
/** Where full-precision rows are: nowhere, in the index file, in a file of their own. */
const rowPlaces = ["none", "same", "separate"] as const;
export type RowsPlace = (typeof rowPlaces)[number];

/** What an index file says of itself before its sections. */
export interface FileHeader {
  kind: FileKind;
  dim: number;
  metric: Metric;
  m: number;
  efConstruction: number;
  seed: number;
  rows: RowKind;
  rowsPlace: RowsPlace;
  /** Slots in use, free ones included. */
  slots: number;
  /** Slots that hold a key. */
  live: number;
  /** Entry point; level 0 and slot 0 when `live` is 0. */
  entrySlot: number;
  entryLevel: number;
  /** XXH64 of the checksum table. */
  tableSum: bigint;
  /** Checksum of the table of the other file, where rows have one of their own; else 0. */
  otherSum: bigint;
}

export type SectionName = "keys" | "coarse" | "fine" | "scale" | "bias" | "links" | "upper" | "rows";

export interface Section {
  name: SectionName;
  /** Of "upper": 1 and up; else 0. */
  level: number;
  /** Slots, or groups of slots for "upper". */
  items: number;
  itemBytes: number;
  itemsPerChunk: number;
  /** First byte in the file. */
  at: number;
  /** Number of its first chunk in the file. */
  firstChunk: number;
  chunks: number;
}

export interface FilePlan {
  sections: Section[];
  chunks: number;
  tableAt: number;
  endAt: number;
  totalBytes: number;
}

/** A part of a section that has one checksum. */
export interface Chunk {
  section: Section;
  /** Number in the file: the seed of its checksum, so that chunks that changed places are noticed. */
  index: number;
  firstItem: number;
  items: number;
  at: number;
  bytes: number;
}

export const paddedDimOf = (dim: number): number => Math.ceil(dim / 64) * 64;
export const rowBytesOf = (dim: number, rows: RowKind): number =>
  rows === "none" ? 0 : paddedDimOf(dim) * (rows === "float32" ? 4 : 2);

function namedSections(header: FileHeader): [SectionName, number, number, number][] {
  const { dim, m, metric, slots, entryLevel } = header;
  const rows: [SectionName, number, number, number] = ["rows", 0, slots, rowBytesOf(dim, header.rows)];
  if (header.kind === "rows") return [rows];
  const plane = paddedDimOf(dim) / 2;
  const named: [SectionName, number, number, number][] = [
    ["keys", 0, slots, 4],
    ["coarse", 0, slots, plane],
    ["fine", 0, slots, plane],
    ["scale", 0, slots, 4],
  ];
  if (metric === "l2") named.push(["bias", 0, slots, 4]);
  named.push(["links", 0, slots, 8 * m]);
  for (let level = 1; level <= entryLevel; level++)
    named.push(["upper", level, Math.ceil(slots / 2 ** (level * groupBitsFor(m))), 4 * m]);
  if (header.rowsPlace === "same") named.push(rows);
  return named;
}

/** Where everything lies in a file with this header: a function of the header alone. */
export function planFile(header: FileHeader): FilePlan {
  const sections: Section[] = [];
  let chunks = 0;
  for (const [name, level, items, itemBytes] of namedSections(header)) {
    const fitting = Math.min(maxChunkItems, 2 ** Math.floor(Math.log2(chunkBytes / itemBytes)));
    const count = Math.ceil(items / fitting);
    sections.push({
      name,
      level,
      items,
      itemBytes,
      itemsPerChunk: fitting,
      at: 0,
      firstChunk: chunks,
      chunks: count,
    });
    chunks += count;
  }
  let at = headerBytes;
  for (const section of sections) {
    section.at = at;
    at += section.items * section.itemBytes;
  }
  const endAt = at + 8 * chunks;
  return { sections, chunks, tableAt: at, endAt, totalBytes: endAt + endBytes };
}

/** Chunks [from, to) of a file, in order. */
export function* chunksOf(plan: FilePlan, from: number, to: number): Generator<Chunk> {
  for (const section of plan.sections) {
    const first = Math.max(from, section.firstChunk);
    const last = Math.min(to, section.firstChunk + section.chunks);
    for (let index = first; index < last; index++) {
      const firstItem = (index - section.firstChunk) * section.itemsPerChunk;
      const items = Math.min(section.itemsPerChunk, section.items - firstItem);
      const at = section.at + firstItem * section.itemBytes;
      yield { section, index, firstItem, items, at, bytes: items * section.itemBytes };
    }
  }
}

/** Where the row of a slot begins in a file of rows, finished or not: a function of the slot alone. */
export const rowAtInFile = (slot: number, rowBytes: number): number => headerBytes + slot * rowBytes;

/** A header as bytes. */
export function encodeHeader(header: FileHeader, plan: FilePlan): Uint8Array {
  const bytes = new Uint8Array(headerBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(magics[header.kind]);
  const words = [
    formatVersion,
    headerBytes,
    header.dim,
    metrics.indexOf(header.metric),
    header.m,
    header.efConstruction,
    header.seed,
    rowKinds.indexOf(header.rows),
    rowPlaces.indexOf(header.rowsPlace),
    header.slots,
    header.live,
    header.entrySlot,
    header.entryLevel,
    chunkBytes,
    plan.sections.length,
    plan.chunks,
  ];
  for (const [i, word] of words.entries()) view.setUint32(magicBytes + 4 * i, word, true);
  view.setBigUint64(72, BigInt(plan.totalBytes), true);
  view.setBigUint64(80, header.tableSum, true);
  view.setBigUint64(88, header.otherSum, true);
  view.setBigUint64(headerSumAt, xxh64(bytes.subarray(0, headerSumAt)), true);
  return bytes;
}

/** The last bytes of a file: a mark, and the header's checksum again. */
export function encodeEnd(header: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(endBytes);
  bytes.set(endMagic);
  bytes.set(header.subarray(headerSumAt), magicBytes);
  return bytes;
}

const startsWith = (bytes: Uint8Array, magic: Uint8Array): boolean =>
  magic.every((byte, i) => i >= bytes.length || bytes[i] === byte);

/**
 * Reads the first bytes of a file (fewer than `headerBytes` when the file is shorter) and refuses what cannot be
 * right. `fileBytes` is the file's size.
 */
export function decodeHeader(
  bytes: Uint8Array,
  kind: FileKind,
  fileBytes: number,
): { header: FileHeader; plan: FilePlan } {
  const what = kind === "index" ? "an index" : "a file of rows";
  if (bytes.length < 1 || !startsWith(bytes, magics[kind])) throw refusal(`not ${what}`);
  if (bytes.length < magicBytes + 4) throw refusal("truncated", "it ends within its header");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(magicBytes, true);
  if (version > formatVersion)
    throw refusal("too new", `format ${version}, of which this release reads up to ${formatVersion}`);
  if (version < formatVersion) throw refusal("too old", `format ${version}, which no release reads any more`);
  if (bytes.length < headerBytes) throw refusal("truncated", "it ends within its header");
  if (view.getBigUint64(headerSumAt, true) !== xxh64(bytes.subarray(0, headerSumAt)))
    throw refusal("corrupt", "the header");
  const header = readFields(view, kind);
  checkFields(header);
  const plan = planFile(header);
  if (!sameBytes(encodeHeader(header, plan), bytes))
    throw refusal("inconsistent", "the header does not agree with itself");
  if (fileBytes < plan.totalBytes)
    throw refusal("truncated", `${fileBytes} bytes, where the header tells of ${plan.totalBytes}`);
  if (fileBytes > plan.totalBytes)
    throw refusal("extended", `${fileBytes} bytes, where the header tells of ${plan.totalBytes}`);
  return { header, plan };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => b[i] === byte);
}

/** The fields of a header, unchecked but for those that name something. */
export function readFields(view: DataView, kind: FileKind): FileHeader {
  const word = (index: number): number => view.getUint32(magicBytes + 4 * index, true);
  const metric = metrics[word(3)];
  const rows = rowKinds[word(7)];
  const rowsPlace = rowPlaces[word(8)];
  if (metric === undefined || rows === undefined || rowsPlace === undefined)
    throw refusal("inconsistent", "the header names a metric or a kind of rows that does not exist");
  return {
    kind,
    dim: word(2),
    metric,
    m: word(4),
    efConstruction: word(5),
    seed: word(6),
    rows,
    rowsPlace,
    slots: word(9),
    live: word(10),
    entrySlot: word(11),
    entryLevel: word(12),
    tableSum: view.getBigUint64(80, true),
    otherSum: view.getBigUint64(88, true),
  };
}

function checkFields(header: FileHeader): void {
  const { dim, m, efConstruction, slots, live, entrySlot, entryLevel } = header;
  const require = (holds: boolean, rule: string): void => {
    if (!holds) throw refusal("inconsistent", `the header: ${rule}`);
  };
  require(dim >= 1 && dim <= maxDim, `dim ${dim}`);
  require(m >= minM && m <= maxM, `m ${m}`);
  require(efConstruction >= 1 && efConstruction <= maxEfConstruction, `efConstruction ${efConstruction}`);
  require((header.rows === "none") === (header.rowsPlace === "none"), "rows without a place");
  require(header.kind === "index" || header.rowsPlace === "separate", "rows are in the index file");
  require(live <= slots, `${live} live of ${slots} slots`);
  require(live === 0
    ? entrySlot === 0 && entryLevel === 0
    : entrySlot < slots && entryLevel <= maxLevel, `entry point ${entrySlot} on level ${entryLevel}`);
  require(header.rowsPlace === "separate" || header.otherSum === 0n, "a second file without separate rows");
}

export function checkEnd(end: Uint8Array, header: Uint8Array): void {
  if (!sameBytes(end, encodeEnd(header))) throw refusal("corrupt", "the end mark");
}
