import { randomUUID } from "node:crypto";
import { matchRequestFieldsSchema, parseMatchReply } from "@lim/contracts";
import { eventually, startTestRedisCluster, type TestRedisCluster } from "@lim/testkit";
import { Cluster } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { blockingClient, commandClient, connectRedis, unblock } from "../src/connection.ts";
import { createIndexerRegistry } from "../src/indexer-registry.ts";
import { defaultKeyNames, fixedKeys, Keys, keysOf } from "../src/keys.ts";
import { createLabelLocks } from "../src/label-locks.ts";
import { createLabelAnnouncer } from "../src/labels/announcer.ts";
import { createLabelWatcher } from "../src/labels/watcher.ts";
import { createLeaderElection } from "../src/leader-election.ts";
import type { MatchEntry, RedisConnection } from "../src/port.ts";
import { slotOf } from "../src/slots.ts";
import { writeRepliesAcross } from "../src/streams/cluster-replies.ts";
import { createTaskStore } from "../src/task-store.ts";
import { descriptor, echoOf, type StreamFixture, streamFixture } from "./stream-support.ts";
import { freshKeyNames } from "./support.ts";

let cluster: TestRedisCluster;
let raw: Cluster;
const connections: RedisConnection[] = [];
const cleanUps: (() => Promise<void>)[] = [];

beforeAll(async () => {
  cluster = await startTestRedisCluster();
  raw = new Cluster(cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port })));
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});
afterAll(async () => {
  for (const connection of connections) await connection.close();
  raw?.disconnect();
  await cluster?.stop();
});

function connect(): RedisConnection {
  const connection = connectRedis({ url: cluster.url, name: "test" });
  connections.push(connection);
  return connection;
}
function streamsOf(options?: { matchStreamPrefix?: string }): StreamFixture {
  const streams = streamFixture({ url: cluster.url, connect }, options);
  cleanUps.push(() => streams.close());
  return streams;
}
const labelsOf = (count: number) => Array.from({ length: count }, () => randomUUID());
const portsOf = async (keys: readonly string[]) =>
  new Set(await Promise.all(keys.map((key) => cluster.portOf(key))));
/** So many that not all of them lie on one node, but once in ten million runs. */
const many = 16;

describe("a Redis Cluster", () => {
  it("is checked node by node, and not taken for one server", async () => {
    const redis = connect();
    expect((await redis.checkServer()).version).toMatch(/^\d+\.\d+/);
    await redis.ping();
    const { redisMs } = await redis.time();
    expect(redisMs).toBeGreaterThan(0);
    const node = raw.nodes("master")[2];
    await node?.config("SET", "maxmemory-policy", "allkeys-lru");
    await expect(redis.checkServer()).rejects.toMatchObject({
      errorName: "bad_settings",
      detail: expect.stringContaining(`:${node?.options.port} evicts keys`),
    });
    await node?.config("SET", "maxmemory-policy", "noeviction");
    const single = connectRedis({ url: `redis://127.0.0.1:${node?.options.port}`, name: "single" });
    await expect(single.checkServer()).rejects.toMatchObject({
      errorName: "bad_settings",
      detail: expect.stringContaining("redis-cluster://"),
    });
    await single.close();
  });

  it("a reader blocks at the node of its key, and is woken there", async () => {
    const redis = connect();
    for (const key of labelsOf(4)) {
      const reader = blockingClient(redis, "reader", 60_000, key);
      const id = await reader.client("ID");
      const block = reader.blpop(key, 60);
      const port = await cluster.portOf(key);
      const node = raw.nodes("master").find(({ options }) => options.port === port);
      await eventually("the reader blocks", async () =>
        (await node?.info("clients"))?.includes("blocked_clients:1") ? true : undefined,
      );
      expect(await unblock(redis, reader, id)).toBe(true);
      expect(await block).toBeNull();
      reader.disconnect();
    }
  });

  it("computes the same slots", async () => {
    for (const key of ["", "foo", "{user}.a", "a{}{b}", "x{{y}}z", "é{ü}", ...labelsOf(5)])
      expect(await raw.cluster("KEYSLOT", key)).toBe(slotOf(key));
  });
});

