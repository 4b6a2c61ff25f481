import { createReadStream, type ReadStream } from "node:fs";
import { resolve } from "node:path";
import { decodeVector, LimError } from "@lim/contracts";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { parse } from "csv-parse";
import { type RowName, toRowName } from "./row-fields.ts";

/** Columns of a CSV of names that can identify a face, the best first. */
const idColumns = ["face_id", "external_id", "image", "name", "identity"] as const;

/**
 * Raw float32 little-endian rows of `dim` numbers. Names come from a CSV with one line a row, in the same order;
 * without one, a row's external id is its number.
 */
export async function* readF32(
  open: () => ReadStream,
  options: { dim: number; sizeBytes: number; path: string; names?: string | undefined },
): AsyncGenerator<ImportRow | ImportFault> {
  const rowBytes = options.dim * 4;
  if (options.sizeBytes === 0 || options.sizeBytes % rowBytes !== 0)
    throw new LimError(
      "bad_input",
      `${options.path} has ${options.sizeBytes} bytes, not a multiple of ${rowBytes} (dim ${options.dim} × 4): wrong --dim?`,
    );
  const names = options.names === undefined ? undefined : readNames(resolve(options.names));
  let rest: Buffer = Buffer.alloc(0);
  let row = 0;
  for await (const chunk of open()) {
    let data = rest.length === 0 ? (chunk as Buffer) : Buffer.concat([rest, chunk as Buffer]);
    while (data.length >= rowBytes) {
      row++;
      const name = names === undefined ? { externalId: String(row) } : await nextName(names, row);
      const vector = decodeVector(data.subarray(0, rowBytes));
      yield "reason" in name ? name : { line: row, vector, ...name };
      data = data.subarray(rowBytes);
    }
    rest = data;
  }
  if (names !== undefined && !(await names.next()).done)
    throw new LimError("bad_input", `${options.names} has more lines than ${options.path} has rows (${row})`);
}

async function nextName(
  names: AsyncGenerator<{ faceId?: string; externalId?: string }>,
  row: number,
): Promise<RowName | ImportFault> {
  const next = await names.next();
  if (next.done) throw new LimError("bad_input", `the CSV of names ends before row ${row}`);
  return toRowName(row, next.value);
}

async function* readNames(path: string): AsyncGenerator<{ faceId?: string; externalId?: string }> {
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
