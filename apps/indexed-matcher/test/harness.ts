import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  defaults,
  type EngineName,
  encodeDescriptor,
  limits,
  type MatchReply,
  uuidBytes,
  writeUuid,
} from "@lim/contracts";
import { connectRedis, createMatchClient, defaultKeyNames, type MatchClient } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import {
  createFaceGenerator,
  createTestDatabase,
  eventually,
  faceIdOf,
  type ManagedProcess,
  startProcess,
  startTestRedis,
  type TestRedis,
} from "@lim/testkit";
import { createKeyedIndex, loadEngine } from "@lim/vector-index";
import { Redis } from "ioredis";

export const dim = 64;
const params = { m: 16, efConstruction: 100 };
const mainScript = fileURLToPath(new URL("../dist/main.js", import.meta.url));

export interface RunningMatcher {
  process: ManagedProcess;
  url: string;
  matcherId: string;
  indexes(): Promise<Record<string, unknown>[]>;
}

export interface MatchOptions {
  limit?: number;
  minRevision?: number;
  timeoutMs?: number;
  descriptor?: Buffer;
}

/** Real servers, a storage, and matchers as processes; `close` ends all of it. */
export interface Harness {
  db: FacesDb;
  databaseUrl: string;
  redis: TestRedis;
  raw: Redis;
  storage: IndexStorage;
  storageRoot: string;
  dir: string;
  client: MatchClient;
  /** `script`: another program than the service's own. */
  startMatcher(env?: Record<string, string>, script?: string): Promise<RunningMatcher>;
  match(listId: string, vector: Float32Array, options?: MatchOptions): Promise<MatchReply>;
  close(): Promise<void>;
}

const generator = createFaceGenerator({ dim, effectiveDim: 48 });

export function vectorOf(person: number, image = 0): Float32Array {
  return generator.vector(person, image);
}

export function facesOf(space: string, firstPerson: number, count: number) {
  return Array.from({ length: count }, (_, i) => ({
    faceId: faceIdOf(space, firstPerson + i),
    vector: vectorOf(firstPerson + i),
  }));
}

export async function startHarness(): Promise<Harness> {
  const [redis, database, dir] = await Promise.all([
    startTestRedis(),
    createTestDatabase(),
    mkdtemp(join(tmpdir(), "lim-matcher-")),
  ]);
  const storageRoot = join(dir, "storage");
  const storage = await openIndexStorage({ root: storageRoot });
  const connection = connectRedis({ url: redis.url, name: "test" });
  const client = createMatchClient({ redis: connection, keys: defaultKeyNames });
  const raw = new Redis(redis.url);
  raw.on("error", () => {});
  const processes: ManagedProcess[] = [];
  return {
    db: database.db,
    databaseUrl: database.url,
    redis,
    raw,
    storage,
    storageRoot,
    dir,
    client,
    async startMatcher(env = {}, script = mainScript) {
      const started = startProcess({
        name: "indexed-matcher",
        script,
        env: {
          REDIS_URL: redis.url,
          DATABASE_URL: database.url,
          LIM_STORAGE_ROOT: storageRoot,
          LIM_MATCHER_HOST: "127.0.0.1",
          LIM_MATCHER_PORT: "0",
          VL_LIM_MATCHER_HOST: "127.0.0.1",
          LIM_DESCRIPTOR_DIM: String(dim),
          LIM_RELOAD_PERIOD_MS: "150",
          LIM_REFRESH_PERIOD_MS: "50",
          // Nothing expires while a test looks: what is gone was withdrawn.
          LIM_LABEL_KEY_TTL_MS: "600000",
          LIM_LABEL_KEY_RENEW_MS: "500",
          LIM_BATCH_SIZE: "16",
          // Whoever runs the tests may have one.
          LIM_API_TOKEN: "",
          ...env,
        },
      });
      processes.push(started);
      const line = await started.waitForLine(/indexed-matcher listening/, { timeoutMs: 60_000 });
      const { url, matcher_id: matcherId } = JSON.parse(line) as { url: string; matcher_id: string };
      await eventually(
        "matcher is ready",
        async () => (await fetch(`${url}/readyz`)).status === 200 || undefined,
      );
      return {
        process: started,
        url,
        matcherId,
        async indexes() {
          const body = (await (await fetch(`${url}/indexes`)).json()) as {
            indexes: Record<string, unknown>[];
          };
          return body.indexes;
        },
      };
    },
    match(listId, vector, options = {}) {
      return client.request({
        label: listId,
        rid: randomUUID(),
        descriptor: options.descriptor ?? encodeDescriptor(vector, 1),
        limit: options.limit ?? 10,
        timeoutMs: options.timeoutMs ?? limits.maxMatchTimeoutMs,
        ...(options.minRevision === undefined ? {} : { minRevision: options.minRevision }),
      });
    },
    async close() {
      await Promise.all(processes.map((started) => started.stop()));
      await client.close();
      raw.disconnect();
      await connection.close();
      await Promise.all([redis.stop(), database.drop(), rm(dir, { recursive: true, force: true })]);
    },
  };
}

