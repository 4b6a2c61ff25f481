import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CopyBinaryParser, type CopyRow, encodeCopyBinary } from "../src/copy-binary.ts";

const rowsOf = (columns: number) =>
  fc.array(
    fc.array(fc.option(fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes))), {
      minLength: columns,
      maxLength: columns,
    }),
    { maxLength: 20 },
  );

/** Feeds `bytes` cut at the given places and copies what comes out. */
function parse(bytes: Buffer, cuts: readonly number[], columns: number): CopyRow[] {
  const parser = new CopyBinaryParser({ columns, maxFieldBytes: 64 });
  const rows: CopyRow[] = [];
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  for (let i = 1; i < places.length; i++)
    for (const row of parser.push(bytes.subarray(places[i - 1], places[i])))
      rows.push(row.map((field) => field && Buffer.from(field)));
  parser.end();
  return rows;
}

describe("binary COPY", () => {
  it("reads what was written, wherever the chunks end", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }).chain((columns) => fc.tuple(fc.constant(columns), rowsOf(columns))),
        fc.array(fc.nat(), { maxLength: 30 }),
        ([columns, rows], cuts) => {
          expect(parse(encodeCopyBinary(rows), cuts, columns)).toEqual(rows);
        },
      ),
    );
  });

  it("reads one byte at a time", () => {
    const rows: CopyRow[] = [
      [Buffer.from("abc"), null],
      [Buffer.alloc(0), Buffer.from("z")],
    ];
    const bytes = encodeCopyBinary(rows);
    expect(parse(bytes, [...bytes.keys()], 2)).toEqual(rows);
  });

  it("refuses every truncation", () => {
    const bytes = encodeCopyBinary([[Buffer.from("abc"), null]]);
    for (let length = 0; length < bytes.length; length++)
      expect(() => parse(bytes.subarray(0, length), [], 2)).toThrow("before its trailer");
  });

  it("refuses a foreign signature, other columns, oversized fields and bytes after the trailer", () => {
    const good = encodeCopyBinary([[Buffer.from("abc")]]);
    const foreign = Buffer.from(good);
    foreign[3] = 0;
    expect(() => parse(foreign, [], 1)).toThrow("signature");
    expect(() => parse(good, [], 2)).toThrow("columns");
    expect(() => parse(encodeCopyBinary([[Buffer.alloc(65)]]), [], 1)).toThrow("field of 65 bytes");
    expect(() => parse(Buffer.concat([good, Buffer.from([1])]), [], 1)).toThrow("after the trailer");
  });
});
