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

/** Feeds `bytes` cut at the given places and collects the rows. */
function parse(bytes: Buffer, cuts: readonly number[], columns: number): CopyRow[] {
  const rows: CopyRow[] = [];
  let row: CopyRow = [];
  const parser = new CopyBinaryParser({
    columns,
    maxFieldBytes: 64,
    sink: {
      fieldAt: 1,
      field(column, length) {
        expect(column).toBe(row.length);
        // One byte before and one after, which nobody may touch.
        const room = Buffer.alloc(Math.max(length, 0) + 2);
        row.push(length === -1 ? null : room);
        return length === -1 ? undefined : room;
      },
      row() {
        rows.push(
          row.map((room) => {
            expect([room?.at(0) ?? 0, room?.at(-1) ?? 0]).toEqual([0, 0]);
            return room?.subarray(1, -1) ?? null;
          }),
        );
        row = [];
      },
    },
  });
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  // In turn as a chunk of its own, and as a part of a larger one.
  for (let i = 1; i < places.length; i++) {
    const [from, to] = [places[i - 1] ?? 0, places[i] ?? 0];
    if (i % 2 === 0) parser.push(bytes.subarray(from, to));
    else parser.push(bytes, from, to);
  }
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
