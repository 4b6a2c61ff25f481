import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { availableEngines, type KeyedIndex } from "@lim/vector-index";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { OpenedIndex } from "../src/index.ts";
import { build, contentOf, dim, idOf, openCounted, publish, tempFolder, vectors } from "./fixtures.ts";

const engineNames = await availableEngines();

const label = idOf(1000);
const otherLabel = idOf(1001);
const indexId = idOf(2000);
let keyed: KeyedIndex;
beforeAll(async () => {
  keyed = await build(300);
  await keyed.apply({ upserts: [], removals: [idOf(7), idOf(299)] });
});
afterAll(() => keyed.close());

describe("publishing and opening", () => {
  it.each(engineNames)(
    "publishes what was built with %s and opens it again with the same answers",
    async (engine) => {
      const { storage, scratch } = await openCounted(tempFolder());
      const keyed = await build(300, 1, engine);
      await keyed.apply({ upserts: [], removals: [idOf(7), idOf(299)] });
      const content = contentOf(label, 9, engine);
      const phases: string[] = [];
      const staging = await storage.stage({ label, indexId, attempt: 1 });
      const published = await staging.publish(keyed, content, {
        phases: { build: 5 },
        onPhase: (phase, done, total) => phases.push(`${phase} ${done}/${total}`),
      });
      expect(published.meta).toMatchObject({
        count: 298,
        slots: 300,
        revision: 9,
        dim,
        label,
        index_id: indexId,
        engine: { name: engine },
      });
      const names = readdirSync(join(storage.root, label, indexId)).toSorted();
      expect(names).toEqual(["meta.json", ...Object.keys(published.meta.files)].toSorted());
      expect(names.includes("vectors.dat")).toBe(engine === "hnsw");
      const sizes = Object.values(published.meta.files).map((file) => file?.size ?? 0);
      expect(published.sizeBytes).toBe(sizes.reduce((sum, size) => sum + size));
      expect(published.meta.recall).toEqual({ k: 10, sampled: 1 });
      expect(Object.keys(published.meta.build.phases)).toEqual(["build", "verify", "store"]);
      expect(phases[0]).toBe("verify 0/3");
      expect(phases.at(-1)).toBe("publish 1/1");
      expect(await storage.verify({ label, indexId })).toEqual(published.meta);
      expect(await storage.find({ indexId })).toEqual(published);
      const opened = await storage.open({ label, indexId });
      const queries = vectors(20, 5);
      expect(await opened.keyed.search(queries, { limit: 5, ef: 64 })).toEqual(
        await keyed.search(queries, { limit: 5, ef: 64 }),
      );
      expect(opened.keyed.has(idOf(7))).toBe(false);
      await opened.keyed.close();
      expect(readdirSync(scratch)).toEqual([]);
      expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
      expect(await staging.publish(keyed, content, { phases: {} })).toBe(published);
      await staging.discard();
      expect((await storage.list()).indexes).toEqual([published]);
      await keyed.close();
    },
  );

  it("a verified index of the same id counts as success, a foreign or broken one is a conflict", async () => {
    const { storage } = await openCounted(tempFolder());
    const first = await publish(storage, keyed, { label, indexId });
    expect(await publish(storage, keyed, { label, indexId, attempt: 2 })).toEqual(first);
    const conflict = { errorName: "index_id_conflict" };
    await expect(publish(storage, keyed, { label: otherLabel, indexId })).rejects.toMatchObject(conflict);
    const foreign = await storage.stage({ label, indexId, attempt: 3 });
    await expect(
      foreign.publish(keyed, { ...contentOf(label), historyId: idOf(5) }, { phases: {} }),
    ).rejects.toMatchObject(conflict);
    appendFileSync(join(storage.root, label, indexId, "index.dat"), "x");
    await expect(publish(storage, keyed, { label, indexId, attempt: 4 })).rejects.toMatchObject(conflict);
    const taken = join(storage.root, label, idOf(1));
    for (const take of [() => writeFileSync(taken, "a file"), () => symlinkSync("nowhere", taken)]) {
      take();
      await expect(publish(storage, keyed, { label, indexId: idOf(1) })).rejects.toMatchObject(conflict);
      rmSync(taken);
    }
  });

  it("refuses an empty index and content that is not the index's", async () => {
    const { storage } = await openCounted(tempFolder());
    const empty = await build(0);
    await expect(publish(storage, empty, { label, indexId })).rejects.toMatchObject({
      errorName: "empty_list",
    });
    await empty.close();
    const staging = await storage.stage({ label, indexId, attempt: 2 });
    await expect(staging.publish(keyed, contentOf(otherLabel), { phases: {} })).rejects.toMatchObject({
      errorName: "bad_input",
    });
    for (const bad of ["..", "../../x", "", "A", `${indexId}/..`])
      await expect(storage.stage({ label, indexId: bad, attempt: 1 })).rejects.toMatchObject({
        errorName: "bad_input",
      });
  });

  it("I4: a removal mark set at any phase cancels the publication, and the id stays away", async () => {
    for (const at of ["verify", "store", "publish"]) {
      const { storage } = await openCounted(tempFolder());
      const staging = await storage.stage({ label, indexId, attempt: 1 });
      const publishing = staging.publish(keyed, contentOf(label), {
        phases: {},
        onPhase: (phase, done) => {
          if (phase !== at || done !== 0) return;
          writeFileSync(join(storage.root, ".removed", indexId), "");
        },
      });
      await expect(publishing).rejects.toMatchObject({ errorName: "build_cancelled" });
      expect((await storage.list()).indexes).toEqual([]);
      expect(existsSync(join(storage.root, label, indexId))).toBe(false);
      await staging.discard();
      expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
      await expect(storage.stage({ label, indexId, attempt: 2 })).rejects.toMatchObject({
        errorName: "build_cancelled",
      });
    }
  });

  it("I4: a removal mark set between the last look and the rename takes the index away again", async () => {
    const { storage } = await openCounted(tempFolder());
    const staging = await storage.stage({ label, indexId, attempt: 1 });
    const { signal } = new AbortController();
    // It is asked right before the rename, once meta.json is written.
    let marked = false;
    Object.defineProperty(signal, "aborted", {
      get() {
        const [work = ""] = readdirSync(staging.path);
        if (!marked && existsSync(join(staging.path, work, "meta.json"))) {
          writeFileSync(join(storage.root, ".removed", indexId), "");
          marked = true;
        }
        return false;
      },
    });
    const publishing = staging.publish(keyed, contentOf(label), { phases: {}, signal });
    await expect(publishing).rejects.toMatchObject({ errorName: "build_cancelled" });
    expect(marked).toBe(true);
    expect(existsSync(join(storage.root, label, indexId))).toBe(false);
    expect(readdirSync(join(storage.root, ".trash"))).toHaveLength(1);
  });

  it("a second process with the same attempt fences the first one", async () => {
    const root = tempFolder();
    const { storage } = await openCounted(root);
    const first = await storage.stage({ label, indexId, attempt: 1 });
    const second = await storage.stage({ label, indexId, attempt: 1 });
    await expect(first.publish(keyed, contentOf(label), { phases: {} })).rejects.toMatchObject({
      errorName: "fenced",
    });
    await expect(first.touch()).rejects.toMatchObject({ errorName: "fenced" });
    await first.discard();
    await second.touch();
    await second.publish(keyed, contentOf(label), { phases: {} });
    expect((await storage.list()).indexes).toHaveLength(1);
  });

  it("I2: two publications of one id at the same time give exactly one index", async () => {
    const { storage } = await openCounted(tempFolder());
    const results = await Promise.all(
      [1, 2, 3].map((attempt) => publish(storage, keyed, { label, indexId, attempt })),
    );
    expect(new Set(results.map((published) => published.meta.create_time)).size).toBe(1);
    expect((await storage.list()).indexes).toHaveLength(1);
    await storage.verify({ label, indexId });
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
  });

  it("an abort publishes nothing", async () => {
    const { storage } = await openCounted(tempFolder());
    for (const at of ["verify", "store", "publish"]) {
      const abort = new AbortController();
      const staging = await storage.stage({ label, indexId, attempt: 1 });
      await expect(
        staging.publish(keyed, contentOf(label), {
          phases: {},
          signal: abort.signal,
          onPhase: (phase) => {
            if (phase === at) abort.abort();
          },
        }),
      ).rejects.toMatchObject({ errorName: "aborted" });
      await staging.discard();
    }
    expect((await storage.list()).indexes).toEqual([]);
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
  });

  it("a full disk is disk_full and leaves nothing visible", async (test) => {
    const root = tempFolder();
    const mounted = join(root, "small");
    mkdirSync(mounted);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=24k", "tmpfs", mounted]).status !== 0)
      return test.skip("mounting a tmpfs is not allowed here");
    try {
      const { storage } = await openCounted(mounted, { scratchDir: root });
      await expect(publish(storage, keyed, { label, indexId })).rejects.toMatchObject({
        errorName: "disk_full",
      });
      expect((await storage.list()).indexes).toEqual([]);
    } finally {
      spawnSync("umount", [mounted]);
    }
  });
});

