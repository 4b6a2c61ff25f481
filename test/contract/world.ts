import { randomBytes, randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type BuildRequest, defaults, LimError, priorities, type Task } from "@lim/contracts";
import { connectRedis, createTaskStore, defaultKeyNames, type TaskStore } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import { eventually, faceIdOf, type ManagedProcess, startProcess } from "@lim/testkit";
import { createKeyedIndex, loadEngine } from "@lim/vector-index";
import { type Peer, startPeer } from "./peer.ts";
import type { PoolName } from "./plan.ts";

const dim = 8;
const descriptorVersion = 1;
const peerCount = 3;
const lookupPeriodMs = 50;
const facesOfList = 4;
/** Bounds of what the run keeps, so that answers stay small and filters still hit something. */
const most = { tasks: 250, indexes: 50, learned: 200 };
const least = { open: 12, indexes: 12 };
const managerScript = fileURLToPath(new URL("../../apps/index-manager/dist/main.js", import.meta.url));

/** A real manager on real servers with faces, tasks in every state and published indexes, kept in motion. */
export interface World {
  url: string;
  token: string;
  process: ManagedProcess;
  pools: Map<PoolName, string[]>;
  secrets: readonly string[];
  /** Remembers ids and cursors of an answer. */
  learn(operation: string, body: string): void;
  /** Brings tasks and indexes back into their bounds, and the pools up to date. */
  replenish(): Promise<void>;
  /** Nothing ends or begins in the surroundings until `resume`. */
  hold(): Promise<void>;
  resume(): void;
  /** Every task, the queue's order and every index, as lines. While held, only requests change it. */
  fingerprint(): Promise<string[]>;
  close(): Promise<void>;
}

export interface WorldServers {
  redisUrl: string;
  databaseUrl: string;
  db: FacesDb;
}

interface Parts extends WorldServers {
  storage: IndexStorage;
  store: TaskStore;
  lists: string[];
  peers: Peer[];
  pools: Map<PoolName, string[]>;
}

function vectorOf(seed: number): Float32Array {
  const vector = Float32Array.from({ length: dim }, (_, i) => Math.sin(seed * 7.3 + i * 1.7 + 0.3));
  const norm = Math.hypot(...vector);
  return vector.map((value) => value / norm);
}

async function seedLists(db: FacesDb, count: number): Promise<string[]> {
  const lists: string[] = [];
  for (let i = 0; i < count; i++) {
    const { listId } = await db.createList({ name: `contract ${i}` });
    lists.push(listId);
    // Every tenth list is empty.
    const faces = Array.from({ length: i % 10 === 9 ? 0 : facesOfList }, (_, face) => ({
      faceId: faceIdOf("contract", i * facesOfList + face),
      vector: vectorOf(i * facesOfList + face),
    }));
    if (faces.length > 0) await db.putFaces({ listIds: [listId], descriptorVersion, faces });
  }
  return lists;
}

/** A real index of a list; of another descriptor version where one is named. */
async function publish(
  { db, storage }: Pick<Parts, "db" | "storage">,
  index: { listId: string; indexId: string; attempt: number; mode: Task["mode"]; descriptorVersion?: number },
): Promise<void> {
  const { listId, indexId, attempt, mode } = index;
  const params = { m: defaults.m, efConstruction: defaults.efConstruction };
  const closers: (() => Promise<unknown>)[] = [];
  try {
    // An id that was removed is refused here, before anything else is open.
    const staging = await storage.stage({ label: listId, indexId, attempt });
    closers.push(() => staging.discard());
    const snapshot = await db.openSnapshot({ listId, descriptorVersion, dim });
    closers.push(() => snapshot.close());
    if (snapshot.faceCount === 0) throw new LimError("empty_list", `list ${listId} has no face`);
    const engine = await loadEngine(defaults.engine);
    const keyed = createKeyedIndex(await engine.create({ dim, capacity: snapshot.faceCount, params }));
    closers.push(() => keyed.close());
    for await (const batch of snapshot.batches) await keyed.addNew(batch.faceIds, batch.vectors);
    const content = {
      label: listId,
      historyId: snapshot.historyId,
      descriptorVersion: index.descriptorVersion ?? descriptorVersion,
      revision: snapshot.revision,
      engine: defaults.engine,
      params,
      mode,
      removedSinceRebuild: 0,
      skipped: snapshot.skipped,
    };
    await staging.publish(keyed, content, { phases: {} });
  } finally {
    for (const close of closers.toReversed()) await close().catch(() => undefined);
  }
}

