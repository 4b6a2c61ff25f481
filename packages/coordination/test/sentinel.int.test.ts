import { randomUUID } from "node:crypto";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { isLimError } from "@lim/contracts";
import { eventually, startTestRedisSentinels, type TestRedisSentinels } from "@lim/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectRedis } from "../src/connection.ts";
import { createLabelLocks } from "../src/label-locks.ts";
import { createLabelAnnouncer } from "../src/labels/announcer.ts";
import { createLabelWatcher } from "../src/labels/watcher.ts";
import type { RedisConnection } from "../src/port.ts";
import { streamFixture } from "./stream-support.ts";
import { freshKeyNames } from "./support.ts";

let group: TestRedisSentinels;
const connections: RedisConnection[] = [];
beforeAll(async () => {
  group = await startTestRedisSentinels();
});
afterAll(async () => {
  for (const connection of connections) await connection.close();
  await group?.stop();
});

function connect(url = group.url): RedisConnection {
  const connection = connectRedis({ url, name: "test" });
  connections.push(connection);
  return connection;
}

/** A Sentinel that was starved rests for half a minute before it acts. */
const failoverLimitMs = 90_000;
/** Short enough that what a dead primary took along is told within the test. */
const timeoutMs = 3_000;

describe("Redis behind Sentinel", () => {
  it("is not taken for one server where the URL says so", async () => {
    const [sentinel] = group.sentinels;
    await expect(connect(`redis://127.0.0.1:${sentinel?.port}`).checkServer()).rejects.toMatchObject({
      errorName: "bad_settings",
      detail: expect.stringContaining("redis-sentinel://"),
    });
    const replica = group.servers[1];
    await expect(connect(`redis://127.0.0.1:${replica?.port}`).checkServer()).rejects.toMatchObject({
      detail: expect.stringContaining("read-only replica"),
    });
  });

  it("is found by the next Sentinel where the first accepts connections and says nothing", async () => {
    const sockets = new Set<Socket>();
    const silent = createServer((socket) => sockets.add(socket));
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as AddressInfo;
    const redis = connect(group.url.replace("redis-sentinel://", `redis-sentinel://127.0.0.1:${port},`));
    await eventually("the primary", async () => {
      await redis.ping();
      return true;
    });
    expect(sockets.size).toBeGreaterThan(0);
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
  });

  it("I6: a dead primary's requests are answered or their callers told, and the replica goes on", async () => {
    // It takes as long as a command may, so the rest goes on meanwhile.
    const mistaken = expect(
      connect(`redis-cluster://127.0.0.1:${group.servers[1]?.port}`).checkServer(),
    ).rejects.toMatchObject({ errorName: "bad_settings", detail: expect.stringContaining("redis://") });
    const redis = connect();
    await redis.checkServer();
    const streams = streamFixture({ url: group.url, connect: () => connect() });
    await streams.consume();
    const announcer = createLabelAnnouncer({ redis, matcherId: "host:1", ttlMs: 60_000, renewMs: 100 });
    const watcher = createLabelWatcher({ redis: connect(), ttlMs: 60_000, pollMs: 50 });
    await announcer.announce(streams.label, {
      index_id: randomUUID(),
      revision: 4,
      descriptor_version: 1,
      dim: 16,
      count: 3,
      engine: "hnsw",
    });
    await watcher.refresh();
    let answered = 0;
    let going = true;
    const callers = Array.from({ length: 8 }, async () => {
      while (going)
        try {
          expect((await streams.request({ timeoutMs })).status_code).toBe(200);
          answered++;
        } catch (thrown) {
          if (!isLimError(thrown, "redis_unavailable") && !isLimError(thrown, "request_expired"))
            throw thrown;
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
    });
    await eventually("requests are answered", () => (answered > 50 ? true : undefined));
    await mistaken;
    const killed = await group.killPrimary();
    await eventually(
      "another primary",
      async () => ((await group.primaryPort()) === killed ? undefined : true),
      { timeoutMs: failoverLimitMs },
    );
    const atFailover = answered;
    await eventually("answers again", () => (answered > atFailover + 50 ? true : undefined));
    going = false;
    await Promise.all(callers);
    await redis.checkServer();
    expect(watcher.served(streams.label)).toHaveLength(1);
    await eventually("the label's key on the new primary", async () => {
      await watcher.refresh();
      return watcher.served(streams.label).length === 1 ? true : undefined;
    });
    const locks = createLabelLocks({ redis, keys: freshKeyNames() });
    const lock = await locks.tryAcquire(streams.label, { ttlMs: 10_000 });
    expect(lock).toBeDefined();
    await lock?.release();
    await announcer.close();
    await watcher.close();
    await streams.close();
  });
});
