import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ImportFault, ImportRow } from "@lim/faces-db";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSource, type SourceOptions } from "../src/readers/read-rows.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "lim-readers-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const faceId = "00000000-0000-4000-8000-00000000000a";

async function read(
  name: string,
  content: string | Uint8Array,
  options: Partial<SourceOptions> = {},
): Promise<(ImportRow | ImportFault)[]> {
  const path = join(dir, name);
  await writeFile(path, content);
  const source = await openSource({ path, dim: 3, signal: new AbortController().signal, ...options });
  const rows: (ImportRow | ImportFault)[] = [];
  for await (const row of source.rows) rows.push(row);
  return rows;
}

const floats = (...numbers: number[]) => Buffer.from(Float32Array.from(numbers).buffer);
const plain = (rows: (ImportRow | ImportFault)[]) =>
  rows.map((row) => ("reason" in row ? row : { ...row, vector: [...row.vector] }));

describe("NDJSON", () => {
  test("reads arrays and base64, by face id or external id, and tells bad lines by number", async () => {
    const rows = await read(
      "a.ndjson",
      [
        JSON.stringify({ face_id: faceId.toUpperCase(), descriptor: [1, 0, 0] }),
        "",
        JSON.stringify({ external_id: "bob", descriptor: floats(0, 1, 0).toString("base64") }),
        "{broken",
        "[1]",
        JSON.stringify({ descriptor: [1, 0, 0] }),
        JSON.stringify({ face_id: "no-uuid", descriptor: [1, 0, 0] }),
        JSON.stringify({ external_id: "x", descriptor: [1, "0", 0] }),
        JSON.stringify({ external_id: 7 }),
      ].join("\r\n"),
    );
    expect(plain(rows)).toEqual([
      { line: 1, faceId, vector: [1, 0, 0] },
      { line: 3, externalId: "bob", vector: [0, 1, 0] },
      { line: 4, reason: "not JSON" },
      { line: 5, reason: "not an object" },
      { line: 6, reason: "neither face_id nor external_id" },
      { line: 7, reason: 'face_id "no-uuid" is not a UUID' },
      { line: 8, reason: "descriptor[1] is not a number" },
      { line: 9, reason: "descriptor is missing" },
    ]);
  });
});

describe("CSV", () => {
  test("reads one descriptor column, quoted, in any order of columns", async () => {
    const rows = await read("a.csv", 'descriptor,external_id\n"1 0 0",ann\n0;1;0,bob\n1 x 0,eve\n');
    expect(plain(rows)).toEqual([
      { line: 2, externalId: "ann", vector: [1, 0, 0] },
      { line: 3, externalId: "bob", vector: [0, 1, 0] },
      { line: 4, reason: "descriptor[1] is not a number" },
    ]);
  });

  test("reads one column a number and refuses a header that lacks one", async () => {
    const rows = await read("b.csv", `face_id,d0,d1,d2\n${faceId},0,0,1\n${faceId},0,0\n`);
    expect(plain(rows)).toEqual([
      { line: 2, faceId, vector: [0, 0, 1] },
      { line: 3, reason: "descriptor[2] is not a number" },
    ]);
    await expect(read("c.csv", `face_id,d0,d1\n${faceId},0,0\n`)).rejects.toThrow(/d2 is missing/);
    await expect(read("d.csv", "name,descriptor\n")).rejects.toThrow(/face_id or external_id/);
  });
});

describe("raw float32", () => {
  test("names rows by the CSV beside it, or by their number", async () => {
    await writeFile(join(dir, "names.csv"), "row,identity,image\n0,Ann,Ann_1.jpg\n1,Bob,Bob_1.jpg\n");
    const bytes = floats(1, 0, 0, 0, 1, 0);
    expect(plain(await read("a.f32", bytes, { names: join(dir, "names.csv") }))).toEqual([
      { line: 1, externalId: "Ann_1.jpg", vector: [1, 0, 0] },
      { line: 2, externalId: "Bob_1.jpg", vector: [0, 1, 0] },
    ]);
    expect(plain(await read("a.f32", bytes)).map((row) => "externalId" in row && row.externalId)).toEqual([
      "1",
      "2",
    ]);
  });

  test("refuses a size that is no multiple of the row, and names that do not fit", async () => {
    await expect(read("b.f32", floats(1, 0, 0, 0))).rejects.toThrow(/wrong --dim/);
    await writeFile(join(dir, "short.csv"), "face_id\n");
    await expect(read("c.f32", floats(1, 0, 0), { names: join(dir, "short.csv") })).rejects.toThrow(
      /ends before row 1/,
    );
    await writeFile(join(dir, "long.csv"), `face_id\n${faceId}\n${faceId}\n`);
    await expect(read("d.f32", floats(1, 0, 0), { names: join(dir, "long.csv") })).rejects.toThrow(
      /more lines/,
    );
  });
});

test("the source key changes with the content and the dimension, not with the file's place", async () => {
  const bytes = floats(1, 0, 0, 0, 1, 0);
  const key = async (name: string, content: Uint8Array, dim: number) => {
    await writeFile(join(dir, name), content);
    return (await openSource({ path: join(dir, name), dim, signal: new AbortController().signal })).sourceKey;
  };
  const first = await key("k1.f32", bytes, 3);
  expect(await key("k2.f32", bytes, 3)).toBe(first);
  expect(await key("k3.f32", floats(1, 0, 0, 0, 1, 1), 3)).not.toBe(first);
  expect(await key("k4.f32", bytes, 6)).not.toBe(first);
});

test("a missing file, a folder and an unknown ending are told apart", async () => {
  const open = (path: string) => openSource({ path, dim: 3, signal: new AbortController().signal });
  await expect(open(join(dir, "absent.csv"))).rejects.toThrow(/cannot read/);
  await expect(open(dir)).rejects.toThrow(/not a file/);
  await writeFile(join(dir, "x.bin"), "x");
  await expect(open(join(dir, "x.bin"))).rejects.toThrow(/--format/);
});
