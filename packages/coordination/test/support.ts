import { randomUUID } from "node:crypto";
import { startTestRedis } from "@lim/testkit";
import { Redis } from "ioredis";
import { connectRedis } from "../src/connection.ts";
import { defaultKeyNames } from "../src/keys.ts";
import type { KeyNames, RedisConnection } from "../src/port.ts";

export interface RedisFixture {
  url: string;
  /** For looking at and damaging what is stored. */
  raw: Redis;
  connect(): RedisConnection;
  /** Stops the server and starts it again, empty. */
  restart(): Promise<void>;
  pids: readonly number[];
  close(): Promise<void>;
}

/** A private server and whatever connections a test file makes to it. */
export async function startFixture(): Promise<RedisFixture> {
  const server = await startTestRedis();
  const raw = new Redis(server.url, { retryStrategy: () => 50 });
  raw.on("error", () => undefined);
  const connections: RedisConnection[] = [];
  return {
    url: server.url,
    raw,
    connect() {
      const connection = connectRedis({ url: server.url, name: "test" });
      connections.push(connection);
      return connection;
    },
    restart: () => server.restart(),
    get pids() {
      return server.pids;
    },
    async close() {
      for (const connection of connections) await connection.close();
      raw.disconnect();
      await server.stop();
    },
  };
}

/** Names that no other test of the file shares. */
export function freshKeyNames(): KeyNames {
  const tag = randomUUID().slice(0, 8);
  return { ...defaultKeyNames, masterLock: `master-${tag}`, matcherLockPrefix: `matcher-${tag}` };
}
