import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { HnswIndex, type HnswOptions } from "../src/index.ts";
import { clustered, codeOf, dim, normalised, range, rowsOf, setUp } from "./support.ts";

const { create, folder, newPool, pool } = setUp();
const count = 1500;
const vectors = clustered(count, dim, 5);
for (let i = 0; i < count; i++) vectors.set(normalised(vectors.subarray(i * dim, (i + 1) * dim)), i * dim);
const queries = rowsOf(vectors, dim, 40, 90);
const asked = { k: 10, ef: 100, exact: false };
const paddedRow = 64 * 4;

let made = 0;
async function spooled(options: Partial<HnswOptions> = {}): Promise<{ index: HnswIndex; rows: string }> {
  const rows = join(folder, `spooled-${made++}`);
  return { index: await create({ metric: "ip", m: 8, rows: { spool: rows }, ...options }), rows };
}

/** In three pieces, the last of which is read only once the first were inserted. */
async function fill(index: HnswIndex, threads: number): Promise<void> {
  await Promise.all([
    index.spool(rowsOf(vectors, dim, 0, 700)),
    index.spool(rowsOf(vectors, dim, 700, 1100)),
  ]);
  await index.insertSpooled(range(0, 900), { threads });
  await Promise.all([
    index.spool(rowsOf(vectors, dim, 1100, count)),
    index.insertSpooled(range(900, 1000), { threads }),
  ]);
  await index.insertSpooled(range(1000, count), { threads });
}

/** Which of the files this process has open; none where the system does not tell. */
function openDescriptors(...files: string[]): string[] {
  const at = "/proc/self/fd";
  const names = existsSync(at) ? readdirSync(at) : [];
  const targets = names.flatMap((name) => {
    try {
      return [readlinkSync(join(at, name))];
    } catch {
      return [];
    }
  });
  return targets.filter((target) => files.some((file) => target.startsWith(file)));
}

