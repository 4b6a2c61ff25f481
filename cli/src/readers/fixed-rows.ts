import { createReadStream, type ReadStream } from "node:fs";
import { resolve } from "node:path";
import { LimError } from "@lim/contracts";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { parse } from "csv-parse";
import { type RowName, toRowName } from "./row-fields.ts";

/** Columns of a CSV of names that can identify a face, the best first. */
const idColumns = ["face_id", "external_id", "image", "name", "identity"] as const;

/** A file whose rows all have the same number of bytes. */
export interface RowLayout {
  /** Before the first row. */
  headBytes: number;
  rowBytes: number;
  /** `row` counts from 1. Throws bad_input where the file is not what its layout says. */
  decode(bytes: Buffer, row: number): Float32Array;
}

export interface FixedRowsOptions {
  path: string;
  /** By which the layout was judged; `open` gives at least one byte more where there is one by now. */
  sizeBytes: number;
  /** A CSV with one line a row, in the same order; without one, a row's external id is its number. */
  names?: string | undefined;
  /** Rows need no name, and get none where there is no CSV. */
  nameless?: boolean | undefined;
}

/** Row by row, whatever the size of the file: no more of it is in memory than a chunk of the stream and a row. */
export async function* readFixedRows(
  open: () => ReadStream,
  layout: RowLayout,
  options: FixedRowsOptions,
): AsyncGenerator<ImportRow | ImportFault> {
  const names = options.names === undefined ? undefined : readNames(resolve(options.names));
  try {
    const row = yield* rowsOf(open, layout, options, names);
    if (names !== undefined && !(await names.next()).done)
      throw new LimError(
        "bad_input",
        `${options.names} has more lines than ${options.path} has rows (${row})`,
      );
  } finally {
    await names?.return(undefined);
  }
}

/** Returns how many there were. */
async function* rowsOf(
  open: () => ReadStream,
  layout: RowLayout,
  options: FixedRowsOptions,
  names: AsyncGenerator<RowName> | undefined,
): AsyncGenerator<ImportRow | ImportFault, number> {
  const { headBytes, rowBytes } = layout;
  let readBytes = 0;
  let skip = headBytes;
  let rest: Buffer = Buffer.alloc(0);
  let row = 0;
  for await (const chunk of open()) {
    readBytes += chunk.length;
    let data = rest.length === 0 ? (chunk as Buffer) : Buffer.concat([rest, chunk as Buffer]);
    const skipped = Math.min(skip, data.length);
    skip -= skipped;
    data = data.subarray(skipped);
    while (data.length >= rowBytes) {
      row++;
      const vector = layout.decode(data.subarray(0, rowBytes), row);
      const name = names === undefined ? nameOfRow(row, options) : await nextName(names, row);
      yield "reason" in name ? name : { line: row, vector, ...name };
      data = data.subarray(rowBytes);
    }
    rest = data;
  }
  if (readBytes !== options.sizeBytes)
    throw new LimError(
      "bad_input",
      `${options.path} changed while it was read (it had ${options.sizeBytes} bytes before): do it again when it is whole`,
    );
  return row;
}

const nameOfRow = (row: number, { nameless }: FixedRowsOptions): RowName =>
  nameless ? {} : { externalId: String(row) };

async function nextName(names: AsyncGenerator<RowName>, row: number): Promise<RowName | ImportFault> {
  const next = await names.next();
  if (next.done) throw new LimError("bad_input", `the CSV of names ends before row ${row}`);
  return toRowName(row, next.value);
}

async function* readNames(path: string): AsyncGenerator<RowName> {
  const input = createReadStream(path);
  const parser = parse({ bom: true, relax_column_count: true });
  input.on("error", (error) => parser.destroy(error));
  input.pipe(parser);
  let column: number | undefined;
  let isFaceId = false;
  for await (const record of parser as AsyncIterable<string[]>) {
    if (column === undefined) {
      const titles = record.map((title) => title.trim().toLowerCase());
      const found = idColumns.find((title) => titles.includes(title));
      if (found === undefined)
        throw new LimError("bad_input", `${path}: the first line must name one of ${idColumns.join(", ")}`);
      column = titles.indexOf(found);
      isFaceId = found === "face_id";
      continue;
    }
    const value = record[column];
    if (value === undefined || value === "") yield {};
    else yield isFaceId ? { faceId: value } : { externalId: value };
  }
}
