import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { IndexMeta } from "@lim/contracts";
import { beforeEach, describe, expect, it } from "vitest";
import { Layout } from "../src/layout.ts";
import { Lister } from "../src/listing.ts";
import { formatMeta } from "../src/meta.ts";
import { historyId, idOf, openCounted, tempFolder } from "./fixtures.ts";

let root: string;
let layout: Layout;
beforeEach(async () => {
  const { storage } = await openCounted(tempFolder());
  ({ root } = storage);
  layout = new Layout(root);
});

const label = idOf(1);
const otherLabel = idOf(2);
const hash = "0".repeat(64);

/** An index as far as a listing looks: the files have the sizes that meta says. */
function place(change: { label?: string; indexId: string; revision?: number; count?: number }): string {
  const { indexId, revision = 1, count = 4 } = change;
  const of = change.label ?? label;
  const folder = layout.index(of, indexId);
  const meta: Omit<IndexMeta, "meta_sha256"> = {
    format_version: 1,
    index_id: indexId,
    index_type: "list",
    label: of,
    history_id: historyId,
    descriptor_version: 1,
    dim: 16,
    metric: "ip",
    engine: { name: "hnsw", version: "1" },
    params: { m: 8, ef_construction: 60 },
    count,
    slots: 4,
    revision,
    removed_since_rebuild: 0,
    create_time: "2026-11-01T00:00:00.000Z",
    build: {
      mode: "rebuild",
      skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
      phases: { build: 1 },
    },
    recall: { k: 10, sampled: 1 },
    files: { "index.dat": { size: 8, sha256: hash }, "ids.dat": { size: 64, sha256: hash } },
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "index.dat"), Buffer.alloc(8));
  writeFileSync(join(folder, "ids.dat"), Buffer.alloc(64));
  writeFileSync(join(folder, "meta.json"), formatMeta(meta));
  return folder;
}

const ids = (listing: { indexes: { indexId: string }[] }) => listing.indexes.map((index) => index.indexId);