describe("match streams", () => {
  it("I6: labels and clients on all nodes: every request gets its answer, and nothing is left", async () => {
    const streams = streamsOf();
    const other = streamsOf({ matchStreamPrefix: streams.keys.matchStreamPrefix });
    const labels = labelsOf(many);
    const keys = keysOf(connect(), streams.keys);
    const names = labels.map((label) => keys.matchStream(label));
    expect((await portsOf(names)).size).toBeGreaterThan(1);
    const first = await streams.consume({ labels });
    await streams.consume({ labels, batchSize: 4 });
    const asked = [streams, other].flatMap(({ request }) =>
      labels.flatMap((label) => Array.from({ length: 10 }, () => request({ label }))),
    );
    for (const reply of await Promise.all(asked)) expect(reply.status_code).toBe(200);
    await eventually("no entry is left", async () => {
      const lengths = await Promise.all(names.map((name) => raw.xlen(name)));
      return lengths.every((length) => length === 0) ? true : undefined;
    });
    await first.consumer.setLabels(labels.slice(0, 3));
    const added = randomUUID();
    await first.consumer.setLabels([...labels.slice(0, 3), added]);
    expect((await streams.request({ label: added })).status_code).toBe(200);
  });

  it("named as the label alone, as other clients name them, answer over a channel too", async () => {
    const streams = streamsOf({ matchStreamPrefix: "" });
    const labels = labelsOf(4);
    await streams.consume({ labels });
    const replies = labels.map((label) => streams.request({ label }));
    for (const reply of await Promise.all(replies)) expect(reply.status_code).toBe(200);
    const channel = `channel-${randomUUID()}`;
    const subscriber = raw.duplicate();
    cleanUps.push(async () => subscriber.disconnect());
    const heard = new Promise<string>((resolve) => subscriber.on("message", (_, text) => resolve(text)));
    await subscriber.subscribe(channel);
    const fields = ["rid", "r1", "descriptor", descriptor, "response_channel", channel];
    await raw.xadd(labels[0] ?? "", "*", ...fields);
    expect(parseMatchReply(await heard)).toMatchObject({ rid: "r1", status_code: 200 });
  });

  it("I6: slots of a match stream and of a reply stream move to other nodes under load", async () => {
    const streams = streamsOf();
    const stream = keysOf(connect(), streams.keys).matchStream(streams.label);
    await streams.consume();
    let going = true;
    let answered = 0;
    const callers = Array.from({ length: 4 }, async () => {
      while (going) {
        expect((await streams.request()).status_code).toBe(200);
        answered++;
      }
    });
    const more = async () => {
      const enough = answered + 20;
      await eventually("more answers", () => (answered >= enough ? true : undefined));
    };
    await more();
    const replyStreams = (
      await Promise.all(raw.nodes("master").map((node) => node.keys("lim_reply:*")))
    ).flat();
    expect(replyStreams.length).toBeGreaterThan(0);
    for (const key of [stream, ...replyStreams]) {
      const from = await cluster.portOf(key);
      await cluster.moveSlotOf(key, cluster.nodes.find(({ port }) => port !== from)?.port ?? 0);
      expect(await cluster.portOf(key)).not.toBe(from);
      await more();
    }
    going = false;
    await Promise.all(callers);
  });
});

describe("answers to several nodes", () => {
  it("I6: of which one takes none: its requests stay, those of the others are done", async () => {
    const redis = connect();
    const names = { ...freshKeyNames(), matchStreamPrefix: "" };
    const label = randomUUID();
    const home = await cluster.portOf(label);
    const replyStreamAt = async (isHome: boolean): Promise<string> => {
      for (;;) {
        const name = fixedKeys.replyStream(randomUUID());
        if (((await cluster.portOf(name)) === home) === isHome) return name;
      }
    };
    const [near, far] = [await replyStreamAt(true), await replyStreamAt(false)];
    for (const stream of [near, far]) await raw.xadd(stream, "*", "hello", "1");
    await raw.xgroup("CREATE", label, names.consumerGroup, "0", "MKSTREAM");
    const answers = [near, far].map((stream) => ({ stream, rid: randomUUID() }));
    const written = answers.map(async ({ stream, rid }) => {
      const fields = ["rid", rid, "descriptor", descriptor, "response_stream", stream];
      const entryId = (await raw.xadd(label, "*", ...fields)) ?? "";
      const request = {
        fields: matchRequestFieldsSchema.parse({ rid, response_stream: stream }),
        descriptor,
      };
      const entry: MatchEntry = { label, entryId, deliveries: 1, waitedMs: 0, deadlineMs: 0, rid, request };
      return { entry, reply: echoOf(entry) };
    });
    const both = await Promise.all(written);
    await raw.xreadgroup("GROUP", names.consumerGroup, "me", "STREAMS", label, ">");
    const farPort = await cluster.portOf(far);
    const farNode = raw.nodes("master").find(({ options }) => options.port === farPort);
    const write = () => writeRepliesAcross(commandClient(redis), keysOf(redis, names), both, undefined);
    await farNode?.config("SET", "min-replicas-to-write", "1");
    await expect(write()).rejects.toMatchObject({ errorName: "redis_unavailable" });
    await farNode?.config("SET", "min-replicas-to-write", "0");
    expect(await raw.xrange(label, "-", "+")).toEqual([[both[1]?.entry.entryId, expect.anything()]]);
    expect(await raw.xlen(near)).toBe(2);
    expect(await raw.xlen(far)).toBe(1);
    await write();
    expect(await raw.xlen(label)).toBe(0);
    expect(await raw.xlen(far)).toBe(2);
  });
});

