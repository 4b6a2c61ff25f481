import { defaults } from "@lim/contracts";
import type { FacesDb, ImportRow } from "@lim/faces-db";
import { connectSql } from "@lim/local-servers";
import { faceIdOf } from "@lim/testkit";
import { readRows, rowsIn } from "../engine/vector-file.ts";

export const descriptorVersion = defaults.descriptorVersion;
/** Face n of every list is `faceIdOf(faceIdsName, n)`. */
export const faceIdsName = "bench-build";
/** Faces of the list that tells what a build costs whatever its size. */
export const smallFaces = 64;
/** Rows of one batch of a snapshot, as an indexer reads it. */
export const snapshotBatchRows = 256;
/** Name of the connections that read snapshots, by which Postgres tells what they run. */
export const drainName = "lim-bench-drain";

export interface SnapshotArgs {
  databaseUrl: string;
  listId: string;
  descriptorVersion: number;
  dim: number;
  /** Rows of one batch. */
  batchRows: number;
}

export interface BenchList {
  listId: string;
  faces: number;
}

export interface BenchLists {
  small: BenchList;
  /** One a size, ascending. */
  sized: BenchList[];
  importPerS: number;
}

const readRowsAtOnce = 1_000;
const sayEveryMs = 5_000;

async function* importRowsOf(rowsPath: string, dim: number, faces: number): AsyncGenerator<ImportRow> {
  for (let at = 0; at < faces; at += readRowsAtOnce) {
    const count = Math.min(readRowsAtOnce, faces - at);
    const rows = readRows(rowsPath, dim, at, count);
    for (let i = 0; i < count; i++)
      yield {
        line: at + i + 1,
        faceId: faceIdOf(faceIdsName, at + i),
        vector: rows.slice(i * dim, (i + 1) * dim),
      };
  }
}

/** Imports the faces into the largest list and links the first of them to the others. */
export async function makeLists(
  db: FacesDb,
  options: {
    databaseUrl: string;
    rowsPath: string;
    dim: number;
    sizes: readonly number[];
    signal: AbortSignal;
    say: (text: string) => void;
  },
): Promise<BenchLists> {
  const { rowsPath, dim, sizes, signal, say } = options;
  const largest = sizes.at(-1) ?? 0;
  if (rowsIn(rowsPath, dim) < largest) throw new Error(`${rowsPath} holds less than ${largest} rows`);
  const create = async (faces: number): Promise<BenchList> => {
    const { listId } = await db.createList({ name: `bench-build ${faces}`, signal });
    return { listId, faces };
  };
  const lists = await Promise.all([smallFaces, ...sizes].map(create));
  const [small, ...sized] = lists;
  const last = sized.at(-1);
  if (!small || !last) throw new Error("no sizes");
  const startedMs = performance.now();
  let saidMs = startedMs;
  await db.importRows({
    listId: last.listId,
    descriptorVersion,
    dim,
    sourceKey: faceIdsName,
    rows: importRowsOf(rowsPath, dim, largest),
    signal,
    onProgress: ({ doneRows }) => {
      if (performance.now() - saidMs < sayEveryMs) return;
      saidMs = performance.now();
      say(`importing: ${Math.round((100 * doneRows) / largest)} %`);
    },
  });
  const importPerS = largest / ((performance.now() - startedMs) / 1000);
  for (const { listId, faces } of lists.slice(0, -1)) {
    const faceIds = Array.from({ length: Math.min(faces, largest) }, (_, i) => faceIdOf(faceIdsName, i));
    await db.linkFaces({ listId, faceIds, signal });
  }
  await settleDatabase(options.databaseUrl);
  return { small, sized, importPerS };
}

/** What Postgres would otherwise do on its own while something is measured. */
export async function settleDatabase(databaseUrl: string): Promise<void> {
  const sql = await connectSql(databaseUrl);
  try {
    await sql.query("VACUUM ANALYZE");
    await sql.query("CHECKPOINT");
  } finally {
    await sql.close();
  }
}
