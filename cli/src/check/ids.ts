import { open } from "node:fs/promises";
import { LimError, readUuid, uuidBytes } from "@lim/contracts";
import { IdTable } from "@lim/vector-index";
import type { IdFacts } from "./judges.ts";
import { checkLimits } from "./limits.ts";
import { Examples } from "./named.ts";

export interface IndexIds extends IdFacts {
  /** Finds the position of each face; of a repeated id the first. */
  table: IdTable;
  /** Positions that hold a face, ascending. */
  positions: Uint32Array;
  /** One byte a position: 1 = repeats the id of an earlier one. */
  repeats: Uint8Array;
  /** The id at a position, as text. */
  textOf(position: number): string;
}

/** Enters ids (16 bytes a position, zeros = none): about 32 bytes a face stay in memory. */
export function indexIds(bytes: Uint8Array): IndexIds {
  const slots = Math.floor(bytes.length / uuidBytes);
  const table = new IdTable(slots);
  const duplicates = new Examples();
  const repeats = new Uint8Array(slots);
  const positions = new Uint32Array(slots);
  const textOf = (position: number) => readUuid(bytes, position * uuidBytes);
  table.writeAll(bytes.subarray(0, slots * uuidBytes));
  let live = 0;
  for (let position = 0; position < slots; position++) {
    if (table.isZero(position)) continue;
    positions[live++] = position;
    if (table.linkNew(position)) continue;
    repeats[position] = 1;
    duplicates.add(() => textOf(position));
  }
  return { slots, live, duplicates, table, repeats, textOf, positions: positions.slice(0, live) };
}

/** Reads a file of ids whose bytes were verified. Throws `index_refused` where it is no longer as long. */
export async function readIds(
  path: string,
  size: number,
  { signal }: { signal: AbortSignal },
): Promise<IndexIds> {
  const bytes = new Uint8Array(size);
  const file = await open(path, "r");
  try {
    for (let at = 0; at < size; ) {
      signal.throwIfAborted();
      const { bytesRead } = await file.read(bytes, at, Math.min(checkLimits.readBytes, size - at), at);
      if (bytesRead === 0) throw new LimError("index_refused", `${path} became shorter while it was read`);
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
  return indexIds(bytes);
}