describe("listing again", () => {
  it("gives the same answer, and the same object while the file is the same", async () => {
    for (let i = 0; i < 40; i++)
      place({ label: idOf(100 + (i % 13)), indexId: idOf(i + 1_000), revision: i });
    const lister = new Lister(layout);
    const first = await lister.list({});
    expect(first.indexes).toHaveLength(40);
    expect(lister.entries).toBe(40);
    const second = await lister.list({});
    expect(second).toEqual(first);
    expect(second.indexes[7]).toBe(first.indexes[7]);
    const labels = second.indexes.map((index) => index.label);
    expect(labels).toEqual(labels.toSorted());
  });

  it("nobody can change what the next caller gets", async () => {
    place({ indexId: idOf(10) });
    const { indexes } = await new Lister(layout).list({});
    expect(() => Object.assign(indexes[0]?.meta.params ?? {}, { m: 99 })).toThrow(TypeError);
  });

  it("I2: a replaced folder is read anew, though its meta has the same length and times", async () => {
    const folder = place({ indexId: idOf(10), revision: 1 });
    const lister = new Lister(layout);
    expect((await lister.list({})).indexes[0]?.meta.revision).toBe(1);
    const metaFile = join(folder, "meta.json");
    const { atime, mtime, size } = statSync(metaFile);
    renameSync(folder, join(root, ".trash", "old"));
    place({ indexId: idOf(10), revision: 2 });
    utimesSync(metaFile, atime, mtime);
    expect(statSync(metaFile).size).toBe(size);
    expect((await lister.list({})).indexes[0]?.meta.revision).toBe(2);
  });

  it("I2: a meta changed in place is read anew: refused where it no longer fits its hash", async () => {
    const folder = place({ indexId: idOf(10), revision: 1 });
    const lister = new Lister(layout);
    await lister.list({});
    const metaFile = join(folder, "meta.json");
    writeFileSync(metaFile, readFileSync(metaFile, "utf8").replace('"revision": 1', '"revision": 7'));
    expect(await lister.list({})).toMatchObject({
      indexes: [],
      refused: [{ label, indexId: idOf(10), reason: expect.stringContaining("hash differs") }],
    });
    expect(lister.entries).toBe(0);
    place({ indexId: idOf(10), revision: 7 });
    expect((await lister.list({})).indexes[0]?.meta.revision).toBe(7);
  });

  it("a touched file is read again and stays listed", async () => {
    const folder = place({ indexId: idOf(10) });
    const lister = new Lister(layout);
    const before = (await lister.list({})).indexes[0];
    utimesSync(join(folder, "meta.json"), 1, 1);
    const after = (await lister.list({})).indexes[0];
    expect(after).toEqual(before);
    expect(after).not.toBe(before);
  });

  it("removed indexes and labels are neither listed nor remembered", async () => {
    const [one, two, three] = [idOf(10), idOf(11), idOf(12)];
    const folder = place({ indexId: one });
    place({ indexId: two });
    place({ label: otherLabel, indexId: three });
    const lister = new Lister(layout);
    expect(ids(await lister.list({}))).toEqual([two, one, three]);
    rmSync(folder, { recursive: true });
    rmSync(join(root, otherLabel), { recursive: true });
    expect(ids(await lister.list({ label }))).toEqual([two]);
    expect(lister.entries).toBe(2);
    expect(ids(await lister.list({}))).toEqual([two]);
    expect(lister.entries).toBe(1);
    writeFileSync(layout.mark(two), "");
    expect(ids(await lister.list({}))).toEqual([]);
    expect(lister.entries).toBe(0);
  });

  it("I2: sizes of data files are looked at again once they are no longer trusted", async () => {
    const folder = place({ indexId: idOf(10) });
    const trusting = new Lister(layout, { sizesTrustedMs: 3_600_000 });
    const doubting = new Lister(layout, { sizesTrustedMs: 0 });
    for (const lister of [trusting, doubting]) await lister.list({});
    truncateSync(join(folder, "index.dat"), 3);
    expect((await doubting.list({})).refused).toMatchObject([
      { reason: expect.stringContaining("truncated") },
    ]);
    expect(ids(await trusting.list({}))).toEqual([idOf(10)]);
    appendFileSync(join(folder, "index.dat"), Buffer.alloc(5));
    expect(ids(await doubting.list({}))).toEqual([idOf(10)]);
    rmSync(join(folder, "ids.dat"));
    expect((await doubting.list({})).refused).toMatchObject([{ reason: expect.stringContaining("missing") }]);
  });

  it("I2: opening trusts no listing", async () => {
    const folder = place({ indexId: idOf(10) });
    const { storage } = await openCounted(root);
    await storage.list();
    truncateSync(join(folder, "index.dat"), 3);
    expect((await storage.list()).indexes).toHaveLength(1);
    const opening = storage.open({ label, indexId: idOf(10) });
    await expect(opening).rejects.toMatchObject({
      errorName: "index_refused",
      detail: expect.stringContaining("truncated"),
    });
  });

  it("I10: remembers a bounded number of metas and still lists all of them", async () => {
    for (let i = 0; i < 9; i++) place({ label: idOf(100 + (i % 4)), indexId: idOf(i + 1_000) });
    const lister = new Lister(layout, { maxEntries: 5 });
    for (let i = 0; i < 3; i++) {
      expect((await lister.list({})).indexes).toHaveLength(9);
      expect(lister.entries).toBe(5);
    }
  });

  it("listings at the same time agree, while labels come and go", async () => {
    for (let i = 0; i < 30; i++) place({ label: idOf(100 + i), indexId: idOf(i + 1_000) });
    const lister = new Lister(layout);
    const listings = await Promise.all(Array.from({ length: 4 }, () => lister.list({})));
    for (const listing of listings) expect(ids(listing)).toHaveLength(30);
    expect(lister.entries).toBe(30);
    const copying = lister.list({});
    cpSync(layout.index(idOf(100), idOf(1_000)), join(root, idOf(999), idOf(1_000)), { recursive: true });
    rmSync(join(root, idOf(101)), { recursive: true });
    await copying;
    const last = await lister.list({});
    expect(ids(last)).toHaveLength(29);
    expect(last.refused).toMatchObject([{ label: idOf(999), reason: expect.stringContaining("foreign") }]);
    expect(lister.entries).toBe(29);
  });

  it("an abort ends a listing; a root that is away is an error, not an empty listing", async () => {
    place({ indexId: idOf(10) });
    const lister = new Lister(layout);
    await lister.list({});
    await expect(lister.list({ signal: AbortSignal.abort() })).rejects.toMatchObject({
      errorName: "aborted",
    });
    rmSync(root, { recursive: true });
    await expect(lister.list({})).rejects.toMatchObject({ errorName: "storage_unavailable" });
  });
});
