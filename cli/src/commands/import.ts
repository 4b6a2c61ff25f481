import { randomUUID } from "node:crypto";
import { LimError } from "@lim/contracts";
import { type FacesDb, type ImportResult, openFacesDb } from "@lim/faces-db";
import { createProgressBoard, formatRate } from "../output.ts";
import { openSource, type SourceFormat } from "../readers/read-rows.ts";

export interface ImportCommand {
  file: string;
  databaseUrl: string;
  /** Name of the list; made where it is missing. */
  list: string;
  format?: SourceFormat | undefined;
  names?: string | undefined;
  dim: number;
  descriptorVersion: number;
  chunkRows?: number | undefined;
  /** Import every row, also those that an earlier run of the same file committed. */
  again: boolean;
  json: boolean;
  signal: AbortSignal;
}

/** Exit code: 0 all rows imported, 3 some rows were bad. */
export async function runImport(command: ImportCommand): Promise<number> {
  const db = openFacesDb({ connectionString: command.databaseUrl, applicationName: "lim import" });
  try {
    await db.migrate({ signal: command.signal });
    const { listId, created } = await listByName(db, command.list, command.signal);
    if (!command.json) console.log(`list ${command.list} (${listId})${created ? ", new" : ""}`);
    const startedMs = performance.now();
    const result = await importFile(db, listId, command);
    report(result, (performance.now() - startedMs) / 1000, listId, command.json);
    return result.bad > 0 ? 3 : 0;
  } finally {
    await db.close();
  }
}

async function listByName(
  db: FacesDb,
  name: string,
  signal: AbortSignal,
): Promise<{ listId: string; created: boolean }> {
  const found = await db.findListByName({ name, signal });
  if (found) return { listId: found.listId, created: false };
  return { listId: (await db.createList({ name, signal })).listId, created: true };
}

async function importFile(db: FacesDb, listId: string, command: ImportCommand): Promise<ImportResult> {
  const source = await openSource({
    path: command.file,
    format: command.format,
    dim: command.dim,
    names: command.names,
    signal: command.signal,
  });
  const board = createProgressBoard();
  const bar = board.add("import", source.sizeBytes, "bytes");
  try {
    const result = await db.importRows({
      listId,
      descriptorVersion: command.descriptorVersion,
      dim: command.dim,
      sourceKey: command.again ? `${source.sourceKey}#${randomUUID()}` : source.sourceKey,
      rows: source.rows,
      ...(command.chunkRows === undefined ? {} : { chunkRows: command.chunkRows }),
      onProgress: ({ imported, bad }) =>
        bar.update(
          Math.min(source.readBytes(), source.sizeBytes),
          `· ${imported} faces${bad ? `, ${bad} bad` : ""}`,
        ),
      signal: command.signal,
    });
    bar.finish();
    return result;
  } catch (error) {
    throw command.signal.aborted
      ? new LimError(
          "aborted",
          "import stopped; run the same command again to go on after the last committed chunk",
          {
            cause: error,
          },
        )
      : error;
  } finally {
    board.stop();
  }
}

function report(result: ImportResult, seconds: number, listId: string, json: boolean): void {
  if (json) {
    console.log(
      JSON.stringify({
        list_id: listId,
        rows: result.doneRows,
        imported: result.imported,
        bad: result.bad,
        resumed_from_row: result.resumedFromRow,
        seconds,
        faults: result.faults,
      }),
    );
    return;
  }
  const rows = result.doneRows - result.resumedFromRow;
  if (result.resumedFromRow > 0)
    console.log(
      rows === 0
        ? `all ${result.resumedFromRow} rows of this file were imported before; --again imports them anew`
        : `went on after row ${result.resumedFromRow}, which an earlier run had reached`,
    );
  const rate = rows > 0 ? ` (${formatRate(rows / Math.max(seconds, 1e-3))} rows/s)` : "";
  console.log(`${result.imported} faces imported, ${result.bad} bad rows${rate}`);
  for (const fault of result.faults) console.log(`  line ${fault.line}: ${fault.reason}`);
  if (result.bad > result.faults.length)
    console.log(`  … and ${result.bad - result.faults.length} more bad rows`);
}
