import { spawn } from "node:child_process";
import { existsSync, globSync, readdirSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type EngineName, LimError } from "@lim/contracts";
import { loadEngine } from "@lim/vector-index";
import { expect, it } from "vitest";
import { type CacheEvent as Event, openIndexCache } from "../src/index.ts";
import { build, idOf, openCounted, publish, tempFolder } from "./fixtures.ts";

const script = fileURLToPath(new URL("./cache-user.ts", import.meta.url));
/** What a process prints. */
type CacheEvent = Event | { kind: "opened"; indexId: string };

const label = idOf(1);

async function published(count: number) {
  const folder = tempFolder();
  const { storage, scratch } = await openCounted(join(folder, "storage"));
  const keyed = await build(300);
  const indexIds = Array.from({ length: count }, (_, i) => idOf(10 + i));
  const indexes = [];
  for (const [i, indexId] of indexIds.entries())
    indexes.push(await publish(storage, keyed, { label, indexId, revision: 1 + i }));
  await keyed.close();
  return { storage, scratch, indexIds, indexes, cacheRoot: join(folder, "cache") };
}

/** A cache of this process, with what it told. */
function cacheOf({ storage, scratch, cacheRoot }: Awaited<ReturnType<typeof published>>, options = {}) {
  const events: CacheEvent[] = [];
  const cache = openIndexCache({
    root: cacheRoot,
    storage,
    scratchDir: scratch,
    onEvent: (event) => events.push(event),
    ...options,
  });
  const kinds = () => events.splice(0).map(({ kind }) => kind);
  const opened = async (indexId: string) => {
    const { keyed } = await cache.open({ label, indexId });
    await keyed.close();
    return kinds();
  };
  return { cache, opened, kinds };
}

function startUser(storageRoot: string, cacheRoot: string, indexIds: string[], die = "") {
  const child = spawn(process.execPath, [script, storageRoot, cacheRoot, label, indexIds.join(","), die], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  const ended = new Promise<number | string | null>((resolve) =>
    child.once("close", (code, signal) => resolve(code ?? signal)),
  );
  return {
    ended,
    errors: () => errors,
    events: () => output.split("\n").flatMap((line) => (line ? [JSON.parse(line) as CacheEvent] : [])),
  };
}

function spoil(storageRoot: string): void {
  for (const path of globSync(join(storageRoot, label, "*", "index.dat"))) truncateSync(path, 10);
}

it("processes that want the same indexes at once read the storage once per index", async () => {
  const { storage, indexIds, cacheRoot } = await published(2);
  const users = Array.from({ length: 4 }, () => startUser(storage.root, cacheRoot, indexIds));
  const ends = await Promise.all(users.map(({ ended }) => ended));
  expect(ends, users.map(({ errors }) => errors()).join("\n")).toEqual([0, 0, 0, 0]);
  const events = users.flatMap((user) => user.events());
  const of = (kind: CacheEvent["kind"]) =>
    events.filter((event) => event.kind === kind).map(({ indexId }) => indexId);
  expect(of("storage_read").toSorted()).toEqual(indexIds);
  expect(of("fetched").toSorted()).toEqual(indexIds);
  expect(of("opened")).toHaveLength(8);
  expect(of("hit").length + of("shared").length).toBe(6);
  // What the storage holds does not matter any more.
  spoil(storage.root);
  const late = startUser(storage.root, cacheRoot, indexIds);
  expect(await late.ended, late.errors()).toBe(0);
  expect(
    late
      .events()
      .map(({ kind }) => kind)
      .toSorted(),
  ).toEqual(["hit", "hit", "opened", "opened"]);
  expect(readdirSync(join(cacheRoot, ".fetching"))).toEqual([]);
  expect(readdirSync(join(cacheRoot, ".locks"))).toEqual([]);
});

it("kill -9 in the middle of a copy: another process takes over, no partial entry is seen, nothing is left", async () => {
  const { storage, indexIds, cacheRoot } = await published(1);
  const victim = startUser(storage.root, cacheRoot, indexIds, "die");
  expect(await victim.ended).toBe("SIGKILL");
  expect(existsSync(join(cacheRoot, label))).toBe(false);
  expect(readdirSync(join(cacheRoot, ".fetching"))).toHaveLength(1);
  const users = [1, 2, 3].map(() => startUser(storage.root, cacheRoot, indexIds));
  expect(await Promise.all(users.map(({ ended }) => ended))).toEqual([0, 0, 0]);
  const kinds = users.flatMap((user) => user.events()).map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind === "storage_read")).toHaveLength(1);
  expect(kinds.filter((kind) => kind === "taken_over")).toHaveLength(1);
  expect(kinds.filter((kind) => kind === "opened")).toHaveLength(3);
  expect(readdirSync(join(cacheRoot, ".fetching"))).toEqual([]);
  expect(readdirSync(join(cacheRoot, ".locks"))).toEqual([]);
});

