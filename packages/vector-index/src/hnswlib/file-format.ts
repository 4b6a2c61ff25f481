import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { vectorIndexLimits } from "../limits.ts";
import { EngineFault } from "./protocol.ts";

/**
 * The file of hnswlib 0.8 on a 64-bit little-endian machine: a header of 96 bytes, one fixed-size element a
 * position (links of level 0, vector, label), then for each position the byte length of its upper links and the links.
 * The library checks almost nothing of it, so everything that its code follows is checked here first.
 */
const headerBytes = 96;
const offsetOf = { maxElements: 8, count: 16 } as const;
/** Elements are read in blocks of about this size. */
const blockBytes = 4 << 20;
const maxLevels = 64;

export interface ExpectedFile {
  dim: number;
  slots: number;
  m: number;
  isRemoved: (position: number) => boolean;
}

function refuse(detail: string): never {
  throw new EngineFault("index_refused", detail);
}

function expectEqual(what: string, found: number, expected: number): void {
  if (found !== expected) refuse(`engine file: ${what} is ${found}, expected ${expected}`);
}

function readExactly(fd: number, target: Uint8Array, position: number): void {
  let done = 0;
  while (done < target.length) {
    const wanted = Math.min(target.length - done, vectorIndexLimits.readBytes);
    const got = readSync(fd, target, done, wanted, position + done);
    if (got === 0) refuse(`engine file: truncated at byte ${position + done}`);
    done += got;
  }
}

interface Header {
  maxLevel: number;
  entryPoint: number;
  elementBytes: number;
}

function checkHeader(bytes: Uint8Array, expected: ExpectedFile): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = (offset: number) => {
    const value = view.getBigUint64(offset, true);
    return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.POSITIVE_INFINITY : Number(value);
  };
  const { dim, slots, m } = expected;
  const vectorOffset = 2 * m * 4 + 4;
  const elementBytes = vectorOffset + dim * 4 + 8;
  expectEqual("offset of level 0", size(0), 0);
  expectEqual("element count", size(offsetOf.count), slots);
  expectEqual("capacity", size(offsetOf.maxElements), Math.max(slots, 1));
  expectEqual("offset of vectors", size(40), vectorOffset);
  expectEqual("dimensions", (size(32) - size(40)) / 4, dim);
  expectEqual("bytes of an element", size(24), elementBytes);
  expectEqual("links above level 0", size(56), m);
  expectEqual("links of level 0", size(64), 2 * m);
  expectEqual("m", size(72), m);
  const mult = view.getFloat64(80, true);
  if (!(Math.abs(mult - 1 / Math.log(m)) < 1e-9)) refuse(`engine file: level factor is ${mult}`);
  const efConstruction = size(88);
  if (!(efConstruction >= 1 && efConstruction <= 1_000_000))
    refuse(`engine file: ef_construction is ${efConstruction}`);
  const maxLevel = view.getInt32(48, true);
  const entryPoint = view.getUint32(52, true);
  if (slots === 0) expectEqual("highest level", maxLevel, -1);
  else if (maxLevel < 0 || maxLevel > maxLevels) refuse(`engine file: highest level is ${maxLevel}`);
  else if (entryPoint >= slots) refuse(`engine file: entry point ${entryPoint} of ${slots} elements`);
  return { maxLevel, entryPoint, elementBytes };
}

function checkElements(fd: number, elementBytes: number, expected: ExpectedFile): void {
  const { dim, slots, m, isRemoved } = expected;
  const words = elementBytes / 4;
  const labelWord = 2 * m + 1 + dim;
  const perBlock = Math.max(1, Math.floor(blockBytes / elementBytes));
  const block = new Uint32Array(Math.min(perBlock, slots) * words);
  for (let first = 0; first < slots; first += perBlock) {
    const elements = Math.min(perBlock, slots - first);
    readExactly(
      fd,
      new Uint8Array(block.buffer, 0, elements * elementBytes),
      headerBytes + first * elementBytes,
    );
    for (let i = 0; i < elements; i++) {
      const position = first + i;
      const at = i * words;
      const head = block[at] as number;
      const links = head & 0xffff;
      if (links > 2 * m) refuse(`engine file: element ${position} has ${links} links`);
      if (head >>> 16 !== (isRemoved(position) ? 1 : 0))
        refuse(
          `engine file: element ${position} is ${head >>> 16 === 0 ? "visible" : "hidden"}, ids say otherwise`,
        );
      for (let link = at + 1; link <= at + links; link++)
        if ((block[link] as number) >= slots) refuse(`engine file: element ${position} links past the end`);
      if (block[at + labelWord] !== position || block[at + labelWord + 1] !== 0)
        refuse(`engine file: element ${position} has a foreign label`);
    }
  }
}