describe("the scratch folder of an opening", () => {
  it("I2: a private copy that vanishes does not make the index a refused one", async () => {
    const { storage, scratch } = await openCounted(tempFolder());
    await publish(storage, keyed, { label, indexId });
    const watch = setInterval(() => {
      for (const name of readdirSync(scratch)) rmSync(join(scratch, name), { recursive: true, force: true });
    }, 0);
    try {
      for (let turn = 0; turn < 20; turn++) {
        const opened = await storage.open({ label, indexId }).catch((error: unknown) => error);
        if (opened instanceof Error) expect(opened).not.toMatchObject({ errorName: "index_refused" });
        else await (opened as OpenedIndex).keyed.close();
      }
    } finally {
      clearInterval(watch);
    }
  });

  it("I10: a full scratch folder is disk_full that names the folder and the need, and is left empty", async (test) => {
    const root = tempFolder();
    const scratchDir = join(root, "small");
    mkdirSync(scratchDir);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=16k", "tmpfs", scratchDir]).status !== 0)
      return test.skip("mounting a tmpfs is not allowed here");
    try {
      const { storage } = await openCounted(root, { scratchDir });
      const { meta } = await publish(storage, keyed, { label, indexId });
      await expect(storage.open({ label, indexId })).rejects.toMatchObject({
        errorName: "disk_full",
        detail: expect.stringContaining(
          `copying ${meta.files["index.dat"].size} bytes into the scratch folder ${scratchDir}`,
        ),
      });
      expect(readdirSync(scratchDir)).toEqual([]);
    } finally {
      spawnSync("umount", [scratchDir]);
    }
  });
});
