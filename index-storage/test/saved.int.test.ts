import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { EngineName } from "@lim/contracts";
import { availableEngines } from "@lim/vector-index";
import { describe, expect, it } from "vitest";
import { type IndexStorage, type SavedIndex, savedIndexSchema } from "../src/index.ts";
import { build, contentOf, idOf, openCounted, publish, tempFolder, vectors } from "./fixtures.ts";

const engineNames = await availableEngines();
const label = idOf(1000);
const indexId = idOf(2000);
const scriptOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** Built and saved by a process that has ended. */
function saveElsewhere(root: string, engine: EngineName = "hnsw", id = indexId): SavedIndex {
  const args = [scriptOf("./saver.ts"), root, label, id, "1", engine];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  return savedIndexSchema.parse(JSON.parse(stdout));
}

const attemptOf = (storage: IndexStorage, saved: SavedIndex) =>
  join(storage.root, ".staging", `${saved.index_id}.${saved.attempt}`);

function flipByte(path: string, at: number): void {
  const file = openSync(path, "r+");
  const byte = new Uint8Array(1);
  readSync(file, byte, 0, 1, at);
  writeSync(file, Uint8Array.of((byte[0] ?? 0) ^ 1), 0, 1, at);
  closeSync(file);
}

async function expectNothing(storage: IndexStorage): Promise<void> {
  expect(await storage.list()).toEqual({ indexes: [], refused: [] });
  expect(existsSync(join(storage.root, label, indexId))).toBe(false);
}

