// Files that say something else than was saved, with checksums that are right.
import {
  encodeEnd,
  encodeHeader,
  endBytes,
  type FileHeader,
  planFile,
  readFields,
} from "../src/file/format.ts";
import { xxh64 } from "../src/file/xxh64.ts";

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export const headerIn = (bytes: Uint8Array): FileHeader => readFields(viewOf(bytes), "index");

/** The file with other numbers in its header. */
export function craftHeader(bytes: Uint8Array, changes: Partial<FileHeader>): Uint8Array {
  const before = headerIn(bytes);
  const copy = new Uint8Array(bytes);
  const head = encodeHeader({ ...before, ...changes }, planFile(before));
  copy.set(head);
  copy.set(encodeEnd(head), copy.length - endBytes);
  return copy;
}

/** The file with another 32-bit word in a section. */
export function craftWord(bytes: Uint8Array, section: string, word: number, value: number): Uint8Array {
  const plan = planFile(headerIn(bytes));
  const found = plan.sections.find(({ name }) => name === section);
  if (found === undefined) throw new Error(`no section ${section}`);
  const { at, firstChunk, items, itemBytes, itemsPerChunk } = found;
  const copy = new Uint8Array(bytes);
  const view = viewOf(copy);
  view.setUint32(at + 4 * word, value, true);
  const chunk = Math.floor((4 * word) / (itemBytes * itemsPerChunk));
  const from = at + chunk * itemBytes * itemsPerChunk;
  const length = Math.min(itemsPerChunk, items - chunk * itemsPerChunk) * itemBytes;
  const index = firstChunk + chunk;
  const sum = xxh64(copy.subarray(from, from + length), BigInt(index));
  view.setBigUint64(plan.tableAt + 8 * index, sum, true);
  return craftHeader(copy, {
    tableSum: xxh64(copy.subarray(plan.tableAt, plan.tableAt + 8 * plan.chunks)),
  });
}
