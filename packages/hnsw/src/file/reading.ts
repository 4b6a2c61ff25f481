import { addressOf, type Layout } from "../layout.ts";
import { noWord } from "../limits.ts";
import { type Chunk, chunksOf, type FileHeader, planFile, rowAtInFile } from "./format.ts";
import { readFully, writeFully } from "./io.ts";
import type { Place, ReadArgument, TableArgument, ValidateArgument } from "./messages.ts";
import { arrayOf, tableSum } from "./place.ts";
import { brokenRule, refusal } from "./refusal.ts";

/** Reads a file's table of checksums and verifies it. */
export function readTable(place: Place, { fd, header }: TableArgument): BigUint64Array {
  const plan = planFile(header);
  const table = new BigUint64Array(plan.chunks);
  readFully(fd, new Uint8Array(table.buffer), 0, table.byteLength, plan.tableAt);
  if (tableSum(place, table) !== header.tableSum) throw refusal("corrupt", "the table of checksums");
  return table;
}

/** Reads chunks to their places in memory, or rows to a file, or in place to nowhere, and verifies them. */
export function read(place: Place, argument: ReadArgument): void {
  const { fd, header, from, to, sums, layout } = argument;
  for (const chunk of chunksOf(planFile(header), from, to)) {
    const at = placeOf(place, layout, header, chunk);
    readFully(fd, place.bytes, at, chunk.bytes, chunk.at);
    const sum = BigInt.asUintN(64, place.exports.checksum(at, chunk.bytes, BigInt(chunk.index)));
    if (sum !== sums[chunk.index - from]) throw refusal("corrupt", `the section "${chunk.section.name}"`);
    settleChunk(place, argument, chunk, at);
  }
}

/** Where the bytes of a chunk are read to: their place, or the bounce if they differ from what is held. */
function placeOf(place: Place, layout: Layout, header: FileHeader, chunk: Chunk): number {
  const { name, itemBytes } = chunk.section;
  if (name === "upper" || (name === "rows" && layout.rows !== header.rows)) return place.bounce;
  return addressOf(layout, arrayOf(name), chunk.firstItem, itemBytes);
}

function settleChunk(place: Place, argument: ReadArgument, chunk: Chunk, at: number): void {
  const { exports, bytes } = place;
  const { header, layout, rowsFd, checkRows } = argument;
  const { section, firstItem, items } = chunk;
  if (section.name === "upper") {
    // A layout of fewer slots may have fewer levels: what is above them is not needed.
    if (section.level <= layout.levels) exports.scatterLinks(at, section.level, firstItem, items);
  } else if (section.name === "keys") giveLifeSpans(place, layout, firstItem, items);
  if (section.name !== "rows") return;
  if (checkRows && !exports.isFiniteRow(at, chunk.bytes, header.rows === "float16"))
    throw refusal("inconsistent", "a full-precision row holds what is not a finite number");
  if (rowsFd !== undefined)
    writeFully(rowsFd, bytes, at, chunk.bytes, rowAtInFile(firstItem, section.itemBytes));
  else if (layout.rows === "float16" && header.rows === "float32") exports.narrowRows(at, firstItem, items);
}

/** Slots with a key have been there forever; those without are free. */
function giveLifeSpans(place: Place, layout: Layout, firstSlot: number, count: number): void {
  const wordsAt = (array: "key" | "born" | "died") =>
    new Uint32Array(place.bytes.buffer, addressOf(layout, array, firstSlot, 4), count);
  const keys = wordsAt("key");
  const born = wordsAt("born");
  const died = wordsAt("died");
  for (const [i, key] of keys.entries()) {
    born[i] = key === noWord ? noWord : 0;
    died[i] = key === noWord ? 0 : noWord;
  }
}

/** Walks counts, links and levels of a range of slots, after everything was read. */
export function validate(place: Place, { header, from, to, layout }: ValidateArgument): void {
  const { exports } = place;
  const { slots, live, entrySlot } = header;
  const top = Math.min(header.entryLevel, layout.levels);
  const found = exports.markKeyed(slots);
  if (found !== live)
    throw refusal("inconsistent", `${found} slots have a key, where the header tells of ${live}`);
  if (live > 0 && (!exports.isMarked(entrySlot) || exports.levelOf(entrySlot) < top))
    throw refusal("inconsistent", "the entry point is free, or not on its level");
  const rule = exports.validate(from, to, slots, top);
  if (rule !== 0) throw brokenRule(rule, exports.faultSlot.value);
  exports.settle(from, to, top);
}
