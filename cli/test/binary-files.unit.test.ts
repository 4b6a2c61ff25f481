import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readProbes } from "../src/readers/read-probes.ts";
import { openSource, type SourceOptions } from "../src/readers/read-rows.ts";

let dir: string;
const { signal } = new AbortController();
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "lim-binary-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function rowsOf(name: string, content: Uint8Array, options: Partial<SourceOptions> = {}) {
  const path = join(dir, name);
  await writeFile(path, content);
  const rows: (ImportRow | ImportFault)[] = [];
  for await (const row of (await openSource({ path, dim: 3, signal, ...options })).rows) rows.push(row);
  return rows.map((row) => ("reason" in row ? row : { ...row, vector: [...row.vector] }));
}

const floats = (...numbers: number[]) => Buffer.from(Float32Array.from(numbers).buffer);
const doubles = (...numbers: number[]) => Buffer.from(Float64Array.from(numbers).buffer);

/** As NumPy writes it: the header ends with a line feed at a multiple of 64 bytes. */
function npy(dict: string, data: Uint8Array, version = 1): Buffer {
  const lengthBytes = version === 1 ? 2 : 4;
  const length = Math.ceil((8 + lengthBytes + dict.length + 1) / 64) * 64 - 8 - lengthBytes;
  const head = Buffer.alloc(8 + lengthBytes);
  head.write("\x93NUMPY", "latin1");
  head[6] = version;
  if (version === 1) head.writeUInt16LE(length, 8);
  else head.writeUInt32LE(length, 8);
  return Buffer.concat([head, Buffer.from(`${dict.padEnd(length - 1)}\n`), data]);
}
const dict = (descr: string, shape: string, order = "False") =>
  `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': (${shape}), }`;
const two = [
  { line: 1, externalId: "1", vector: [1, 0, 0] },
  { line: 2, externalId: "2", vector: [0, 0.5, 0] },
];

describe(".npy", () => {
  test.each([1, 2, 3])("float32 and float64 of version %i", async (version) => {
    const f4 = npy(dict("'<f4'", "2, 3"), floats(1, 0, 0, 0, 0.5, 0), version);
    expect(await rowsOf("a.npy", f4)).toEqual(two);
    const f8 = npy(dict("'<f8'", "2, 3"), doubles(1, 0, 0, 0, 0.5, 0), version);
    expect(await rowsOf("b.npy", f8)).toEqual(two);
  });

  test("one row without a second dimension; names of a CSV", async () => {
    await writeFile(join(dir, "names.csv"), "name\nann\nbob\n");
    expect(await rowsOf("c.npy", npy(dict('"<f4"', "3,"), floats(0, 0, 1)))).toEqual([
      { line: 1, externalId: "1", vector: [0, 0, 1] },
    ]);
    const rows = await rowsOf("d.npy", npy(dict("'<f4'", "2, 3"), floats(1, 0, 0, 0, 0.5, 0)), {
      names: join(dir, "names.csv"),
    });
    expect(rows.map((row) => "externalId" in row && row.externalId)).toEqual(["ann", "bob"]);
  });

  test("a file of more than one chunk, whose rows lie across the chunks' ends", async () => {
    const rows = 300_000;
    const data = new Float32Array(rows * 3).map((_, i) => i);
    const found = await rowsOf("large.npy", npy(dict("'<f4'", `${rows}, 3`), new Uint8Array(data.buffer)));
    expect(found.length).toBe(rows);
    const wrong = found.findIndex(
      (row, i) => "reason" in row || row.vector[0] !== i * 3 || row.line !== i + 1,
    );
    expect(wrong).toBe(-1);
  });

  const bytes = floats(1, 0, 0, 0, 0.5, 0);
  test.each<[string, Buffer, RegExp]>([
    ["another file", Buffer.from("not NumPy at all"), /is no \.npy file/],
    ["an empty file", Buffer.alloc(0), /is no \.npy file/],
    ["a later version", npy(dict("'<f4'", "2, 3"), bytes, 4), /version 4; 1 to 3/],
    ["a header that is cut off", npy(dict("'<f4'", "2, 3"), bytes).subarray(0, 40), /cut off in its header/],
    ["big-endian numbers", npy(dict("'>f4'", "2, 3"), bytes), /holds >f4.*astype\('<f4'\)/],
    ["integers", npy(dict("'<i8'", "2, 3"), bytes), /holds <i8/],
    ["objects", npy(dict("'|O'", "2, 3"), bytes), /holds \|O/],
    ["records", npy(dict("[('a', '<f4')]", "2, 3"), bytes), /several fields/],
    ["Fortran order", npy(dict("'<f4'", "2, 3", "True"), bytes), /Fortran order.*ascontiguousarray/],
    ["three dimensions", npy(dict("'<f4'", "1, 2, 3"), bytes), /shape \(1, 2, 3\).*reshape\(-1, 3\)/],
    ["no dimension", npy(dict("'<f4'", ""), bytes), /shape \(\)/],
    ["no rows", npy(dict("'<f4'", "0, 3"), Buffer.alloc(0)), /no rows/],
    ["another dim", npy(dict("'<f4'", "3, 2"), bytes), /have 2 numbers, not 3.*--dim 2/],
    ["a shape of endless digits", npy(dict("'<f4'", `${"1".repeat(400)}x`), bytes), /does not name type/],
    ["a shape past all bounds", npy(dict("'<f4'", `${"9".repeat(40)}, 3`), bytes), /its header says/],
    ["a shape with a gap", npy(dict("'<f4'", "2,, 3"), bytes), /does not name type/],
    ["fewer bytes than rows", npy(dict("'<f4'", "2, 3"), bytes.subarray(4)), /cut off/],
    ["more bytes than rows", npy(dict("'<f4'", "1, 3"), bytes), /its header says/],
    [
      "a header without a shape",
      npy("{'descr': '<f4', 'fortran_order': False}", bytes),
      /type, order and shape/,
    ],
  ])("%s is refused with the reason", async (_, content, reason) => {
    await expect(rowsOf("bad.npy", content)).rejects.toThrow(reason);
  });
});