it("I2: a corrupt or partial entry is thrown away and fetched again; one that is as published is not", async () => {
  const setting = await published(1);
  const { storage, indexIds, cacheRoot } = setting;
  const [indexId = ""] = indexIds;
  const { cache, opened, kinds } = cacheOf(setting);
  expect(await opened(indexId)).toEqual(["storage_read", "fetched"]);
  const entry = join(cacheRoot, label, indexId);
  writeFileSync(join(entry, "vectors.dat"), Buffer.alloc(300 * 64 * 4), { flag: "r+" });
  expect(await opened(indexId)).toEqual(["hit", "corrupt", "storage_read", "fetched"]);
  truncateSync(join(entry, "meta.json"), 20);
  await cache.verify({ label, indexId });
  expect(kinds()).toEqual(["hit", "corrupt", "storage_read", "fetched"]);
  // What an engine refuses although it is what was published is no fault of the cache.
  const refuse = () => Promise.reject(new LimError("index_refused", "for some reason"));
  const loadAdapter = async (name: EngineName) =>
    Object.create(await loadEngine(name), { load: { value: refuse } });
  const refusing = cacheOf(setting, { loadAdapter });
  await expect(refusing.opened(indexId)).rejects.toThrow("for some reason");
  expect(refusing.kinds()).toEqual(["hit", "shared"]);
  expect(await opened(indexId)).toEqual(["hit"]);
  // A storage that is corrupt itself leaves no entry.
  spoil(storage.root);
  truncateSync(join(entry, "index.dat"), 20);
  await expect(opened(indexId)).rejects.toMatchObject({ errorName: "index_refused" });
  expect(existsSync(entry)).toBe(false);
});

it("a folder that cannot be used, or is full, costs nothing but reads of the storage", async () => {
  const setting = await published(2);
  const [first = "", second = ""] = setting.indexIds;
  const file = join(setting.scratch, "a file");
  writeFileSync(file, "");
  const unusable = cacheOf({ ...setting, cacheRoot: join(file, "cache") });
  expect(await unusable.opened(first)).toEqual(["bypassed", "storage_read"]);
  expect(await unusable.cache.tidy({ wanted: new Set(), published: [] })).toEqual({
    entries: 0,
    sizeBytes: 0,
  });
  // Nothing that was published is ever taken for an entry.
  const storageItself = cacheOf(
    { ...setting, cacheRoot: setting.storage.root },
    { times: { unusedMs: -1_000 } },
  );
  expect(await storageItself.opened(first)).not.toContain("fetched");
  expect(await storageItself.cache.tidy({ wanted: new Set(), published: [] })).toBeUndefined();
  await setting.storage.verify({ label, indexId: first });
  const sizeBytes = setting.indexes[0]?.sizeBytes ?? 0;
  const small = cacheOf(setting, { maxBytes: sizeBytes * 1.5 });
  expect(await small.opened(first)).toEqual(["storage_read", "fetched"]);
  // In use a moment ago: it stays, and the other one finds no room.
  expect(await small.opened(second)).toEqual(["bypassed", "storage_read"]);
  utimesSync(join(setting.cacheRoot, label, first), new Date(0), new Date(0));
  expect(await small.opened(second)).toEqual(["removed", "storage_read", "fetched"]);
});

it("old generations go when nobody of the host uses them, and with them what dead processes left", async () => {
  const setting = await published(3);
  const { cacheRoot, indexIds, indexes } = setting;
  const [gone = "", old = "", newest = ""] = indexIds;
  const { cache, opened, kinds } = cacheOf(setting, { times: { tidyEveryMs: 0 } });
  for (const indexId of indexIds) await opened(indexId);
  const stored = () => readdirSync(join(cacheRoot, label)).toSorted();
  const listed = indexes.slice(1);
  await cache.tidy({ wanted: new Set([newest]), published: listed });
  expect(stored()).toEqual(indexIds);
  const age = (path: string) => utimesSync(path, new Date(0), new Date(0));
  for (const indexId of indexIds) age(join(cacheRoot, label, indexId));
  writeFileSync(join(cacheRoot, ".locks", "dead"), "");
  age(join(cacheRoot, ".locks", "dead"));
  // Another matcher of the host still serves the older generation.
  await cacheOf(setting).cache.tidy({ wanted: new Set([old]), published: listed });
  expect(stored()).toEqual([old, newest].toSorted());
  const left = await cache.tidy({ wanted: new Set([newest]), published: listed });
  expect(left?.entries).toBe(2);
  age(join(cacheRoot, label, old));
  kinds();
  await cache.tidy({ wanted: new Set(), published: listed });
  expect(stored()).toEqual([newest]);
  expect(kinds()).toEqual(["removed"]);
  expect(existsSync(join(cacheRoot, label, gone))).toBe(false);
  expect(readdirSync(join(cacheRoot, ".locks"))).toEqual([]);
  expect(readdirSync(join(cacheRoot, ".trash"))).toEqual([]);
});
