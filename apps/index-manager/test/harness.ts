import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Task, taskSchema } from "@lim/contracts";
import { connectRedis, createTaskStore, defaultKeyNames, type TaskStore } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import {
  createTestDatabase,
  eventually,
  type ManagedProcess,
  startProcess,
  startTestRedis,
} from "@lim/testkit";
import { Redis } from "ioredis";
import { startTestIndexer, type TestIndexer, testVector, uuidOf } from "./test-indexer.ts";

/** Of masters that are to fail. */
export const leaseTtlMs = 1_500;
/** Of others: a busy machine, too, renews it in time. */
const steadyLeaseTtlMs = 10_000;

export interface Manager {
  url: string;
  process: ManagedProcess;
  api(method: string, path: string, body?: object): Promise<{ status: number; body: unknown }>;
}

/** Real Redis, Postgres, storage and manager processes; indexers are peers at their contract. */
export interface Harness {
  redisUrl: string;
  databaseUrl: string;
  storageRoot: string;
  db: FacesDb;
  storage: IndexStorage;
  store: TaskStore;
  redis: ReturnType<typeof connectRedis>;
  /** Beside the contract: what an operator might do to Redis. */
  raw: Redis;
  restartRedis(): Promise<void>;
  indexer(): Promise<TestIndexer>;
  /** `started`: called before it can have done anything. */
  manager(env?: Record<string, string>, started?: (process: ManagedProcess) => void): Promise<Manager>;
  /** A list with faces. */
  list(faces?: number): Promise<string>;
  task(manager: Manager, taskId: string): Promise<Task>;
  /** Waits until the task has the status, and returns it. */
  untilStatus(manager: Manager, taskId: string, status: Task["status"]): Promise<Task>;
  /** Ends managers and indexers, empties Redis and the lists. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

const mainScript = new URL("../dist/main.js", import.meta.url).pathname;

export async function startHarness(options: { leaseTtlMs?: number } = {}): Promise<Harness> {
  const [server, database, storageRoot] = await Promise.all([
    startTestRedis(),
    createTestDatabase(),
    mkdtemp(join(tmpdir(), "lim-manager-")),
  ]);
  const storage = await openIndexStorage({ root: storageRoot });
  const redis = connectRedis({ url: server.url, name: "test" });
  const raw = new Redis(server.url);
  const store = createTaskStore({ redis, keys: defaultKeyNames });
  const { db } = database;
  const managers: Manager[] = [];
  const indexers: TestIndexer[] = [];
  const lists: string[] = [];
  let faces = 0;
  const harness: Harness = {
    redisUrl: server.url,
    databaseUrl: database.url,
    storageRoot,
    db,
    storage,
    store,
    redis,
    raw,
    restartRedis: () => server.restart(),
    async indexer() {
      const indexer = await startTestIndexer({ storage, db });
      indexers.push(indexer);
      return indexer;
    },
    async manager(env = {}, started) {
      const process = startProcess({
        name: `manager-${managers.length + 1}`,
        script: mainScript,
        env: {
          REDIS_URL: server.url,
          DATABASE_URL: database.url,
          LIM_STORAGE_ROOT: storageRoot,
          LIM_MANAGER_HOST: "127.0.0.1",
          LIM_MANAGER_PORT: "0",
          LIM_MANAGER_LEASE_TTL_MS: `${options.leaseTtlMs ?? steadyLeaseTtlMs}`,
          LIM_LOOKUP_PERIOD_MS: "100",
          LIM_PLANNING_SETTLE_MS: "0",
          LIM_RETRY_BACKOFF_MS: "100",
          LIM_MIN_INDEXING_LIST_SIZE: "3",
          LIM_DESCRIPTOR_DIM: "8",
          LIM_INDEXERS: indexers.map((indexer) => indexer.origin).join(","),
          ...env,
        },
      });
      started?.(process);
      const line = await process.waitForLine(/index-manager listening/, { timeoutMs: 60_000 });
      const { url } = JSON.parse(line) as { url: string };
      const manager: Manager = { url, process, api: (...args) => call(url, ...args) };
      managers.push(manager);
      return manager;
    },
    async list(count = 5) {
      const { listId } = await db.createList({ name: `list ${lists.length}` });
      lists.push(listId);
      await db.putFaces({
        listIds: [listId],
        descriptorVersion: 1,
        faces: Array.from({ length: count }, () => ({ faceId: uuidOf(++faces), vector: testVector(faces) })),
      });
      return listId;
    },
    async task(manager, taskId) {
      return taskSchema.parse((await manager.api("GET", `/1/tasks/${taskId}`)).body);
    },
    untilStatus: (manager, taskId, status) =>
      eventually(`task is ${status}`, async () => {
        const task = await harness.task(manager, taskId);
        return task.status === status ? task : undefined;
      }),
    async clear() {
      await Promise.all(managers.splice(0).map((manager) => manager.process.stop()));
      await Promise.all(indexers.splice(0).map((indexer) => indexer.close()));
      await raw.flushall();
      for (const listId of lists.splice(0)) await db.deleteList({ listId });
    },
    async close() {
      await harness.clear();
      raw.disconnect();
      await redis.close();
      await Promise.all([server.stop(), database.drop()]);
      await rm(storageRoot, { recursive: true, force: true });
    },
  };
  return harness;
}

async function call(
  url: string,
  method: string,
  path: string,
  body?: object,
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${url}${path}`, {
    method,
    ...(body ? { body: JSON.stringify(body), headers: { "content-type": "application/json" } } : {}),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
}