/** Byte offset of each element's upper links in `tail`, and its level. */
function readLevels(tail: DataView, slots: number, m: number, maxLevel: number) {
  const levelBytes = m * 4 + 4;
  const levels = new Uint8Array(slots);
  let at = 0;
  for (let position = 0; position < slots; position++) {
    if (at + 4 > tail.byteLength) refuse("engine file: truncated in its upper levels");
    const bytes = tail.getUint32(at, true);
    const level = bytes / levelBytes;
    if (!Number.isInteger(level) || level > maxLevel)
      refuse(`engine file: element ${position} has ${bytes} bytes of upper links`);
    levels[position] = level;
    at += 4 + bytes;
  }
  if (at !== tail.byteLength) refuse(`engine file: ${tail.byteLength - at} bytes too long or too short`);
  return levels;
}

function checkUpperLinks(tail: DataView, levels: Uint8Array, m: number): void {
  let at = 0;
  for (let position = 0; position < levels.length; position++) {
    at += 4;
    for (let level = 1; level <= (levels[position] as number); level++) {
      const links = tail.getUint32(at, true);
      if (links > m) refuse(`engine file: element ${position} has ${links} links on level ${level}`);
      for (let link = 1; link <= links; link++) {
        const target = tail.getUint32(at + link * 4, true);
        if (target >= levels.length || (levels[target] as number) < level)
          refuse(`engine file: element ${position} links to one that is not on level ${level}`);
      }
      at += m * 4 + 4;
    }
  }
}

/** Throws `index_refused` unless the library's code can follow every count, link and level of the file safely. */
export function checkEngineFile(path: string, expected: ExpectedFile): void {
  const fd = openSync(path, "r");
  try {
    const fileBytes = fstatSync(fd).size;
    if (fileBytes < headerBytes) refuse(`engine file: ${fileBytes} bytes, shorter than its header`);
    const header = new Uint8Array(headerBytes);
    readExactly(fd, header, 0);
    const { maxLevel, entryPoint, elementBytes } = checkHeader(header, expected);
    const { slots, m } = expected;
    const tailStart = headerBytes + slots * elementBytes;
    if (fileBytes < tailStart + slots * 4) refuse(`engine file: truncated to ${fileBytes} bytes`);
    if (fileBytes > tailStart + slots * (4 + maxLevels * (m * 4 + 4)))
      refuse(`engine file: extended to ${fileBytes} bytes`);
    const tail = new Uint8Array(fileBytes - tailStart);
    readExactly(fd, tail, tailStart);
    const tailView = new DataView(tail.buffer);
    const levels = readLevels(tailView, slots, m, maxLevel);
    if (slots > 0 && levels[entryPoint] !== maxLevel)
      refuse(`engine file: entry point is on level ${levels[entryPoint]}, highest level is ${maxLevel}`);
    checkUpperLinks(tailView, levels, m);
    checkElements(fd, elementBytes, expected);
  } finally {
    closeSync(fd);
  }
}

/**
 * Sets the capacity that a file asks for on load to its element count: the library writes what it had
 * reserved, which says nothing of the content and would be reserved again by whoever loads it.
 */
export function trimCapacity(path: string, slots: number): void {
  const fd = openSync(path, "r+");
  try {
    if (fstatSync(fd).size < headerBytes) return;
    const capacity = Buffer.alloc(8);
    capacity.writeBigUInt64LE(BigInt(Math.max(slots, 1)));
    writeSync(fd, capacity, 0, 8, offsetOf.maxElements);
  } finally {
    closeSync(fd);
  }
}