describe(".fvecs", () => {
  const row = (length: number, ...numbers: number[]) =>
    Buffer.concat([Buffer.from(Int32Array.of(length).buffer), floats(...numbers)]);

  test("rows with their length before each", async () => {
    expect(await rowsOf("a.fvecs", Buffer.concat([row(3, 1, 0, 0), row(3, 0, 0.5, 0)]))).toEqual(two);
  });

  test.each<[string, Buffer, RegExp]>([
    ["an empty file", Buffer.alloc(0), /empty/],
    ["another dim", row(2, 1, 0), /have 2 numbers, not 3/],
    ["another kind of file", Buffer.from("%PDF-1.7 and so on"), /no \.fvecs file/],
    ["a file that is cut off", Buffer.concat([row(3, 1, 0, 0), row(3, 1, 0)]), /not a multiple of 16/],
    ["rows of several lengths", Buffer.concat([row(3, 1, 0, 0), row(7, 1, 0, 0)]), /row 2 has 7 numbers/],
  ])("%s is refused with the reason", async (_, content, reason) => {
    await expect(rowsOf("bad.fvecs", content)).rejects.toThrow(reason);
  });
});

test.each([
  ["cut off", 5],
  ["appended to", 9],
])("a file that is %s while it is read is refused at its end", async (_, rows) => {
  const path = join(dir, "moving.f32");
  await writeFile(path, floats(...new Array(7 * 3).fill(1)));
  const source = await openSource({ path, dim: 3, signal });
  await writeFile(path, floats(...new Array(rows * 3).fill(1)));
  let read = 0;
  const all = async () => {
    for await (const _row of source.rows) read++;
  };
  await expect(all()).rejects.toThrow(/changed while it was read \(it had 84 bytes/);
  expect(read).toBe(Math.min(rows, 7));
});

describe("probes", () => {
  async function probesOf(name: string, content: string | Uint8Array) {
    const path = join(dir, name);
    await writeFile(path, content);
    const found: unknown[] = [];
    for await (const probe of await readProbes({ path, dim: 3, signal }))
      found.push("reason" in probe ? probe : { name: probe.name, vector: [...probe.vector] });
    return found;
  }
  const wanted = [
    { name: "1", vector: [1, 0, 0] },
    { name: "2", vector: [0, 0.5, 0] },
  ];

  test("rows of every format need no name and are called by their number", async () => {
    expect(await probesOf("p.npy", npy(dict("'<f4'", "2, 3"), floats(1, 0, 0, 0, 0.5, 0)))).toEqual(wanted);
    expect(await probesOf("p.f32", floats(1, 0, 0, 0, 0.5, 0))).toEqual(wanted);
    expect(await probesOf("p.ndjson", '{"descriptor":[1,0,0]}\n{"descriptor":[0,0.5,0]}')).toEqual(wanted);
    expect(await probesOf("p.csv", "descriptor\n1 0 0\n0 0.5 0\n").then((rows) => rows.length)).toBe(2);
    expect(await probesOf("p.json", "[[1,0,0],[0,0.5,0]]")).toEqual(wanted);
    expect(await probesOf("q.json", "[1,0,0]")).toEqual(wanted.slice(0, 1));
    expect(await probesOf("p.txt", "1 0 0\n")).toEqual(wanted.slice(0, 1));
    expect(await probesOf("r.json", '[{"external_id":"ann","descriptor":[1,0,0]}]')).toEqual([
      { name: "ann", vector: [1, 0, 0] },
    ]);
  });

  test("a bad row is told, and the others are probes", async () => {
    expect(await probesOf("bad.json", '[[1,0],[0,0.5,0],"x y z",[]]')).toEqual([
      { line: 1, reason: "has 2 numbers instead of 3: wrong --dim?" },
      { name: "2", vector: [0, 0.5, 0] },
      { line: 3, reason: "descriptor[0] is not a number" },
      { line: 4, reason: "has 0 numbers instead of 3: wrong --dim?" },
    ]);
    await expect(probesOf("broken.json", "{")).rejects.toThrow(/not JSON/);
    await expect(probesOf("x.bin", "1")).rejects.toThrow(/--format/);
  });
});
