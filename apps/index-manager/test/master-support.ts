import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { IndexMeta } from "@lim/contracts";
import {
  connectRedis,
  createDeadLetters,
  createIndexerRegistry,
  createTaskStore,
  defaultKeyNames,
} from "@lim/coordination";
import type { ListState } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { createLogger, Registry } from "@lim/service-kit";
import { createTestDatabase, startTestRedis } from "@lim/testkit";
import { Redis } from "ioredis";
import pg from "pg";
import { createIndexerClient } from "../src/indexer-client.ts";
import { createManagerMetrics } from "../src/metrics.ts";
import type { PlanningDeps } from "../src/planning.ts";
import type { RetentionDeps } from "../src/retention.ts";
import { testVector, uuidOf } from "./test-indexer.ts";

export type MasterTestDeps = PlanningDeps & RetentionDeps;

/** What a master works with, in this process: real Redis, Postgres and storage, and no indexer. */
export async function startMasterSupport() {
  const [server, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
  const storageRoot = mkdtempSync(join(tmpdir(), "lim-master-"));
  const storage = await openIndexStorage({ root: storageRoot });
  const redis = connectRedis({ url: server.url, name: "test" });
  const raw = new Redis(server.url);
  const sql = new pg.Client({ connectionString: database.url });
  await sql.connect();
  const { db } = database;
  const registry = new Registry();
  const log = createLogger({ service: "test", level: "fatal" });
  const store = createTaskStore({ redis, keys: defaultKeyNames });
  const epoch = 7;
  const deps: MasterTestDeps = {
    store,
    storage,
    db,
    log,
    registry: createIndexerRegistry({ redis }),
    client: createIndexerClient(log),
    staticOrigins: [],
    deadLetters: createDeadLetters({ redis }),
    metrics: createManagerMetrics(registry),
    nowMs: async (signal) => (await redis.time({ signal })).redisMs,
    schedule: { kind: "period", periodMs: 3_600_000 },
    settleMs: 0,
    wanted: { kind: "dynamic" },
    minFaces: 1,
    rules: { rebuildDefault: false, maxRemovalForRebuild: 1, maxRemovalRatio: undefined },
    build: { engine: "hnsw", params: { m: 8, ef_construction: 60 }, descriptor_version: 1, dim: 8 },
    keepVersions: 2,
    keepTasks: 100,
    taskRetentionMs: 3_600_000,
    deletedListGraceMs: 3_600_000,
    deadLetterRetentionMs: 3_600_000,
    feedRetentionMs: 3_600_000,
  };
  let faces = 0;
  const lists: string[] = [];
  return {
    deps,
    raw,
    sql,
    storageRoot,
    epoch,
    /** Makes `epoch` the master's. Others are stale. */
    lead: () => raw.set(`{${defaultKeyNames.masterLock}}:epoch`, epoch),
    async list(count: number): Promise<ListState> {
      const { listId } = await db.createList({ name: `list ${lists.length}` });
      lists.push(listId);
      const added = Array.from({ length: count }, () => ({
        faceId: uuidOf(++faces),
        vector: testVector(faces),
      }));
      if (count > 0) await db.putFaces({ listIds: [listId], descriptorVersion: 1, faces: added });
      const [list] = await db.listStates({ listIds: [listId] });
      if (!list) throw new Error("a list has just been made");
      return list;
    },
    /** Many lists of the same three faces, linked and one of them unlinked: revision 4, two faces. */
    async manyLists(count: number): Promise<ListState[]> {
      const listIds = Array.from({ length: count }, () => String(randomUUID()));
      lists.push(...listIds);
      const faceIds = [0, 1, 2].map(() => uuidOf(++faces));
      await sql.query("INSERT INTO faces.list (list_id, name) SELECT unnest($1::uuid[]), ''", [listIds]);
      await sql.query("INSERT INTO faces.face (face_id) SELECT unnest($1::uuid[])", [faceIds]);
      await sql.query(
        "INSERT INTO faces.list_face (list_id, face_id) SELECT l, f FROM unnest($1::uuid[]) l, unnest($2::uuid[]) f",
        [listIds, faceIds],
      );
      await sql.query("DELETE FROM faces.list_face WHERE face_id = $1", [faceIds[0]]);
      return db.listStates({ listIds });
    },
    /** Removes that many of the list's faces, one change of its feed each. */
    async unlink(listId: string, count: number): Promise<void> {
      const { rows } = await sql.query<{ face_id: string }>(
        "SELECT face_id FROM faces.list_face WHERE list_id = $1 ORDER BY face_id LIMIT $2",
        [listId, count],
      );
      await db.unlinkFaces({ listId, faceIds: rows.map((row) => row.face_id) });
    },
    /** Makes every row of the feeds so far look old. */
    age: (byMs: number) =>
      sql.query("UPDATE faces.list_change SET create_time = create_time - $1 * interval '1 millisecond'", [
        byMs,
      ]),
    /** An index as far as a listing looks: files of the sizes that its meta says. */
    place: (
      list: Pick<ListState, "listId" | "historyId">,
      revision: number,
      change: Partial<IndexMeta> = {},
    ) => placeIndex(storageRoot, list, revision, { index_id: uuidOf(++faces), ...change }),
    async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
      const found = await registry.getSingleMetric(name)?.get();
      const values = found?.values.filter((value) =>
        Object.entries(labels).every(([key, text]) => value.labels[key] === text),
      );
      return (values ?? []).reduce((sum, value) => sum + value.value, 0);
    },
    async clear(): Promise<void> {
      await raw.flushall();
      await sql.query("DELETE FROM faces.list WHERE list_id = ANY ($1)", [lists.splice(0)]);
      for (const { label } of (await storage.list()).indexes)
        rmSync(join(storageRoot, label), { recursive: true, force: true });
    },
    async close(): Promise<void> {
      raw.disconnect();
      await Promise.all([redis.close(), sql.end()]);
      await Promise.all([server.stop(), database.drop()]);
      rmSync(storageRoot, { recursive: true, force: true });
    },
  };
}

function placeIndex(
  root: string,
  list: Pick<ListState, "listId" | "historyId">,
  revision: number,
  change: Partial<IndexMeta> & { index_id: string },
): string {
  const entry = (size: number) => ({ size, sha256: "0".repeat(64) });
  const meta: IndexMeta = {
    format_version: 1,
    index_type: "list",
    label: list.listId,
    history_id: list.historyId,
    descriptor_version: 1,
    dim: 8,
    metric: "ip",
    engine: { name: "hnsw", version: "1" },
    params: { m: 8, ef_construction: 60 },
    count: 4,
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
    files: { "index.dat": entry(8), "ids.dat": entry(64) },
    ...change,
  };
  const folder = join(root, list.listId, meta.index_id);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "index.dat"), Buffer.alloc(8));
  writeFileSync(join(folder, "ids.dat"), Buffer.alloc(64));
  writeFileSync(join(folder, "meta.json"), JSON.stringify(meta));
  return meta.index_id;
}
