import { readSync, writeSync } from "node:fs";
import { HnswError } from "../errors.ts";
import { refusal } from "./refusal.ts";

const becameShorter = (): HnswError => refusal("truncated", "it became shorter while it was read");

/** Reads exactly `length` bytes at `position` of the file into `bytes` at `offset`; throws `atEnd` where it ends before. */
export function readFully(
  fd: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number,
  atEnd = becameShorter,
): void {
  for (let done = 0; done < length; ) {
    const got = readSync(fd, bytes, offset + done, length - done, position + done);
    if (got === 0) throw atEnd();
    done += got;
  }
}

export function writeFully(
  fd: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number,
): void {
  for (let done = 0; done < length; ) {
    const put = writeSync(fd, bytes, offset + done, length - done, position + done);
    if (put === 0) throw new HnswError("failed", "a write to a file took nothing");
    done += put;
  }
}
