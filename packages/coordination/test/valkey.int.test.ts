import { findOnPath } from "@lim/local-servers";
import { startTestRedis } from "@lim/testkit";
import { describe, expect, it } from "vitest";
import { connectRedis } from "../src/connection.ts";
import { createLabelLocks } from "../src/label-locks.ts";
import type { RedisConnection } from "../src/port.ts";
import { streamFixture } from "./stream-support.ts";
import { freshKeyNames } from "./support.ts";

const program = await findOnPath(["valkey-server"]);

describe.skipIf(!program)(`Valkey${program ? "" : " (left out: no valkey-server on PATH)"}`, () => {
  it("takes requests, answers and locks as Redis does", async () => {
    const server = await startTestRedis(program ? { program } : {});
    const connections: RedisConnection[] = [];
    const connect = () => {
      const connection = connectRedis({ url: server.url, name: "test" });
      connections.push(connection);
      return connection;
    };
    const streams = streamFixture({ url: server.url, connect });
    await connect().checkServer();
    const { consumer } = await streams.consume();
    const replies = Array.from({ length: 50 }, () => streams.request());
    for (const reply of await Promise.all(replies)) expect(reply.status_code).toBe(200);
    const lock = await createLabelLocks({ redis: connect(), keys: freshKeyNames() }).tryAcquire("a", {
      ttlMs: 10_000,
    });
    expect(lock).toBeDefined();
    await lock?.release();
    expect(consumer.stats().invalid).toBe(0);
    await streams.close();
    for (const connection of connections) await connection.close();
    await server.stop();
  });
});
