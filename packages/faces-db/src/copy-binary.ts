import { LimError } from "@lim/contracts";

/** Postgres' COPY (FORMAT binary): signature, flags and extension; rows of length-prefixed fields; a trailer of -1. */
const signature = Buffer.from("PGCOPY\n\xff\r\n\0", "latin1");
const fixedHeaderBytes = signature.length + 8;
const oidsFlag = 1 << 16;

export type CopyRow = (Buffer | null)[];

/** Incremental parser: chunks may end anywhere. Fields are views of the chunks; use or copy them before the next push. */
export class CopyBinaryParser {
  readonly #columns: number;
  readonly #maxFieldBytes: number;
  #rest: Buffer = Buffer.alloc(0);
  #state: "header" | "rows" | "ended" = "header";

  constructor(options: { columns: number; maxFieldBytes: number }) {
    this.#columns = options.columns;
    this.#maxFieldBytes = options.maxFieldBytes;
  }

  /** Rows that are complete with this chunk. */
  push(chunk: Buffer): CopyRow[] {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const rows: CopyRow[] = [];
    let at = this.#state === "header" ? this.#readHeader(bytes) : 0;
    while (this.#state === "rows") {
      const end = this.#readRow(bytes, at, rows);
      if (end === undefined) break;
      at = end;
    }
    if (this.#state === "ended" && at < bytes.length) throw malformed("bytes after the trailer");
    this.#rest = bytes.subarray(at);
    return rows;
  }

  /** Throws unless the trailer was seen: a truncated copy is no copy. */
  end(): void {
    if (this.#state !== "ended") throw malformed("it ended before its trailer");
  }

  #readHeader(bytes: Buffer): number {
    const seen = Math.min(bytes.length, signature.length);
    if (!bytes.subarray(0, seen).equals(signature.subarray(0, seen))) throw malformed("wrong signature");
    if (bytes.length < fixedHeaderBytes) return 0;
    if (bytes.readUInt32BE(signature.length) & oidsFlag) throw malformed("it holds OIDs");
    const extensionBytes = bytes.readUInt32BE(signature.length + 4);
    if (extensionBytes > this.#maxFieldBytes) throw malformed("header extension is too long");
    if (bytes.length < fixedHeaderBytes + extensionBytes) return 0;
    this.#state = "rows";
    return fixedHeaderBytes + extensionBytes;
  }

  /** Appends the row at `start` and returns its end, or undefined where it is not complete yet. */
  #readRow(bytes: Buffer, start: number, rows: CopyRow[]): number | undefined {
    if (bytes.length < start + 2) return undefined;
    const columns = bytes.readInt16BE(start);
    let at = start + 2;
    if (columns === -1) {
      this.#state = "ended";
      return at;
    }
    if (columns !== this.#columns) throw malformed(`${columns} columns instead of ${this.#columns}`);
    const row: CopyRow = [];
    for (let column = 0; column < columns; column++) {
      if (bytes.length < at + 4) return undefined;
      const length = bytes.readInt32BE(at);
      at += 4;
      if (length === -1) {
        row.push(null);
        continue;
      }
      if (length < 0 || length > this.#maxFieldBytes) throw malformed(`a field of ${length} bytes`);
      if (bytes.length < at + length) return undefined;
      row.push(bytes.subarray(at, at + length));
      at += length;
    }
    rows.push(row);
    return at;
  }
}

function malformed(what: string): LimError {
  return new LimError("internal", `binary COPY stream from Postgres: ${what}`);
}

/** All rows as one binary COPY. */
export function encodeCopyBinary(rows: readonly CopyRow[]): Buffer {
  let size = fixedHeaderBytes + 2;
  for (const row of rows) {
    size += 2;
    for (const field of row) size += 4 + (field?.length ?? 0);
  }
  const out = Buffer.alloc(size);
  signature.copy(out, 0);
  let at = fixedHeaderBytes;
  for (const row of rows) {
    at = out.writeInt16BE(row.length, at);
    for (const field of row) {
      at = out.writeInt32BE(field?.length ?? -1, at);
      if (field !== null) at += field.copy(out, at);
    }
  }
  out.writeInt16BE(-1, at);
  return out;
}
