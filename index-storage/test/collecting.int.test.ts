import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { KeyedIndex } from "@lim/vector-index";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newestOf } from "../src/index.ts";
import { build, idOf, openCounted, publish, tempFolder, vectors } from "./fixtures.ts";

const label = idOf(1000);
const otherLabel = idOf(1001);
const indexId = idOf(2000);
let keyed: KeyedIndex;
beforeAll(async () => {
  keyed = await build(300);
  await keyed.apply({ upserts: [], removals: [idOf(7), idOf(299)] });
});
afterAll(() => keyed.close());

describe("listing, removing, collecting", () => {
  it("orders by (revision, create_time, index_id) and picks the newest of a descriptor version", async () => {
    const { storage } = await openCounted(tempFolder());
    await publish(storage, keyed, { label, indexId: idOf(1), revision: 5 });
    await publish(storage, keyed, { label, indexId: idOf(2), revision: 7 });
    await publish(storage, keyed, { label, indexId: idOf(3), revision: 7 });
    await publish(storage, keyed, { label: otherLabel, indexId: idOf(4), revision: 9 });
    const listing = await storage.list();
    expect(listing.indexes.filter((i) => i.label === label).map((i) => i.indexId)).toEqual([
      idOf(3),
      idOf(2),
      idOf(1),
    ]);
    expect(newestOf(listing, label, 1)?.indexId).toBe(idOf(3));
    expect(newestOf(listing, label, 2)).toBeUndefined();
    expect((await storage.list({ label: otherLabel })).indexes.map((i) => i.indexId)).toEqual([idOf(4)]);
  });

  it("I2: bad folders are refused one by one and hide no other", async () => {
    const { storage } = await openCounted(tempFolder());
    const good = await publish(storage, keyed, { label, indexId });
    const at = (id: string) => join(storage.root, label, id);
    mkdirSync(at(idOf(1)));
    cpSync(at(indexId), at(idOf(2)), { recursive: true });
    writeFileSync(at(idOf(3)), "a file");
    mkdirSync(join(storage.root, "no-uuid"));
    writeFileSync(join(storage.root, otherLabel), "a file");
    const listing = await storage.list();
    expect(listing.indexes).toEqual([good]);
    expect(listing.refused.filter((r) => r.label === label).map((r) => r.indexId)).toEqual([
      idOf(1),
      idOf(2),
      idOf(3),
    ]);
    for (const other of [idOf(900), idOf(1100)])
      cpSync(join(storage.root, label), join(storage.root, other), { recursive: true });
    expect(await storage.find({ indexId })).toEqual(good);
    await expect(storage.find({ indexId: idOf(2) })).rejects.toMatchObject({ errorName: "index_refused" });
  });

  it("removes an index for good; one that vanishes is not called corrupt", async () => {
    const { storage } = await openCounted(tempFolder());
    await publish(storage, keyed, { label, indexId });
    const opened = await storage.open({ label, indexId });
    expect(await storage.remove({ indexId })).toEqual({ removed: true });
    expect(await storage.remove({ indexId })).toEqual({ removed: false });
    expect(await storage.isMarkedRemoved({ indexId })).toBe(true);
    expect(await storage.find({ indexId, label })).toBeUndefined();
    for (const call of [storage.open, storage.verify])
      await expect(call({ label, indexId })).rejects.toMatchObject({ errorName: "not_found" });
    expect((await opened.keyed.search(vectors(1), { limit: 1, ef: 64 }))[0]).toHaveLength(1);
    await opened.keyed.close();
    const racing = idOf(2001);
    await publish(storage, keyed, { label, indexId: racing });
    const results = await Promise.allSettled([
      storage.open({ label, indexId: racing }),
      storage.remove({ indexId: racing }),
      storage.open({ label, indexId: racing }),
    ]);
    for (const result of results) {
      if (result.status === "rejected") expect(result.reason).toMatchObject({ errorName: "not_found" });
      else if ("keyed" in result.value) await result.value.keyed.close();
    }
  });

  it("collects silent staging, old trash and old marks, spares what lives, and tells without doing", async () => {
    const { storage } = await openCounted(tempFolder());
    await publish(storage, keyed, { label, indexId });
    await storage.remove({ indexId });
    const silent = await storage.stage({ label, indexId: idOf(1), attempt: 1 });
    const live = await storage.stage({ label, indexId: idOf(2), attempt: 1 });
    const old = new Date(Date.now() - 16 * 60_000);
    utimesSync(silent.path, old, old);
    expect(await storage.collect({ dryRun: true })).toEqual({
      staging: [`${idOf(1)}.1`],
      trash: [],
      marks: [],
    });
    expect(existsSync(silent.path)).toBe(true);
    await storage.collect();
    expect([existsSync(silent.path), existsSync(live.path)]).toEqual([false, true]);
    await expect(silent.touch()).rejects.toMatchObject({ errorName: "fenced" });
    const pastGrace = { nowMs: Date.now() + 11 * 60_000 };
    const foreseen = await storage.collect({ ...pastGrace, dryRun: true });
    expect([foreseen.trash.length, foreseen.staging.length, foreseen.marks.length]).toEqual([1, 0, 0]);
    expect(readdirSync(join(storage.root, ".trash"))).toEqual(foreseen.trash);
    expect(await storage.collect(pastGrace)).toEqual(foreseen);
    expect(readdirSync(join(storage.root, ".trash"))).toEqual([]);
    expect(await storage.isMarkedRemoved({ indexId })).toBe(true);
    expect((await storage.collect({ nowMs: Date.now() + 8 * 24 * 3_600_000 })).marks).toEqual([indexId]);
    expect(await storage.isMarkedRemoved({ indexId })).toBe(false);
  });

  it("spares a staging whose heart beats after it was found silent", async () => {
    const { storage } = await openCounted(tempFolder());
    const staging = await storage.stage({ label, indexId, attempt: 1 });
    const old = new Date(Date.now() - 16 * 60_000);
    utimesSync(staging.path, old, old);
    const { signal } = new AbortController();
    // It is asked for each folder that was found, before that is taken away.
    Object.defineProperty(signal, "aborted", {
      get() {
        utimesSync(staging.path, new Date(), new Date());
        return false;
      },
    });
    expect((await storage.collect({ signal })).staging).toEqual([]);
    await staging.touch();
  });

  it("what cannot be deleted does not keep the rest on the disk", async (test) => {
    const { storage } = await openCounted(tempFolder());
    const trash = join(storage.root, ".trash");
    const old = new Date(Date.now() - 3_600_000);
    const stuck = join(trash, "a");
    for (const name of ["a", "b"]) mkdirSync(join(trash, name));
    const silent = await storage.stage({ label, indexId, attempt: 1 });
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=16k", "tmpfs", stuck]).status !== 0)
      return test.skip("mounting a tmpfs is not allowed here");
    try {
      for (const path of [stuck, join(trash, "b"), silent.path]) utimesSync(path, old, old);
      await expect(storage.collect()).rejects.toMatchObject({
        errorName: "storage_unavailable",
        detail: expect.stringMatching(/1 deletions failed: EBUSY/),
      });
      expect([readdirSync(trash), existsSync(silent.path)]).toEqual([["a"], false]);
    } finally {
      spawnSync("umount", [stuck]);
    }
  });

  it("a storage that is away, or a bare folder in its place, is an error: not empty, and nothing is written there", async () => {
    const parent = tempFolder();
    const root = join(parent, "root");
    mkdirSync(root);
    const { storage } = await openCounted(root, { scratchDir: parent });
    await publish(storage, keyed, { label, indexId });
    renameSync(root, join(parent, "away"));
    for (const bare of [false, true]) {
      if (bare) mkdirSync(root);
      const calls = [
        () => storage.list(),
        () => storage.list({ label }),
        () => storage.find({ indexId }),
        () => storage.find({ indexId, label }),
        () => storage.open({ label, indexId }),
        () => storage.verify({ label, indexId }),
        () => storage.isMarkedRemoved({ indexId }),
        () => storage.remove({ indexId }),
        () => storage.markRemoved({ indexId }),
        () => storage.stage({ label, indexId: idOf(9), attempt: 1 }),
        () => storage.collect(),
      ];
      for (const call of calls)
        await expect(call()).rejects.toMatchObject({ errorName: "storage_unavailable" });
      expect(existsSync(root) ? readdirSync(root) : []).toEqual([]);
    }
    rmSync(root, { recursive: true });
    renameSync(join(parent, "away"), root);
    expect((await storage.list()).indexes).toHaveLength(1);
  });

  it("hides a marked index whose remover died, and collects it", async () => {
    const { storage } = await openCounted(tempFolder());
    await publish(storage, keyed, { label, indexId });
    await storage.markRemoved({ indexId });
    expect((await storage.list()).indexes).toEqual([]);
    await storage.collect();
    expect(existsSync(join(storage.root, label, indexId))).toBe(false);
  });

  it("cleans private copies of dead processes and spares those of living ones", async () => {
    const root = tempFolder();
    const { scratch } = await openCounted(root);
    const host = encodeURIComponent((await import("node:os")).hostname());
    const dead = spawnSync(process.execPath, ["-e", ""]).pid;
    const own = `lim-open.${host}.${process.pid}`;
    const rows = `lim-rows.${host}`;
    const names = [
      `lim-open.${host}.${dead}.abc`,
      `${own}.before`,
      `${rows}.${dead}.abc`,
      `${own}.abc`,
      `${rows}.${process.pid}.abc`,
      "another",
    ];
    for (const name of names) mkdirSync(join(scratch, name));
    // As of the process that had this one's id before its container was started again.
    const before = new Date(Date.now() - process.uptime() * 1_000 - 60_000);
    utimesSync(join(scratch, `${own}.before`), before, before);
    await openCounted(root);
    expect(readdirSync(scratch).toSorted()).toEqual(names.slice(3).toSorted());
    rmSync(scratch, { recursive: true });
  });
});
