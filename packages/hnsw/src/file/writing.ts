import { closeSync, openSync } from "node:fs";
import { HnswError } from "../errors.ts";
import { addressOf, type Layout } from "../layout.ts";
import { type Chunk, chunksOf, planFile, rowAtInFile } from "./format.ts";
import { readFully, writeFully } from "./io.ts";
import type { Place, Survey, SurveyArgument, WriteArgument } from "./messages.ts";
import { arrayOf, entryAt } from "./place.ts";

const noKey = 0xff;

/** What the header says of the slots that a search at `version` may return. */
export function survey(place: Place, { used, version }: SurveyArgument): Survey {
  const { exports, bytes } = place;
  const live = exports.markVisible(used, version);
  const words = new BigUint64Array(bytes.buffer, entryAt, 1);
  let entry = Atomics.load(words, 0);
  // A removed entry point stays until the next sweep; any slot of the highest level does as well.
  if (entry === 0n || !exports.isMarked(Number(entry & 0xffff_ffffn) - 1))
    entry = BigInt.asUintN(64, exports.highestMarked(used));
  if (entry === 0n) return { live, entrySlot: 0, entryLevel: 0 };
  return { live, entrySlot: Number(entry & 0xffff_ffffn) - 1, entryLevel: Number(entry >> 32n) };
}

/** Writes chunks to their places in the file, or completes them there, and returns their checksums. */
export function write(place: Place, argument: WriteArgument): BigUint64Array {
  const { fd, header, version, from, to, layout, rowsFile, inPlace } = argument;
  const sums = new BigUint64Array(to - from);
  place.exports.markVisible(header.slots, version);
  const rowsFd = rowsFile === undefined ? undefined : openSync(rowsFile.path, "r");
  try {
    for (const chunk of chunksOf(planFile(header), from, to)) {
      layOutChunk(place, layout, chunk, header.slots, rowsFd);
      sums[chunk.index - from] = place.exports.checksum(place.bounce, chunk.bytes, BigInt(chunk.index));
      if (!inPlace || hasFree(place, chunk)) writeFully(fd, place.bytes, place.bounce, chunk.bytes, chunk.at);
    }
  } finally {
    if (rowsFd !== undefined) closeSync(rowsFd);
  }
  return sums;
}

function hasFree({ exports }: Place, { firstItem, items }: Chunk): boolean {
  for (let slot = firstItem; slot < firstItem + items; slot++) if (!exports.isMarked(slot)) return true;
  return false;
}

const workingFileEnds = () => new HnswError("failed", "the file of rows is too short");

/** Puts a chunk at the bounce as the file holds it: nothing of free slots, nothing after the end of a list. */
function layOutChunk(
  place: Place,
  layout: Layout,
  chunk: Chunk,
  slots: number,
  rowsFd: number | undefined,
): void {
  const { exports, bounce } = place;
  const { section, firstItem, items } = chunk;
  if (section.name === "links" || section.name === "upper") {
    exports.gatherLinks(bounce, section.level, firstItem, items, slots);
    return;
  }
  const { itemBytes } = section;
  let from = bounce;
  if (section.name === "rows" && layout.rows === "none") {
    if (rowsFd === undefined) throw new HnswError("failed", "the index has no full-precision rows");
    readFully(rowsFd, place.bytes, bounce, chunk.bytes, rowAtInFile(firstItem, itemBytes), workingFileEnds);
  } else from = addressOf(layout, arrayOf(section.name), firstItem, itemBytes);
  exports.gather(bounce, from, itemBytes, firstItem, items, section.name === "keys" ? noKey : 0);
}