/** A new list with faces 0..count-1 of its own name space. */
export async function createFilledList(harness: Harness, space: string, count: number): Promise<string> {
  const { listId } = await harness.db.createList({ name: space });
  await harness.db.putFaces({ listIds: [listId], descriptorVersion: 1, faces: facesOf(space, 0, count) });
  return listId;
}

/** Builds the list's index as it is now and publishes it; returns its id. */
export async function publishIndex(
  harness: Pick<Harness, "db">,
  storage: IndexStorage,
  listId: string,
  indexId: string = randomUUID(),
  engineName: EngineName = defaults.engine,
): Promise<string> {
  const snapshot = await harness.db.openSnapshot({ listId, descriptorVersion: 1, dim });
  const engine = await loadEngine(engineName);
  const keyed = createKeyedIndex(
    await engine.create({ dim, capacity: Math.max(16, snapshot.faceCount), params: { ...params, seed: 7 } }),
  );
  try {
    for await (const batch of snapshot.batches) await keyed.addNew(batch.faceIds, batch.vectors);
    const staging = await storage.stage({ label: listId, indexId, attempt: 1 });
    await staging.publish(
      keyed,
      {
        label: listId,
        historyId: snapshot.historyId,
        descriptorVersion: 1,
        revision: snapshot.revision,
        engine: engineName,
        params,
        mode: "rebuild",
        removedSinceRebuild: 0,
        skipped: snapshot.skipped,
      },
      { phases: {} },
    );
  } finally {
    await keyed.close();
    await snapshot.close();
  }
  return indexId;
}

export function idBytes(faceIds: readonly string[]): Uint8Array {
  const bytes = new Uint8Array(faceIds.length * uuidBytes);
  faceIds.forEach((faceId, i) => {
    writeUuid(faceId, bytes, i * uuidBytes);
  });
  return bytes;
}

/** Matchers that announce the label. */
export async function announcers(harness: Harness, listId: string): Promise<string[]> {
  const keys = await harness.raw.keys(`matching_label__${listId}__*`);
  return keys.map((key) => key.split("__")[2] ?? "");
}

export interface Load {
  /** Replies so far. */
  readonly answered: number;
  /** Replies in the order of their requests, of one caller after another. */
  stop(): Promise<{ replies: MatchReply[]; failures: string[] }>;
}

const maxLoadFailures = 1000;

/** `callers` ask one request after another until stopped, or until too many have failed. Revisions must never decrease for a caller (I12). */
export function startLoad(harness: Harness, listId: string, callers: number, people: number): Load {
  let stopped = false;
  const replies: MatchReply[] = [];
  const failures: string[] = [];
  const call = async (caller: number) => {
    let revision = 0;
    for (let i = caller; !stopped; i += callers) {
      try {
        const reply = await harness.match(listId, vectorOf(i % people, 1));
        if (reply.error) failures.push(`${reply.error.error_code} ${reply.error.detail}`);
        else if ((reply.revision ?? -1) < revision)
          failures.push(`revision ${reply.revision} after ${revision}`);
        revision = reply.revision ?? revision;
        replies.push(reply);
      } catch (thrown) {
        failures.push(String(thrown));
        // A refusal at once must not keep the event loop from turning, nor a test that failed already from ending.
        if (failures.length >= maxLoadFailures) return;
        await setImmediate();
      }
    }
  };
  const running = Promise.all(Array.from({ length: callers }, (_, caller) => call(caller)));
  return {
    get answered() {
      return replies.length;
    },
    async stop() {
      stopped = true;
      await running;
      return { replies, failures };
    },
  };
}
