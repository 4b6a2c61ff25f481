import { randomUUID } from "node:crypto";
import { LimError } from "@lim/contracts";
import { type FacesDb, type ImportResult, openFacesDb } from "@lim/faces-db";
import { type Command, Option } from "commander";
import { helpBelow, jsonOption, positive } from "../options.ts";
import { createProgressBoard, formatRate } from "../output.ts";
import { exitCodes, type Program, requireUrl } from "../program.ts";
import { type DescriptorSource, openSource, type SourceFormat, sourceFormats } from "../readers/read-rows.ts";

interface ImportCommand {
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

interface ImportOptions {
  list: string;
  format?: SourceFormat;
  dim: number;
  names?: string;
  descriptorVersion: number;
  chunk?: number;
  again: boolean;
  json: boolean;
}

export function addImportCommand(root: Command, { settings, act }: Program): void {
  const command = root
    .command("import")
    .description("read descriptors of a file into a list; run again after an interruption, it goes on")
    .argument("<file>", "NDJSON, CSV, NumPy (.npy), .fvecs or raw float32 (.f32)")
    .requiredOption("--list <name>", "name of the list; made where it is missing")
    .addOption(
      new Option("--format <format>", "told from the file's ending otherwise").choices([...sourceFormats]),
    )
    .option("--dim <n>", "numbers of a descriptor", positive, settings.dim)
    .option(
      "--names <file>",
      "names of the rows of a .npy, .fvecs or .f32 file: CSV with a column face_id, external_id, image, name or identity",
    )
    .option("--descriptor-version <n>", "version of the descriptors", positive, settings.descriptorVersion)
    .option("--chunk <rows>", "rows of one transaction", positive)
    .option("--again", "import every row, also what an earlier run of this file has committed", false)
    .addOption(jsonOption("print the result as JSON"));
  helpBelow(command, {
    more: `A line of NDJSON: {"external_id": "ann", "descriptor": [0.1, …]}; face_id (a UUID) instead of external_id, and
base64 of float32 instead of numbers are taken, too. CSV: a column face_id or external_id, and a column descriptor or
columns d0, d1, …. .npy: an array (rows, dim) of float32 or float64. A row without a name is called by its number.
Files may be larger than memory. Bad rows are counted and named, the others imported (exit code 3).`,
    examples: [
      "lim import faces.ndjson --list staff",
      "lim import faces.npy --list staff --names names.csv",
      "lim import sift.fvecs --list sift --dim 128",
    ],
    environment: "DATABASE_URL, LIM_DESCRIPTOR_DIM, LIM_DESCRIPTOR_VERSION.",
  }).action((file: string, options: ImportOptions) =>
    act((signal) =>
      runImport({
        ...options,
        file,
        chunkRows: options.chunk,
        databaseUrl: requireUrl("DATABASE_URL", settings.databaseUrl),
        signal,
      }),
    ),
  );
}

/** Exit code: 0 all rows imported, 3 some rows were bad. */
async function runImport(command: ImportCommand): Promise<number> {
  // Before anything is made in the database: a file that cannot be read leaves no empty list behind.
  const source = await sourceOf(command);
  const db = openFacesDb({ connectionString: command.databaseUrl, applicationName: "lim import" });
  try {
    await db.migrate({ signal: command.signal });
    const { listId, created } = await listByName(db, command.list, command.signal);
    if (!command.json) console.log(`list ${command.list} (${listId})${created ? ", new" : ""}`);
    const startedMs = performance.now();
    const result = await importFile(db, listId, source, command);
    report(result, (performance.now() - startedMs) / 1000, listId, command.json);
    return result.bad > 0 ? exitCodes.inPart : exitCodes.done;
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

function sourceOf({ file, format, dim, names, signal }: ImportCommand): Promise<DescriptorSource> {
  return openSource({ path: file, format, dim, names, signal });
}

async function importFile(
  db: FacesDb,
  listId: string,
  source: DescriptorSource,
  command: ImportCommand,
): Promise<ImportResult> {
  const board = createProgressBoard();
  const unit = source.sizeBytes < 16 * 2 ** 20 ? "KiB" : "MiB";
  const scaled = (bytes: number) => Math.ceil(bytes / (unit === "KiB" ? 2 ** 10 : 2 ** 20));
  const bar = board.add("import", scaled(source.sizeBytes), unit);
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
          scaled(Math.min(source.readBytes(), source.sizeBytes)),
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