describe("label keys", () => {
  it("of all nodes are seen, and their end", async () => {
    const labels = labelsOf(many);
    const matcher = "host:1";
    const announcer = createLabelAnnouncer({
      redis: connect(),
      matcherId: matcher,
      ttlMs: 30_000,
      renewMs: 200,
    });
    const watcher = createLabelWatcher({ redis: connect(), ttlMs: 30_000, pollMs: 50 });
    cleanUps.push(
      () => announcer.close(),
      () => watcher.close(),
    );
    const value = {
      index_id: randomUUID(),
      revision: 4,
      descriptor_version: 1,
      dim: 16,
      count: 3,
      engine: "hnsw" as const,
    };
    for (const label of labels) await announcer.announce(label, value);
    const keys = labels.map((label) => fixedKeys.labelKey(label, matcher));
    expect((await portsOf(keys)).size).toBeGreaterThan(1);
    expect(JSON.parse((await raw.get(keys[0] ?? "")) ?? "")).toEqual(value);
    await eventually("all labels", () =>
      labels.every((label) => watcher.served(label)[0]?.value.revision === 4) ? true : undefined,
    );
    await announcer.withdraw(labels[0] ?? "");
    await eventually("one less", () => (watcher.served(labels[0] ?? "").length === 0 ? true : undefined));
    expect(await raw.exists(keys[0] ?? "")).toBe(0);
    expect(watcher.labels().size).toBe(many - 1);
  });
});

describe("locks, indexers and tasks", () => {
  it("exclude each other, on whichever node the lock lies", async () => {
    const keys = freshKeyNames();
    const [one, other] = [connect(), connect()].map((redis) => createLabelLocks({ redis, keys }));
    for (const label of labelsOf(6)) {
      const lock = await one?.tryAcquire(label, { ttlMs: 10_000 });
      expect(lock).toBeDefined();
      expect(await other?.tryAcquire(label, { ttlMs: 10_000 })).toBeUndefined();
      await lock?.release();
    }
  });

  it("indexers of all nodes are found", async () => {
    const registry = createIndexerRegistry({ redis: connect() });
    const stop = new AbortController();
    const origins = Array.from({ length: many }, (_, at) => `http://127.0.0.1:${5_000 + at}`);
    const announced = origins.map((origin) =>
      registry.announce({ origin, ttlMs: 30_000, signal: stop.signal }),
    );
    await eventually("all origins", async () =>
      (await registry.origins()).length === many ? true : undefined,
    );
    stop.abort();
    await Promise.all(announced);
    expect(await registry.origins()).toEqual([]);
  });

  it("a master is elected and carries a task to its end", async () => {
    const names = freshKeyNames();
    const [redis, keys] = [connect(), new Keys(names)];
    expect(new Set([keys.masterLock, keys.epoch, keys.task("x"), keys.queue].map(slotOf)).size).toBe(1);
    const store = createTaskStore({ redis, keys: names });
    const stop = new AbortController();
    const [taskId, listId] = [randomUUID(), randomUUID()];
    const led = createLeaderElection({ redis, keys: names, leaseTtlMs: 10_000 }).run(
      async ({ epoch }) => {
        await store.create({
          taskId,
          listId,
          mode: "rebuild",
          trigger: "request",
          idempotency: { key: "k", fingerprint: "f" },
        });
        const dispatched = await store.dispatch({ taskId, indexer: "http://i", epoch });
        expect(dispatched).toEqual({ ok: true, attempt: 1 });
        const ended = { taskId, attempt: 1, epoch, error: null, endTime: new Date().toISOString() };
        expect((await store.finish(ended)).ok).toBe(true);
        stop.abort();
      },
      { signal: stop.signal },
    );
    await led;
    const page = await store.find({ statuses: ["success"], listId }, { limit: 10 });
    expect(page.tasks.map(({ task_id }) => task_id)).toEqual([taskId]);
    expect((await store.remove([taskId])).map(({ task_id }) => task_id)).toEqual([taskId]);
    expect(defaultKeyNames.masterLock).not.toMatch(/[{}]/);
  });
});
