import { LimError } from "@lim/contracts";

/** Postgres' COPY (FORMAT binary): signature, flags and extension; rows of length-prefixed fields; a trailer of -1. */
const signature = Buffer.from("PGCOPY\n\xff\r\n\0", "latin1");
const fixedHeaderBytes = signature.length + 8;
const oidsFlag = 1 << 16;

/** Where the rows of a copy go. */
export interface CopySink {
  /** A field begins, of `length` bytes, -1 for NULL: what takes its bytes from `fieldAt` on, or undefined to drop them. */
  field(column: number, length: number): Uint8Array | undefined;
  /** Read right after `field` gave something back. */
  readonly fieldAt: number;
  /** All fields of a row have come. */
  row(): void;
}

type State = "header" | "extension" | "columns" | "length" | "field" | "ended";

/** Incremental parser: chunks may end anywhere. Copies each field's bytes once, straight to where the sink wants them. */
export class CopyBinaryParser {
  readonly #columns: number;
  readonly #maxFieldBytes: number;
  readonly #sink: CopySink;
  readonly #header = Buffer.alloc(fixedHeaderBytes);
  #state: State = "header";
  /** Bytes that the state still waits for. */
  #left = fixedHeaderBytes;
  /** The big-endian number that is being read. */
  #number = 0;
  #column = 0;
  #target: Uint8Array | undefined;
  #targetAt = 0;

  constructor(options: { columns: number; maxFieldBytes: number; sink: CopySink }) {
    this.#columns = options.columns;
    this.#maxFieldBytes = options.maxFieldBytes;
    this.#sink = options.sink;
  }

  /** The bytes of the stream from `from` to `to` of the chunk. */
  push(chunk: Buffer, from = 0, to = chunk.length): void {
    let at = from;
    while (at < to) {
      if (this.#state === "columns" || this.#state === "length") {
        while (this.#left > 0 && at < to) {
          this.#number = (this.#number << 8) | (chunk[at++] as number);
          this.#left--;
        }
        if (this.#left > 0) return;
        if (this.#state === "columns") this.#beginRow((this.#number << 16) >> 16);
        else this.#beginField(this.#number);
        continue;
      }
      if (this.#state === "ended") throw malformed("bytes after the trailer");
      const bytes = Math.min(this.#left, to - at);
      this.#take(chunk, at, bytes);
      at += bytes;
    }
  }

  /** Throws unless the trailer was seen: a truncated copy is no copy. */
  end(): void {
    if (this.#state !== "ended") throw malformed("it ended before its trailer");
  }

  #expect(state: "columns" | "length", bytes: number): void {
    this.#state = state;
    this.#left = bytes;
    this.#number = 0;
  }

  #take(chunk: Buffer, at: number, bytes: number): void {
    if (this.#state === "header") chunk.copy(this.#header, fixedHeaderBytes - this.#left, at, at + bytes);
    else if (this.#target) {
      chunk.copy(this.#target, this.#targetAt, at, at + bytes);
      this.#targetAt += bytes;
    }
    this.#left -= bytes;
    if (this.#state === "header") this.#readHeader(fixedHeaderBytes - this.#left);
    else if (this.#left > 0) return;
    else if (this.#state === "extension") this.#expect("columns", 2);
    else this.#endField();
  }

  #readHeader(seen: number): void {
    const begun = Math.min(seen, signature.length);
    if (this.#header.compare(signature, 0, begun, 0, begun) !== 0) throw malformed("wrong signature");
    if (this.#left > 0) return;
    if (this.#header.readUInt32BE(signature.length) & oidsFlag) throw malformed("it holds OIDs");
    const extensionBytes = this.#header.readUInt32BE(signature.length + 4);
    if (extensionBytes > this.#maxFieldBytes) throw malformed("header extension is too long");
    this.#state = "extension";
    this.#left = extensionBytes;
    if (extensionBytes === 0) this.#expect("columns", 2);
  }

  #beginRow(columns: number): void {
    if (columns === -1) {
      this.#state = "ended";
      return;
    }
    if (columns !== this.#columns) throw malformed(`${columns} columns instead of ${this.#columns}`);
    this.#column = 0;
    this.#expect("length", 4);
  }

  #beginField(length: number): void {
    if (length < -1 || length > this.#maxFieldBytes) throw malformed(`a field of ${length} bytes`);
    this.#target = this.#sink.field(this.#column, length);
    this.#targetAt = this.#target ? this.#sink.fieldAt : 0;
    this.#state = "field";
    this.#left = length;
    if (length <= 0) this.#endField();
  }

  #endField(): void {
    this.#target = undefined;
    this.#column++;
    if (this.#column < this.#columns) {
      this.#expect("length", 4);
      return;
    }
    this.#sink.row();
    this.#expect("columns", 2);
  }
}

function malformed(what: string): LimError {
  return new LimError("internal", `binary COPY stream from Postgres: ${what}`);
}

export type CopyRow = (Buffer | null)[];

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