describe("an index that one process saved and another publishes", () => {
  it.each(engineNames)("is the one that was built (%s)", async (engine) => {
    const { storage } = await openCounted(tempFolder());
    const saved = saveElsewhere(storage.root, engine);
    await expectNothing(storage);
    const staging = await storage.resume({ saved });
    const told: string[] = [];
    const published = await staging.publishSaved(saved, {
      onPhase: (phase, done, total) => told.push(`${phase} ${done}/${total}`),
    });
    expect(told.slice(0, 2)).toEqual(["verify 2/3", "verify 3/3"]);
    expect(told.slice(-2)).toEqual(["publish 0/1", "publish 1/1"]);
    expect(published.meta).toMatchObject({ count: 300, slots: 300, revision: 9, recall: { sampled: 1 } });
    expect(Object.keys(published.meta.build.phases)).toEqual(["build", "verify", "store"]);
    const files = readdirSync(join(storage.root, label, indexId)).toSorted();
    expect(files).toEqual(["meta.json", ...Object.keys(published.meta.files)].toSorted());
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
    expect(await storage.verify({ label, indexId })).toEqual(published.meta);
    const opened = await storage.open({ label, indexId });
    const built = await build(300, 1, engine);
    const queries = vectors(20, 5);
    expect(await opened.keyed.search(queries, { limit: 5, ef: 64 })).toEqual(
      await built.search(queries, { limit: 5, ef: 64 }),
    );
    await Promise.all([opened.keyed.close(), built.close()]);
    expect(await staging.publishSaved(saved)).toBe(published);
  });

  it.each(engineNames)(
    "I2: with any byte of any file changed in between it is verification_failed, before an engine is asked (%s)",
    async (engine) => {
      const { storage, loads } = await openCounted(tempFolder());
      const saved = saveElsewhere(storage.root, engine);
      const attempt = attemptOf(storage, saved);
      const files = [
        ...Object.keys(saved.files).map((name) => join(attempt, saved.work, name)),
        join(attempt, `${saved.work}.known`),
      ];
      for (const path of files) {
        const { length } = readFileSync(path);
        for (const at of [0, length >> 1, length - 1]) {
          flipByte(path, at);
          const staging = await storage.resume({ saved });
          await expect(staging.publishSaved(saved)).rejects.toMatchObject({
            errorName: "verification_failed",
            detail: expect.stringMatching(/its hash differs/),
          });
          flipByte(path, at);
        }
      }
      expect(loads()).toBe(0);
      await expectNothing(storage);
      // Nothing but the bytes was wrong.
      await (await storage.resume({ saved })).publishSaved(saved);
      expect(loads()).toBe(1);
      expect((await storage.list()).indexes).toHaveLength(1);
    },
  );

  it("I2: a file that is written to after it was hashed is noticed, though its hash was right", async () => {
    const { storage } = await openCounted(tempFolder());
    const saved = saveElsewhere(storage.root);
    const path = join(attemptOf(storage, saved), saved.work, "index.dat");
    for (const at of ["verify 2", "store 0", "publish 0"]) {
      const staging = await storage.resume({ saved });
      const publishing = staging.publishSaved(saved, {
        onPhase: (phase, done) => {
          if (`${phase} ${done}` === at) flipByte(path, 5000);
        },
      });
      await expect(publishing).rejects.toMatchObject({
        errorName: "verification_failed",
        detail: expect.stringMatching(/written to/),
      });
      flipByte(path, 5000);
      await expectNothing(storage);
    }
  });

  it("I2: known vectors that are not the index's are verification_failed", async () => {
    const { storage } = await openCounted(tempFolder());
    const saved = saveElsewhere(storage.root);
    const other = await storage.stage({ label, indexId: idOf(2001), attempt: 1 });
    const keyed = await build(300, 7);
    const foreign = await other.save(keyed, contentOf(label), { phases: {} });
    await keyed.close();
    cpSync(
      join(attemptOf(storage, foreign), `${foreign.work}.known`),
      join(attemptOf(storage, saved), `${saved.work}.known`),
    );
    const mixed = { ...saved, known: foreign.known };
    await expect((await storage.resume({ saved })).publishSaved(mixed)).rejects.toMatchObject({
      errorName: "verification_failed",
      detail: expect.stringMatching(/other vectors/),
    });
    await expectNothing(storage);
  });

  it("I4: a staging that was replaced or collected in between is fenced, and the newer one is left alone", async () => {
    const { storage } = await openCounted(tempFolder());
    const saved = saveElsewhere(storage.root);
    const early = await storage.resume({ saved });
    const second = await storage.stage({ label, indexId, attempt: 1 });
    await expect(storage.resume({ saved })).rejects.toMatchObject({ errorName: "fenced" });
    await expect(early.publishSaved(saved)).rejects.toMatchObject({ errorName: "fenced" });
    await early.discard();
    await second.touch();
    await second.discard();
    await expectNothing(storage);

    const silent = saveElsewhere(storage.root);
    const late = await storage.resume({ saved: silent });
    await storage.collect({ nowMs: Date.now() + 16 * 60_000 });
    await expect(storage.resume({ saved: silent })).rejects.toMatchObject({ errorName: "fenced" });
    await expect(late.publishSaved(silent)).rejects.toMatchObject({ errorName: "fenced" });
    await expectNothing(storage);
  });

  it("I4: a staging that is replaced at any phase of the second half is fenced", async () => {
    const { storage } = await openCounted(tempFolder());
    for (const at of ["verify 2", "verify 3", "store 0", "store 3"]) {
      const saved = saveElsewhere(storage.root);
      const staging = await storage.resume({ saved });
      const publishing = staging.publishSaved(saved, {
        onPhase: (phase, done) => {
          if (`${phase} ${done}` !== at) return;
          renameSync(attemptOf(storage, saved), join(storage.root, ".trash", `${at}.replaced`));
        },
      });
      await expect(publishing, at).rejects.toMatchObject({ errorName: "fenced" });
      await expectNothing(storage);
    }
  });

  it("I4: a removal mark set in between cancels it; the id stays away", async () => {
    const { storage } = await openCounted(tempFolder());
    const saved = saveElsewhere(storage.root);
    const early = await storage.resume({ saved });
    await storage.markRemoved({ indexId });
    const cancelled = { errorName: "build_cancelled" };
    await expect(storage.resume({ saved })).rejects.toMatchObject(cancelled);
    await expect(early.publishSaved(saved)).rejects.toMatchObject(cancelled);
    await early.discard();
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
    await expectNothing(storage);
  });

  it("I4: what another attempt saved is bad_input, and so is anything that is no saved index", async () => {
    const { storage } = await openCounted(tempFolder());
    const saved = saveElsewhere(storage.root);
    const own = await storage.stage({ label, indexId, attempt: 2 });
    await expect(own.publishSaved(saved)).rejects.toMatchObject({ errorName: "bad_input" });
    for (const work of ["..", "", `${saved.work}/..`])
      await expect(storage.resume({ saved: { ...saved, work } })).rejects.toMatchObject({
        errorName: "bad_input",
      });
    await own.discard();
  });

  it("counts as success where an earlier attempt's verified index is there, and leaves no staging", async () => {
    const { storage } = await openCounted(tempFolder());
    const keyed = await build(300);
    const first = await publish(storage, keyed, { label, indexId, attempt: 2 });
    await keyed.close();
    const saved = saveElsewhere(storage.root);
    expect(await (await storage.resume({ saved })).publishSaved(saved)).toEqual(first);
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
  });

  it("I2: killed at any moment, its publisher leaves nothing or a whole index; another one can take over", async () => {
    const { storage } = await openCounted(tempFolder());
    const moments = ["resumed", "verify 2", "verify 3", "store 0", "store 3", "publish 0", "publish 1"];
    for (const [round, moment] of moments.entries()) {
      const id = idOf(5000 + round);
      const saved = saveElsewhere(storage.root, "hnsw", id);
      const child = spawn(process.execPath, [scriptOf("./saved-publisher.ts"), storage.root], {
        stdio: ["pipe", "pipe", "inherit"],
      });
      const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
      let output = "";
      child.stdout.on("data", (chunk) => {
        output += chunk;
        if (output.includes(moment)) child.kill("SIGKILL");
      });
      child.stdin.end(JSON.stringify(saved));
      await gone;
      expect(output).toContain(moment);
      const listing = await storage.list();
      expect(listing.refused).toEqual([]);
      if (listing.indexes.some((index) => index.indexId === id)) {
        await storage.verify({ label, indexId: id });
        expect((await storage.list()).indexes.filter((index) => index.indexId === id)).toHaveLength(1);
      } else await (await storage.resume({ saved })).publishSaved(saved);
      const { keyed } = await storage.open({ label, indexId: id });
      expect(keyed.count).toBe(300);
      await keyed.close();
    }
    await storage.collect({ nowMs: Date.now() + 16 * 60_000 });
    expect(readdirSync(join(storage.root, ".staging"))).toEqual([]);
    rmSync(storage.root, { recursive: true });
  }, 120_000);
});
