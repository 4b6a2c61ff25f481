// Vectors as an index holds them.
import { readSync } from "node:fs";
import type { IndexCore } from "./core.ts";
import { badInput, HnswError } from "./errors.ts";
import { rowAtInFile } from "./file/format.ts";
import { addressOf, type Layout } from "./layout.ts";
import { maxGetBytes } from "./limits.ts";

/** A float16's value. */
export function fromHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** From the two planes of 4 bits: see storePlanes in assembly/insert.ts. */
function dequantise(buffer: SharedArrayBuffer, layout: Layout, slot: number, into: Float32Array): void {
  const { dim, paddedDim } = layout;
  const plane = paddedDim / 2;
  const coarse = new Uint8Array(buffer, addressOf(layout, "coarse", slot, plane), plane);
  const fine = new Uint8Array(buffer, addressOf(layout, "fine", slot, plane), plane);
  const scale = new Float32Array(buffer, addressOf(layout, "scale", slot, 4), 1)[0] as number;
  for (let i = 0; i < dim; i++) {
    const at = (i >> 5) * 16 + (i & 15);
    const c = coarse[at] as number;
    const f = fine[at] as number;
    const value = i & 16 ? (c & 0xf0) | (f >> 4) : ((c & 15) << 4) | (f & 15);
    into[i] = scale * (value - 128);
  }
}

function readFromFile(core: IndexCore, file: number, slot: number, into: Float32Array): void {
  const row = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
  const position = rowAtInFile(slot, core.layout.paddedDim * 4);
  if (readSync(file, row, 0, row.length, position) !== row.length)
    throw new HnswError("failed", "the file of rows is too short");
}

function readRow(core: IndexCore, slot: number, into: Float32Array): void {
  const { layout, memory, rowsHandle } = core;
  const { buffer } = memory.memory;
  const { dim, paddedDim } = layout;
  if (rowsHandle !== undefined) readFromFile(core, rowsHandle.fd, slot, into);
  else if (layout.rows === "none") dequantise(buffer, layout, slot, into);
  else if (layout.rows === "float32")
    into.set(new Float32Array(buffer, addressOf(layout, "row", slot, paddedDim * 4), dim));
  else
    new Uint16Array(buffer, addressOf(layout, "row", slot, paddedDim * 2), dim).forEach((half, i) => {
      into[i] = fromHalf(half);
    });
}

/** keys × dim, in the order of the keys. */
export function readRows(core: IndexCore, keys: Uint32Array): Float32Array {
  const { dim } = core.layout;
  if (keys.length * dim * 4 > maxGetBytes) throw badInput(`${maxGetBytes} bytes at most can be had at once`);
  const slots = Uint32Array.from(keys, (key) => {
    const slot = core.keys.get(key);
    if (slot < 0) throw badInput(`there is no key ${key}`);
    return slot;
  });
  const rows = new Float32Array(keys.length * dim);
  slots.forEach((slot, i) => {
    readRow(core, slot, rows.subarray(i * dim, (i + 1) * dim));
  });
  return rows;
}