/** Every third build fails, each time with another error; the last of these three is tried again. */
const failures = ["verification_failed", "out_of_memory", "storage_unavailable"] as const;

function builder(parts: Pick<Parts, "db" | "storage">): (request: BuildRequest) => Promise<void> {
  let builds = 0;
  return async (request) => {
    const count = ++builds;
    if (count % 3 === 0)
      throw new LimError(failures[(count / 3) % failures.length] ?? "build_crashed", "as the run wants it");
    const { task_id: indexId, list_id: listId, attempt, mode } = request;
    await publish(parts, { listId, indexId, attempt, mode });
  };
}

/** `dir` gets the storage; it is the caller's, what is made in it is not kept. */
export async function startWorld(servers: WorldServers, dir: string): Promise<World> {
  const closers: (() => Promise<unknown>)[] = [];
  const close = async () => {
    for (const end of closers.toReversed()) await end().catch(() => undefined);
  };
  try {
    const storageRoot = join(dir, "storage");
    const storage = await openIndexStorage({ root: storageRoot });
    closers.push(() => rm(storageRoot, { recursive: true, force: true, maxRetries: 5 }));
    const redis = connectRedis({ url: servers.redisUrl, name: "contract" });
    closers.push(() => redis.close());
    const store = createTaskStore({ redis, keys: defaultKeyNames });
    const lists = await seedLists(servers.db, 40);
    const [gone] = await seedLists(servers.db, 1);
    for (const [i, listId] of [...lists.slice(0, 6), gone ?? ""].entries())
      await publish(
        { db: servers.db, storage },
        { listId, indexId: randomUUID(), attempt: 1, mode: "rebuild", descriptorVersion: i === 5 ? 2 : 1 },
      );
    if (gone !== undefined) await servers.db.deleteList({ listId: gone });
    const peers: Peer[] = [];
    for (let i = 0; i < peerCount; i++) peers.push(await startPeer(builder({ db: servers.db, storage })));
    closers.push(() => Promise.all(peers.map((peer) => peer.close())));
    const token = `contract-${randomBytes(16).toString("hex")}`;
    const { process, url } = await startManager({ ...servers, storageRoot, peers, token });
    closers.push(() => process.stop());
    const parts: Parts = { ...servers, storage, store, lists, peers, pools: new Map() };
    parts.pools.set("lists", [...lists, gone ?? ""]);
    parts.pools.set(
      "origins",
      peers.map((peer) => peer.origin),
    );
    parts.pools.set(
      "keys",
      Array.from({ length: 20 }, (_, i) => `key of the run ${i}`.replaceAll(" ", "-")),
    );
    return {
      url,
      token,
      process,
      pools: parts.pools,
      secrets: [storageRoot, token, servers.databaseUrl, servers.redisUrl],
      learn: (operation, body) => learn(parts.pools, operation, body),
      replenish: () => replenish(parts),
      hold: () => hold(parts),
      resume() {
        for (const peer of peers) peer.hold(false);
      },
      fingerprint: () => fingerprint(parts),
      close,
    };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

async function startManager(options: {
  redisUrl: string;
  databaseUrl: string;
  storageRoot: string;
  peers: readonly Peer[];
  token: string;
}): Promise<{ process: ManagedProcess; url: string }> {
  const process = startProcess({
    name: "index-manager",
    script: managerScript,
    env: {
      REDIS_URL: options.redisUrl,
      DATABASE_URL: options.databaseUrl,
      LIM_STORAGE_ROOT: options.storageRoot,
      LIM_MANAGER_HOST: "127.0.0.1",
      LIM_MANAGER_PORT: "0",
      LIM_API_TOKEN: options.token,
      LIM_INDEXERS: options.peers.map((peer) => peer.origin).join(","),
      LIM_LOOKUP_PERIOD_MS: String(lookupPeriodMs),
      LIM_MIN_INDEXING_LIST_SIZE: "1",
      LIM_DESCRIPTOR_DIM: String(dim),
      LIM_DESCRIPTOR_VERSION: String(descriptorVersion),
      LIM_RETRY_BACKOFF_MS: "100",
      // One plan at the start; from then on only requests and builds change anything.
      LIM_PLANNING_SETTLE_MS: "0",
      LIM_PLANNING_PERIOD_S: "31536000",
      // The first run of retention comes after half a minute all the same: it finds nothing to remove.
      LIM_RETENTION_PERIOD_MS: "86400000",
      LIM_KEEP_VERSIONS: "1000",
    },
  });
  try {
    const line = await process.waitForLine(/index-manager listening/, { timeoutMs: 30_000 });
    const { url } = JSON.parse(line) as { url: string };
    return { process, url };
  } catch (thrown) {
    await process.stop();
    throw thrown;
  }
}

function learn(pools: Map<PoolName, string[]>, operation: string, body: string): void {
  for (const [, cursor] of body.matchAll(/"next_cursor":"([^"]+)"/g))
    if (cursor !== undefined) remember(pools, `cursors of ${operation}`, [cursor]);
  // A few of each answer: the newest are the most telling.
  const ids = (name: string) =>
    [...body.matchAll(new RegExp(`"${name}":"([^"]+)"`, "g"))].slice(0, 5).map((match) => match[1] ?? "");
  remember(pools, "tasks", ids("task_id"));
  remember(pools, "indexes", ids("index_id"));
}

function remember(pools: Map<PoolName, string[]>, pool: PoolName, values: readonly string[]): void {
  const known = pools.get(pool) ?? [];
  pools.set(pool, [...new Set([...values, ...known])].slice(0, most.learned));
}

async function allTasks(store: TaskStore): Promise<Task[]> {
  const tasks: Task[] = [];
  let cursor: string | undefined;
  do {
    const page = await store.find({}, { limit: 1_000, ...(cursor === undefined ? {} : { cursor }) });
    tasks.push(...page.tasks);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return tasks;
}

const isOpen = ({ status }: Task) => status === "pending" || status === "indexing";

async function replenish({ store, storage, db, lists, pools }: Parts): Promise<void> {
  const tasks = await allTasks(store);
  const ended = tasks.filter((task) => !isOpen(task));
  if (ended.length > most.tasks) await store.remove(ended.slice(most.tasks / 2).map((task) => task.task_id));
  const busy = new Set(tasks.filter(isOpen).map((task) => task.content.list_id));
  for (const [i, listId] of lists
    .filter((one) => !busy.has(one))
    .slice(0, Math.max(0, least.open - busy.size))
    .entries())
    await store.create({
      taskId: randomUUID(),
      listId,
      mode: i % 2 === 0 ? "rebuild" : "update",
      trigger: "request",
      priority: priorities[i % priorities.length] ?? "default",
    });
  const { indexes } = await storage.list();
  for (const { indexId } of indexes.slice(most.indexes)) await storage.remove({ indexId });
  for (let i = indexes.length; i < least.indexes; i++)
    await publish(
      { db, storage },
      { listId: lists[i % 4] ?? "", indexId: randomUUID(), attempt: 1, mode: "rebuild" },
    );
  remember(
    pools,
    "tasks",
    tasks.slice(0, 40).map((task) => task.task_id),
  );
  remember(
    pools,
    "indexes",
    indexes.map((index) => index.indexId),
  );
}

/**
 * Held peers take what there is and end nothing. It is still once every peer builds or nothing waits, and the records
 * say what the peers do: from then on the master has nothing to change.
 */
async function hold(parts: Parts): Promise<void> {
  const { peers, store } = parts;
  for (const peer of peers) peer.hold(true);
  let before: string[] = [];
  await eventually(
    "the surroundings are still",
    async () => {
      await sleep(2 * lookupPeriodMs);
      const now = await fingerprint(parts);
      const wasStill = now.join() === before.join();
      before = now;
      const built = peers.flatMap((peer) => peer.building() ?? []).toSorted();
      const { count } = await store.queue({ limit: 1 });
      const indexing = (await store.indexing()).map((task) => task.task_id).toSorted();
      const isBusy = count === 0 || built.length === peers.length;
      const isSettled = wasStill && isBusy && !peers.some((peer) => peer.isEnding());
      return isSettled && indexing.join() === built.join() ? true : undefined;
    },
    { timeoutMs: 20_000 },
  );
}

async function fingerprint({ store, storage }: Parts): Promise<string[]> {
  const [tasks, queue, { indexes }] = await Promise.all([
    allTasks(store),
    store.queue({ limit: 1_000 }),
    storage.list(),
  ]);
  return [
    ...tasks.map(
      (task) => `task ${task.task_id} ${task.status} ${task.attempt} ${task.priority} ${task.mode}`,
    ),
    ...queue.tasks.map((task, place) => `queue ${place} ${task.task_id}`),
    ...indexes.map((index) => `index ${index.indexId}`).toSorted(),
  ];
}
