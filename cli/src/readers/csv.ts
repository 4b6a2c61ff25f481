import type { ReadStream } from "node:fs";
import { LimError } from "@lim/contracts";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { parse } from "csv-parse";
import { toImportRow } from "./row-fields.ts";

/**
 * A header line, then `face_id` or `external_id` and the descriptor: either one column `descriptor` (numbers separated
 * by spaces or semicolons, or base64 of float32), or `dim` columns named d0, d1, …. `nameless`: the descriptor is enough.
 */
export async function* readCsv(
  open: () => ReadStream,
  dim: number,
  nameless = false,
): AsyncGenerator<ImportRow | ImportFault> {
  const input = open();
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    relax_quotes: true,
    columns: false,
  });
  input.on("error", (error) => parser.destroy(error));
  input.pipe(parser);
  let columns: CsvColumns | undefined;
  for await (const item of parser) {
    const { record, info } = item as { record: string[]; info: { lines: number } };
    if (columns === undefined) {
      columns = findColumns(record, dim, nameless);
      continue;
    }
    const line = info.lines;
    if (record.length === 1 && record[0] === "") continue;
    const descriptor =
      columns.descriptor === undefined
        ? columns.numbers.map((column) => record[column]?.trim() || "?").join(" ")
        : record[columns.descriptor];
    const faceId = columns.faceId === undefined ? undefined : record[columns.faceId];
    const externalId = columns.externalId === undefined ? undefined : record[columns.externalId];
    yield toImportRow(line, { faceId, externalId, descriptor }, nameless);
  }
}

interface CsvColumns {
  faceId: number | undefined;
  externalId: number | undefined;
  descriptor: number | undefined;
  numbers: number[];
}

function findColumns(header: readonly string[], dim: number, nameless: boolean): CsvColumns {
  const find = (name: string) => {
    const column = header.findIndex((title) => title.trim().toLowerCase() === name);
    return column < 0 ? undefined : column;
  };
  const columns: CsvColumns = {
    faceId: find("face_id"),
    externalId: find("external_id"),
    descriptor: find("descriptor"),
    numbers: [],
  };
  if (!nameless && columns.faceId === undefined && columns.externalId === undefined)
    throw new LimError("bad_input", "the CSV's first line must name a column face_id or external_id");
  if (columns.descriptor !== undefined) return columns;
  for (let i = 0; i < dim; i++) {
    const column = find(`d${i}`);
    if (column === undefined)
      throw new LimError(
        "bad_input",
        `the CSV needs a column descriptor, or ${dim} columns d0 … d${dim - 1}; d${i} is missing`,
      );
    columns.numbers.push(column);
  }
  return columns;
}
