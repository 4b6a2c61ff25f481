import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import { createTestDatabase } from "@lim/testkit";
import { afterEach, beforeEach, expect, test } from "vitest";
import { chanceVector } from "../feeder.ts";
import { createFindings } from "../findings.ts";
import { publishIndex } from "../publish.ts";
import { chancesOf } from "../random.ts";
import type { Feeder } from "./feeder.ts";
import { judgeContents, judgeLeftOvers } from "./rest.ts";

const dim = 16;
const descriptorVersion = 1;
const chances = chancesOf(5);
let dir: string;
let storage: IndexStorage;
let database: Awaited<ReturnType<typeof createTestDatabase>>;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "lim-rest-"));
  storage = await openIndexStorage({ root: join(dir, "storage") });
  database = await createTestDatabase();
});
afterEach(async () => {
  await database.drop();
  await rm(dir, { recursive: true, force: true });
});

const newFaces = (count: number) =>
  Array.from({ length: count }, () => ({ faceId: randomUUID(), vector: chanceVector(chances, dim) }));

async function publish(listId: string): Promise<string> {
  const order = { label: listId, engine: "hnsw", descriptorVersion, dim } as const;
  return (await publishIndex({ storage, db: database.db }, order)).indexId;
}

async function listOf(faces: ReturnType<typeof newFaces>): Promise<string> {
  const { listId } = await database.db.createList({ name: "rest" });
  await database.db.putFaces({ listIds: [listId], descriptorVersion, faces });
  return listId;
}

async function violationsOfContents(): Promise<readonly string[]> {
  const findings = createFindings();
  await judgeContents({ db: database.db, storage, findings, descriptorVersion, dim });
  expect(findings.figures().contents).toEqual({ "newest indexes compared with their lists": 1 });
  return findings.violations;
}

test("an index that equals its list is in order", async () => {
  await publish(await listOf(newFaces(50)));
  expect(await violationsOfContents()).toEqual([]);
});

test("I1: missing faces, phantoms and old vectors of an index are told by number", async () => {
  const faces = newFaces(50);
  const listId = await listOf(faces);
  await publish(listId);
  const [first, second, third] = faces.map(({ faceId }) => faceId);
  await database.db.unlinkFaces({ listId, faceIds: [first ?? "", second ?? ""] });
  const changed = [...newFaces(1), { faceId: third ?? "", vector: chanceVector(chances, dim) }];
  await database.db.putFaces({ listIds: [listId], descriptorVersion, faces: changed });
  expect((await violationsOfContents()).join()).toMatch(/1 missing, 2 phantoms, 1 old vectors/);
});

async function leftOvers(options: { mark?: string; removed?: string } = {}): Promise<readonly string[]> {
  const findings = createFindings();
  const scratchDir = join(dir, "scratch");
  await mkdir(scratchDir, { recursive: true });
  const removedTasks = new Map(options.removed === undefined ? [] : [[options.removed, 0]]);
  const feeder: Feeder = {
    removedTasks,
    forgotten: new Set(),
    unsure: new Set(),
    deletedLists: new Set(),
    run: async () => {},
    removeTask: async () => {},
    deleteList: async () => {},
  };
  await judgeLeftOvers({
    db: database.db,
    storage,
    findings,
    descriptorVersion,
    dim,
    feeder,
    mark: options.mark ?? `LIM_CHAOS_RUN=${randomUUID()}`,
    scratchDir,
    databaseUrl: database.url,
  });
  return findings.violations;
}

test("staging of killed builds is collected, and is no fault", async () => {
  await publish(await listOf(newFaces(20)));
  const staging = await storage.stage({ label: randomUUID(), indexId: randomUUID(), attempt: 1 });
  const long = new Date(Date.now() - 60_000);
  await utimes(staging.path, long, long);
  expect(await leftOvers()).toEqual([]);
});

test("I2 I4: a partial index and the index of a removed task are told in the end", async () => {
  const indexId = await publish(await listOf(newFaces(20)));
  const removed = await leftOvers({ removed: indexId });
  expect(removed).toEqual([expect.stringMatching(`removed task ${indexId} has a folder`)]);
  await mkdir(join(storage.root, randomUUID(), randomUUID()), { recursive: true });
  expect((await leftOvers()).join()).toMatch(/partial in the end/);
});
