import { controlAt } from "../layout.ts";
import { chunkBytes, type SectionName } from "./format.ts";
import type { Place } from "./messages.ts";

/** Word of the control block, as in assembly/state.ts: (level << 32) | (slot + 1), or 0. */
export const entryAt = controlAt + 256;

const arrays = {
  keys: "key",
  coarse: "coarse",
  fine: "fine",
  scale: "scale",
  bias: "bias",
  links: "links",
  rows: "row",
} as const satisfies Record<Exclude<SectionName, "upper">, string>;

/** The array of a segment that a section holds. */
export const arrayOf = (name: Exclude<SectionName, "upper">) => arrays[name];

/** Checksum of a table of checksums, piece by piece where it is larger than a chunk. */
export function tableSum(place: Place, table: BigUint64Array): bigint {
  const source = new Uint8Array(table.buffer, table.byteOffset, table.byteLength);
  let sum = 0n;
  for (let at = 0; at === 0 || at < source.length; at += chunkBytes) {
    const piece = source.subarray(at, at + chunkBytes);
    place.bytes.set(piece, place.bounce);
    sum = BigInt.asUintN(64, place.exports.checksum(place.bounce, piece.length, sum));
  }
  return sum;
}