describe("rows that are spooled", () => {
  test("give the very files that added ones give", async () => {
    const { index, rows } = await spooled();
    await fill(index, 1);
    const path = join(folder, "of-spooled");
    await index.save(path, { rowsPath: rows });
    const other = await create({ metric: "ip", m: 8 });
    await other.upsert(range(0, count), vectors, { threads: 1 });
    const [otherPath, otherRows] = [join(folder, "of-added"), join(folder, "of-added.rows")];
    await other.save(otherPath, { rowsPath: otherRows });
    expect(readFileSync(path).equals(readFileSync(otherPath))).toBe(true);
    expect(readFileSync(rows).equals(readFileSync(otherRows))).toBe(true);
    expect(await index.search(queries, asked)).toEqual(await other.search(queries, asked));
    expect(index.get(range(0, count))).toEqual(vectors);
    // What was saved stays and takes nothing more, and a copy of it can be had.
    expect(await codeOf(() => index.spool(queries))).toBe("bad_input");
    expect(await codeOf(() => index.insertSpooled(range(count, count + 1)))).toBe("bad_input");
    expect(await codeOf(() => index.save(path, { rowsPath: rows }))).toBe("bad_input");
    await index.save(join(folder, "copy"), { rowsPath: join(folder, "copy.rows") });
    await index.close();
    expect(readFileSync(join(folder, "copy.rows")).equals(readFileSync(rows))).toBe(true);
    await other.close();
  });

  test("are loaded into memory, into a working file, or stay in place", async () => {
    const { index, rows } = await spooled();
    await fill(index, 2);
    const before = await index.search(queries, asked);
    await index.remove(range(100, 110));
    const path = join(folder, "kinds");
    await index.save(path, { rowsPath: rows });
    await index.close();
    const bytes = readFileSync(rows);
    expect(bytes.subarray(256 + 100 * paddedRow, 256 + 110 * paddedRow).every((byte) => byte === 0)).toBe(
      true,
    );
    const own = newPool({ threads: 1 });
    for (const kind of ["float32", { file: join(folder, "work") }, { inPlace: true }] as const) {
      const copy = await HnswIndex.load(path, { pool: own, rowsPath: rows, rows: kind });
      expect(copy.size).toBe(count - 10);
      expect(copy.get(range(110, 200))).toEqual(rowsOf(vectors, dim, 110, 200));
      const after = await copy.search(queries, asked);
      expect(after.keys[0]).toBe(before.keys[0]);
      expect(await copy.check()).toMatchObject({ badLinks: 0, problems: [] });
      if (typeof kind === "object" && "inPlace" in kind) {
        expect(await codeOf(() => copy.upsert(range(0, 1), rowsOf(vectors, dim, 0, 1)))).toBe("bad_input");
        expect(await codeOf(() => copy.save(path, { rowsPath: rows }))).toBe("bad_input");
        await copy.remove(range(0, 3));
      }
      await copy.close();
      expect(readFileSync(rows).equals(bytes)).toBe(true);
    }
  });

  test("in place, damaged ones are refused, and those of another index", async () => {
    const { index, rows } = await spooled();
    await fill(index, 2);
    const path = join(folder, "damaged");
    await index.save(path, { rowsPath: rows });
    await index.close();
    const inPlace = { pool, rowsPath: rows, rows: { inPlace: true as const } };
    expect(await codeOf(() => HnswIndex.load(path, { pool, rows: { inPlace: true } }))).toBe("bad_input");
    const bytes = readFileSync(rows);
    bytes[256 + 700 * paddedRow] = (bytes[256 + 700 * paddedRow] ?? 0) ^ 1;
    writeFileSync(rows, bytes);
    await expect(HnswIndex.load(path, inPlace)).rejects.toThrow(/^corrupt: the section "rows"/);
    const other = await create({ metric: "ip", m: 8 });
    await other.upsert(range(1, count + 1), vectors);
    const whole = join(folder, "whole");
    await other.save(whole, { rowsPath: rows });
    await expect(HnswIndex.load(path, inPlace)).rejects.toThrow(/belongs to another index/);
    await other.save(whole);
    await other.close();
    await expect(HnswIndex.load(whole, inPlace)).rejects.toThrow(/are in the index file/);
  });

  test("come no other way, and all of them before a save", async () => {
    expect(await codeOf(() => spooled({ metric: "cosine" }))).toBe("bad_input");
    const { index, rows } = await spooled();
    const plain = await create();
    expect(await codeOf(() => plain.spool(queries))).toBe("bad_input");
    expect(await codeOf(() => plain.insertSpooled(range(0, 1)))).toBe("bad_input");
    await plain.close();
    expect(await codeOf(() => index.upsert(range(0, 1), rowsOf(vectors, dim, 0, 1)))).toBe("bad_input");
    const upsert = { keys: range(0, 1), vectors: rowsOf(vectors, dim, 0, 1) };
    expect(await codeOf(() => index.change({ upsert }))).toBe("bad_input");
    expect(await codeOf(() => index.spool(vectors.subarray(1)))).toBe("bad_input");
    await index.spool(rowsOf(vectors, dim, 0, 50));
    for (const keys of [range(0, 51), Uint32Array.of(4, 4), Uint32Array.of(0xffff_ffff)])
      expect(await codeOf(() => index.insertSpooled(keys))).toBe("bad_input");
    await index.insertSpooled(range(0, 20));
    expect(await codeOf(() => index.insertSpooled(range(19, 21)))).toBe("bad_input");
    expect(await codeOf(() => index.save(join(folder, "early"), { rowsPath: rows }))).toBe("bad_input");
    expect(index.size).toBe(20);
    // The row of a slot that is given back belongs to nobody.
    await index.remove(range(0, 1));
    expect(await codeOf(() => index.insertSpooled(range(20, 21)))).toBe("bad_input");
    await index.close();
    expect(existsSync(rows)).toBe(false);
  });

  test("that are not finite are found when their turn comes, and nothing of theirs stays", async () => {
    const { index, rows } = await spooled();
    const spoiled = rowsOf(vectors, dim, 0, 300);
    spoiled[250 * dim] = Number.NaN;
    await index.spool(spoiled);
    await index.insertSpooled(range(0, 100));
    expect(await codeOf(() => index.insertSpooled(range(100, 300)))).toBe("bad_input");
    expect(index.size).toBe(100);
    expect((await index.search(queries, asked)).counts.every((n) => n === 10)).toBe(true);
    expect(await codeOf(() => index.insertSpooled(range(100, 200)))).toBe("bad_input");
    await index.close();
    expect(existsSync(rows)).toBe(false);
  });

  test("of a write that broke off nothing is in the finished file", async () => {
    const { index, rows } = await spooled();
    await fill(index, 2);
    appendFileSync(rows, Buffer.alloc(3 * paddedRow + 5, 7));
    const path = join(folder, "broken-off");
    await index.save(path, { rowsPath: rows });
    await index.close();
    const copy = await HnswIndex.load(path, { pool, rowsPath: rows, rows: { inPlace: true } });
    expect(copy.get(range(0, count))).toEqual(vectors);
    await copy.close();
  });

  test("that are gone from the file when their turn comes are an error, and nothing of theirs stays", async () => {
    const { index, rows } = await spooled();
    await index.spool(vectors);
    await index.insertSpooled(range(0, 100));
    truncateSync(rows, 256 + 200 * paddedRow + 7);
    await expect(index.insertSpooled(range(100, count))).rejects.toThrow(/too short/);
    expect(index.size).toBe(100);
    expect(await index.check()).toMatchObject({ badLinks: 0, problems: [] });
    await index.close();
    expect(existsSync(rows)).toBe(false);
  });

  test("leave no descriptor open, however it ends", async () => {
    const { index, rows } = await spooled();
    await fill(index, 2);
    await index.save(join(folder, "descriptors"), { rowsPath: rows });
    await index.close();
    const inPlace = { pool, rowsPath: rows, rows: { inPlace: true as const } };
    const loaded = await HnswIndex.load(join(folder, "descriptors"), inPlace);
    await loaded.search(queries, asked);
    await loaded.close();
    writeFileSync(rows, readFileSync(rows).fill(0, 300, 400));
    await expect(HnswIndex.load(join(folder, "descriptors"), inPlace)).rejects.toThrow();
    const { index: aborted, rows: other } = await spooled();
    await aborted.spool(vectors);
    const inserting = codeOf(() => aborted.insertSpooled(range(0, count)));
    await aborted.close();
    expect(await inserting).toBe("closed");
    // Threads are told to close theirs, and do so in their turn.
    await expect.poll(() => openDescriptors(rows, other)).toEqual([]);
  });

  test("an abort is heard while they are written and while they are inserted", async () => {
    const { index } = await spooled();
    expect(await codeOf(() => index.spool(vectors, { signal: AbortSignal.abort() }))).toBe("aborted");
    await index.spool(vectors);
    const stop = new AbortController();
    const inserting = codeOf(() => index.insertSpooled(range(0, count), { threads: 1, signal: stop.signal }));
    setImmediate(() => stop.abort());
    expect(await inserting).toBe("aborted");
    expect(index.size).toBe(0);
    const writing = codeOf(() => index.spool(vectors));
    await index.close();
    expect(["none", "closed", "failed", "bad_input"]).toContain(await writing);
  });

  // The device that is always full: writes to it fail as those to a full disk do.
  test.runIf(existsSync("/dev/full"))("a full disk is told as such", async () => {
    const rows = join(folder, "full");
    symlinkSync("/dev/full", rows);
    const { index } = await spooled({ rows: { spool: rows } });
    expect(await codeOf(() => index.spool(vectors))).toBe("disk_full");
    await index.close();
    expect(statSync("/dev/full").isCharacterDevice()).toBe(true);
  });
});
