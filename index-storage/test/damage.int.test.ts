import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { engineNameSchema } from "@lim/contracts";
import { availableEngines } from "@lim/vector-index";
import { describe, expect, it } from "vitest";
import { build, dim, idOf, openCounted, publish, tempFolder, vectors } from "./fixtures.ts";

/** Made by make-golden.ts; the one of hnswlib is older than the hash of meta. */
const goldens = [
  { engine: "hnswlib", folder: "v1", files: ["meta.json", "index.dat", "ids.dat"] },
  { engine: "hnsw", folder: "v1-hnsw", files: ["meta.json", "index.dat", "ids.dat", "vectors.dat"] },
];
const label = idOf(1000);
const indexId = idOf(3000);

async function rootOf(name: string) {
  const root = tempFolder();
  const golden = fileURLToPath(new URL(`./golden/${name}`, import.meta.url));
  cpSync(golden, root, { recursive: true });
  return { ...(await openCounted(root)), folder: join(root, label, indexId) };
}

const available = await availableEngines();
describe.each(goldens.filter(({ engine }) => available.some((name) => name === engine)))(
  "format version 1 with $engine",
  ({ engine, folder: name, files }) => {
    const goldenRoot = () => rootOf(name);

    it("the golden index is read, whole and with its answers", async () => {
      const { storage } = await goldenRoot();
      const listing = await storage.list();
      expect(listing.refused).toEqual([]);
      expect(listing.indexes[0]?.meta).toMatchObject({
        format_version: 1,
        index_id: indexId,
        label,
        dim,
        count: 38,
        slots: 40,
        revision: 42,
        engine: { name: engine },
      });
      const { keyed } = await storage.open({ label, indexId });
      const answers = await keyed.search(vectors(40), { limit: 1, ef: 64 });
      answers.forEach(([best], i) => {
        if (i === 3 || i === 17) expect(best?.[0]).not.toBe(idOf(i));
        else expect(best).toEqual([idOf(i), expect.closeTo(1, 5)]);
      });
      await keyed.close();
    });

    it("I2: any changed byte of any file is refused before the engine is asked", async () => {
      const { storage, folder, loads } = await goldenRoot();
      for (const name of files) {
        const path = join(folder, name);
        const whole = readFileSync(path);
        const step = Math.max(1, Math.floor(whole.length / 60));
        for (let at = 0; at < whole.length; at += step) {
          const bytes = Buffer.from(whole);
          bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
          writeFileSync(path, bytes);
          if (name === "meta.json") {
            // Where the file is older than the hash of meta, a changed byte of a free field makes a valid meta of the same files.
            const outcome = await storage.verify({ label, indexId }).catch((error: unknown) => error);
            if (outcome instanceof Error) expect(outcome).toMatchObject({ errorName: "index_refused" });
            continue;
          }
          for (const call of [storage.open, storage.verify])
            await expect(call({ label, indexId })).rejects.toMatchObject({ errorName: "index_refused" });
        }
        writeFileSync(path, whole);
      }
      expect(loads()).toBe(0);
      await (await storage.open({ label, indexId })).keyed.close();
      expect(loads()).toBe(1);
    });

    it("I2: every changed bit of meta.json is refused, or changes white space only", async () => {
      const { storage } = await openCounted(tempFolder());
      const built = await build(40, 1, engineNameSchema.parse(engine));
      const published = await publish(storage, built, { label, indexId, revision: 42 });
      await built.close();
      const path = join(storage.root, label, indexId, "meta.json");
      const whole = readFileSync(path);
      for (let at = 0; at < whole.length; at++) {
        const bytes = Buffer.from(whole);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
        writeFileSync(path, bytes);
        const found = await storage.find({ label, indexId }).catch((error: unknown) => error);
        if (found instanceof Error) expect(found).toMatchObject({ errorName: "index_refused" });
        else expect(found).toEqual(published);
      }
      writeFileSync(path, whole.toString().replace('"revision": 42', '"revision": 43'));
      await expect(storage.open({ label, indexId })).rejects.toMatchObject({
        errorName: "index_refused",
        detail: expect.stringMatching(/meta.json is corrupt: its hash differs/),
      });
    });

    it("I2, I11: a meta.json that is a pipe, a device or a folder is refused, and holds nobody up", async () => {
      const { storage, folder } = await goldenRoot();
      const path = join(folder, "meta.json");
      const makers = [
        () => execFileSync("mkfifo", [path]),
        () => symlinkSync("/dev/zero", path),
        () => mkdirSync(path),
      ];
      for (const make of makers) {
        rmSync(path, { recursive: true });
        make();
        expect((await storage.list()).refused).toMatchObject([{ indexId, reason: "meta.json is no file" }]);
        await expect(storage.open({ label, indexId })).rejects.toMatchObject({ errorName: "index_refused" });
      }
    });

    it("I2: truncated, extended, missing and swapped files and foreign folders are refused, each with its reason", async () => {
      const { storage, folder, loads } = await goldenRoot();
      const refused = async (reason: RegExp) => {
        for (const call of [storage.open, storage.verify])
          await expect(call({ label, indexId })).rejects.toMatchObject({
            errorName: "index_refused",
            detail: expect.stringMatching(reason),
          });
        const listing = await storage.list({ label });
        return listing.indexes.length;
      };
      for (const name of files) {
        const path = join(folder, name);
        const whole = readFileSync(path);
        for (const size of [0, 1, whole.length >> 1, whole.length - 2]) {
          truncateSync(path, size);
          expect(await refused(name === "meta.json" ? /not JSON/ : /truncated/)).toBe(0);
          writeFileSync(path, whole);
        }
        writeFileSync(path, Buffer.concat([whole, Buffer.from("{")]));
        expect(await refused(name === "meta.json" ? /not JSON/ : /extended/)).toBe(0);
        rmSync(path);
        expect(await refused(/missing/)).toBe(0);
        writeFileSync(path, whole);
      }
      const other = await build(40, 77, engineNameSchema.parse(engine));
      await publish(storage, other, { label, indexId: idOf(1) });
      await other.close();
      const loadsBefore = loads();
      const swap = (name: string) =>
        writeFileSync(join(folder, name), readFileSync(join(folder, "..", idOf(1), name)));
      for (const name of files) {
        const whole = readFileSync(join(folder, name));
        swap(name);
        await refused(name === "meta.json" ? /foreign/ : /corrupt|truncated|extended/);
        writeFileSync(join(folder, name), whole);
      }
      const foreign = join(storage.root, idOf(1001), indexId);
      mkdirSync(join(storage.root, idOf(1001)));
      cpSync(folder, foreign, { recursive: true });
      await expect(storage.open({ label: idOf(1001), indexId })).rejects.toMatchObject({
        errorName: "index_refused",
        detail: expect.stringMatching(/foreign/),
      });
      expect(loads()).toBe(loadsBefore);
      expect(existsSync(folder)).toBe(true);
    });

    it("I2: a newer format is told apart from a corrupt one; impossible counts are refused", async () => {
      const { storage, folder, loads } = await goldenRoot();
      const path = join(folder, "meta.json");
      // As a foreign writer would leave it: the fields are held to account without the seal, too.
      const { meta_sha256: _, ...meta } = JSON.parse(readFileSync(path, "utf8"));
      for (const [change, reason] of [
        [{ format_version: 2, more: 1 }, /too new/],
        [{ format_version: "1" }, /corrupt/],
        [{ surplus: 1 }, /corrupt/],
        [{ count: 0 }, /corrupt/],
        [{ count: 41 }, /corrupt/],
        [{ count: 39 }, /ids name 38 faces/],
        [{ slots: 41 }, /corrupt/],
        [{ engine: { name: "unknown", version: "1" } }, /corrupt/],
      ] as const) {
        writeFileSync(path, JSON.stringify({ ...meta, ...change }));
        await expect(storage.open({ label, indexId })).rejects.toMatchObject({
          errorName: "index_refused",
          detail: expect.stringMatching(reason),
        });
      }
      expect(loads()).toBe(0);
      const { "vectors.dat": vectors, ...others } = meta.files;
      if (vectors) {
        writeFileSync(path, JSON.stringify({ ...meta, files: others }));
        await expect(storage.open({ label, indexId })).rejects.toMatchObject({
          errorName: "index_refused",
          detail: expect.stringMatching(/vectors in full precision are missing/),
        });
      }
      for (const change of [{ dim: 32 }, { params: { ...meta.params, m: 9 } }]) {
        writeFileSync(path, JSON.stringify({ ...meta, ...change }));
        await expect(storage.open({ label, indexId })).rejects.toMatchObject({ errorName: "index_refused" });
      }
    });
  },
);
