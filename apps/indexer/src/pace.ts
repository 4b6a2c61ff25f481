import type { SnapshotPace } from "@lim/faces-db";

/** What waits for an engine is to last it this long. */
const lastsMs = 250;
/** Rows that an engine takes by one call at most: until that has ended they count as waiting. */
const rowsOfOneCall = 4096;

/** Paces the reading of a snapshot by how much of it waits for the engine. */
export interface SnapshotPacer {
  /** For `openSnapshot`; undefined: as fast as it comes. */
  readonly pace: SnapshotPace | undefined;
  /** Rows that were read, in all. */
  read(rows: number): void;
  /** Rows that the engine has taken in, in all. */
  inserted(rows: number): void;
}

/** `bytesPerS` 0 or undefined: no limit. Reading is in a hurry as long as the engine might have to wait for rows. */
export function createSnapshotPacer(options: {
  bytesPerS: number | undefined;
  nowMs: () => number;
}): SnapshotPacer {
  const { bytesPerS, nowMs } = options;
  const counts = { read: 0, inserted: 0 };
  let insertedAtMs: number | undefined;
  let rowsPerMs = 0;
  return {
    pace: bytesPerS
      ? { bytesPerS, inHurry: () => counts.read - counts.inserted < rowsOfOneCall + rowsPerMs * lastsMs }
      : undefined,
    read(rows) {
      counts.read = rows;
      insertedAtMs ??= nowMs();
    },
    inserted(rows) {
      const atMs = nowMs();
      const spentMs = atMs - (insertedAtMs ?? atMs);
      if (spentMs > 0) rowsPerMs = (rows - counts.inserted) / spentMs;
      insertedAtMs = atMs;
      counts.inserted = rows;
    },
  };
}
