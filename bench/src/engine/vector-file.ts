// Files of float32 rows, read piece by piece so that a process need not hold them.
import { closeSync, openSync, readSync, statSync } from "node:fs";

/** Reads rows from..from+count-1 into `into`, or into a new array. Throws where the file ends before. */
export function readRows(
  path: string,
  dim: number,
  from: number,
  count: number,
  into: Float32Array = new Float32Array(count * dim),
): Float32Array {
  const file = openSync(path, "r");
  try {
    const bytes = new Uint8Array(into.buffer, into.byteOffset, count * dim * 4);
    readFully(file, bytes, from * dim * 4, path);
  } finally {
    closeSync(file);
  }
  return into.subarray(0, count * dim);
}

/** Reads rows in the order of `rowOf` into `into`. */
export function gatherRows(path: string, dim: number, rowOf: Uint32Array, into: Float32Array): Float32Array {
  const file = openSync(path, "r");
  try {
    rowOf.forEach((row, i) => {
      readFully(
        file,
        new Uint8Array(into.buffer, into.byteOffset + i * dim * 4, dim * 4),
        row * dim * 4,
        path,
      );
    });
  } finally {
    closeSync(file);
  }
  return into.subarray(0, rowOf.length * dim);
}

export function rowsIn(path: string, dim: number): number {
  return Math.floor((statSync(path, { throwIfNoEntry: false })?.size ?? 0) / (dim * 4));
}

const maxReadBytes = 1 << 30;

function readFully(file: number, bytes: Uint8Array, position: number, path: string): void {
  for (let at = 0; at < bytes.length; ) {
    const read = readSync(file, bytes, at, Math.min(maxReadBytes, bytes.length - at), position + at);
    if (read === 0) throw new Error(`${path} ends at byte ${position + at}`);
    at += read;
  }
}
