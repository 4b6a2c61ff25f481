import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { createKeyedIndex } from "../src/keyed-index.ts";
import type { EngineAdapter, VectorIndex } from "../src/port.ts";
import { faceId, faceIds, range, row, unitVectors } from "./fixtures.ts";

const dim = 24;
const n = 700;
const params = { m: 8, efConstruction: 80 };
const vectors = unitVectors(n, dim, 71);
const part = (from: number, to: number) => vectors.subarray(from * dim, to * dim);

/** What an engine must hold to that builds out of its file of vectors; one that does not has none of it. */
export function describeSpoolContract(
  name: string,
  loadAdapter: () => Promise<EngineAdapter>,
  traits: { spools: boolean; isMissing: boolean },
): void {
  describe.skipIf(traits.isMissing || traits.spools)(`no spooled vectors: ${name}`, () => {
    it("says so", async () => {
      const adapter = await loadAdapter();
      expect(adapter.createSpooled).toBeUndefined();
      const index = await adapter.create({ dim, capacity: 1, params });
      expect([index.spool, index.addSpooled]).toEqual([undefined, undefined]);
      const keyed = createKeyedIndex(index);
      await expect(keyed.addNew(faceIds(0, 1), "spooled")).rejects.toMatchObject({ errorName: "bad_input" });
      await keyed.addNew(faceIds(0, 1), part(0, 1));
      await keyed.close();
    });
  });

  describe.skipIf(traits.isMissing || !traits.spools)(`spooled vectors: ${name}`, () => {
    let adapter: EngineAdapter;
    const opened: VectorIndex[] = [];
    const folder = mkdtempSync(join(tmpdir(), "lim-spool-"));
    beforeAll(async () => {
      adapter = await loadAdapter();
      return () => rmSync(folder, { recursive: true, force: true });
    });
    afterEach(async () => {
      await Promise.all(opened.splice(0).map((index) => index.close()));
    });
    const filesAt = (at: string) => ({ index: join(folder, at), vectors: join(folder, `${at}.vectors`) });
    const create = async (at: string) => {
      const index = await adapter.createSpooled?.({ dim, capacity: n, params, vectors: filesAt(at).vectors });
      if (!index?.spool || !index.addSpooled) throw new Error("no spooled index");
      opened.push(index);
      return index as VectorIndex & Required<Pick<VectorIndex, "spool" | "addSpooled">>;
    };
    const asks = (index: VectorIndex) => index.search(part(5, 40), { k: 5, ef: 100 });
    const refused = (errorName: string) => expect.objectContaining({ errorName });

    it("are what added ones are: in answers, in reads and in the files", async () => {
      const index = await create("same");
      await Promise.all([index.spool(part(0, 300)), index.spool(part(300, 500))]);
      await Promise.all([index.addSpooled(200, { threads: 1 }), index.spool(part(500, n))]);
      await index.addSpooled(500, { threads: 1 });
      expect([index.slots, index.count, index.dim]).toEqual([n, n, dim]);
      expect(await index.read(range(0, n))).toEqual(vectors);
      const added = await adapter.create({ dim, capacity: n, params });
      opened.push(added);
      await added.add(range(0, n), vectors, { threads: 1 });
      expect(await asks(index)).toEqual(await asks(added));
      expect(await index.save(filesAt("same"))).toEqual({ vectors: true });
      await added.save(filesAt("added"));
      const { index: graph, vectors: file } = filesAt("same");
      expect(readFileSync(graph).equals(readFileSync(filesAt("added").index))).toBe(true);
      expect(readFileSync(file).equals(readFileSync(filesAt("added").vectors))).toBe(true);
      await index.close();
      expect(existsSync(file)).toBe(true);
      expect(index.memoryBytes).toBeLessThan(added.memoryBytes);
    });

    it("can be read where they lie, by an index that takes no others", async () => {
      const index = await create("in-place");
      await index.spool(vectors);
      await index.addSpooled(n);
      await index.remove(Uint32Array.of(9));
      const files = filesAt("in-place");
      await index.save(files);
      const removed = Uint32Array.of(9);
      const loaded = await adapter.load({ files, dim, slots: n, removed, params, inPlace: true });
      opened.push(loaded);
      const bytes = readFileSync(files.vectors);
      expect([loaded.slots, loaded.count]).toEqual([n, n - 1]);
      expect(await loaded.read(range(10, 90))).toEqual(part(10, 100));
      expect(await asks(loaded)).toEqual(await asks(index));
      const add = { positions: Uint32Array.of(9), vectors: part(9, 10) };
      await expect(loaded.add(add.positions, add.vectors)).rejects.toEqual(refused("bad_input"));
      await expect(loaded.change({ add, remove: new Uint32Array() })).rejects.toEqual(refused("bad_input"));
      await loaded.close();
      expect(readFileSync(files.vectors).equals(bytes)).toBe(true);
    });

    it("come no other way, and only those that are there", async () => {
      const index = await create("other-way");
      await index.spool(part(0, 50));
      await expect(index.add(range(0, 1), part(0, 1))).rejects.toEqual(refused("bad_input"));
      const add = { positions: range(0, 1), vectors: part(0, 1) };
      await expect(index.change({ add, remove: new Uint32Array() })).rejects.toEqual(refused("bad_input"));
      for (const count of [51, -1, 1.5])
        await expect(index.addSpooled(count)).rejects.toEqual(refused("bad_input"));
      await expect(index.save(filesAt("other-way"))).rejects.toEqual(refused("bad_input"));
      expect([index.slots, index.count]).toEqual([0, 0]);
      await index.addSpooled(50);
      expect((await index.search(row(vectors, dim, 7), { k: 1, ef: 50 })).positions[0]).toBe(7);
      await index.close();
      expect(existsSync(filesAt("other-way").vectors)).toBe(false);
    });

    it("that are not finite leave nothing of their batch to be found", async () => {
      const index = await create("not-finite");
      const spoiled = vectors.slice(0, 200 * dim);
      spoiled[150 * dim] = Number.NaN;
      await index.spool(spoiled);
      await index.addSpooled(100);
      await expect(index.addSpooled(100)).rejects.toEqual(refused("bad_input"));
      expect(index.count).toBe(100);
      const found = await asks(index);
      expect(found.positions.every((position) => position < 100)).toBe(true);
    });

    it("an abort is heard, before and while they are inserted", async () => {
      const index = await create("abort");
      const gone = { signal: AbortSignal.abort() };
      await expect(index.spool(vectors, gone)).rejects.toEqual(refused("aborted"));
      await index.spool(vectors);
      await expect(index.addSpooled(n, gone)).rejects.toEqual(refused("aborted"));
      expect(index.slots).toBe(0);
      const stop = new AbortController();
      const adding = index.addSpooled(n, { threads: 1, signal: stop.signal });
      setImmediate(() => stop.abort());
      await expect(adding).rejects.toEqual(refused("aborted"));
      expect(index.count).toBe(0);
      await index.close();
      await expect(index.spool(vectors)).rejects.toEqual(refused("aborted"));
    });

    // The device that is always full: writes to it fail as those to a full disk do.
    it.runIf(existsSync("/dev/full"))("a full disk is disk_full", async () => {
      symlinkSync("/dev/full", filesAt("full").vectors);
      const index = await create("full");
      await expect(index.spool(vectors)).rejects.toEqual(refused("disk_full"));
    });

    it("a file that cannot be made or written is the storage's failure, not the engine's", async () => {
      await expect(create(join("none", "there"))).rejects.toEqual(refused("storage_unavailable"));
      // A pipe takes nothing at a position.
      execFileSync("mkfifo", [filesAt("pipe").vectors]);
      const index = await create("pipe");
      await expect(index.spool(vectors)).rejects.toEqual(refused("storage_unavailable"));
    });

    it("have face ids in the order in which they were spooled", async () => {
      const index = await create("keyed");
      const keyed = createKeyedIndex(index);
      await index.spool(vectors);
      await keyed.addNew(faceIds(0, 300), "spooled");
      await expect(keyed.addNew(faceIds(299, 10), "spooled")).rejects.toEqual(refused("bad_input"));
      await keyed.addNew(faceIds(300, n - 300), "spooled");
      const ids = faceIds(0, n);
      expect(keyed.exportIds()).toEqual(ids);
      const [found] = await keyed.search(row(vectors, dim, 411), { limit: 1, ef: 100 });
      expect(found?.[0]?.[0]).toBe(faceId(411));
      expect(keyed.count).toBe(n);
    });
  });
}
