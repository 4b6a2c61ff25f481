import { LimError } from "@lim/contracts";
import { Redis } from "ioredis";
import { guarded } from "./failures.ts";
import type { Log } from "./log.ts";
import type { RedisConnection } from "./port.ts";
import { measureClock } from "./server-clock.ts";

/** Longest that a command may take on the command connection, reconnecting included. */
const commandTimeoutMs = 2_000;
const connectTimeoutMs = 2_000;
/** A connection that owes an answer for longer is taken for dead (half-open after a network split) and made anew. */
const socketTimeoutMs = 5_000;
/** Reconnection goes on for ever, waiting this long at most between tries. */
const maxReconnectDelayMs = 1_000;
const reconnectStepMs = 50;
/** XAUTOCLAIM names lost entries only from here on. */
const minMajorVersion = 7;

interface Wiring {
  command: Redis;
  blocking: Set<Redis>;
  log: Log | undefined;
  closed: boolean;
}
const wirings = new WeakMap<RedisConnection, Wiring>();

function wiringOf(redis: RedisConnection): Wiring {
  const wiring = wirings.get(redis);
  if (!wiring) throw new LimError("internal", "not a connection made by connectRedis");
  return wiring;
}

/** For the room's own files: the client for commands that answer at once. Never block on it. */
export function commandClient(redis: RedisConnection): Redis {
  return wiringOf(redis).command;
}

/**
 * For the room's own files: an own connection for one blocking reader that never asks for a longer BLOCK than
 * `maxBlockMs`. Commands wait for the server for ever, so end them by `disconnect()`, which its owner calls; closing
 * the connection disconnects those left.
 */
export function blockingClient(redis: RedisConnection, name: string, maxBlockMs: number): Redis {
  const wiring = wiringOf(redis);
  if (wiring.closed) throw new LimError("redis_unavailable", "the connection was closed");
  const client = wiring.command.duplicate({
    commandTimeout: undefined,
    maxRetriesPerRequest: null,
    socketTimeout: maxBlockMs + socketTimeoutMs,
    connectionName: `${wiring.command.options.connectionName ?? "lim"}-${name}`,
  });
  watchConnection(client, wiring.log, name);
  wiring.blocking.add(client);
  client.once("end", () => wiring.blocking.delete(client));
  return client;
}

export function connectRedis(options: { url: string; name: string; log?: Log }): RedisConnection {
  const place = placeOf(options.url);
  const command = new Redis(options.url, {
    // Redis refuses names with blanks.
    connectionName: options.name.replaceAll(/[^\x21-\x7e]/g, "_"),
    connectTimeout: connectTimeoutMs,
    commandTimeout: commandTimeoutMs,
    socketTimeout: socketTimeoutMs,
    maxRetriesPerRequest: 1,
    retryStrategy: (times) => Math.min(times * reconnectStepMs, maxReconnectDelayMs),
    // After a failover the old primary answers READONLY: reconnect, and send the command again.
    reconnectOnError: (error) => (error.message.startsWith("READONLY") ? 2 : false),
  });
  const wiring: Wiring = { command, blocking: new Set(), log: options.log, closed: false };
  watchConnection(command, options.log, options.name);
  const connection: RedisConnection = {
    ping: (cancel) =>
      guarded(`PING ${place}`, cancel?.signal, async () => {
        await command.ping();
      }),
    checkServer: (cancel) =>
      guarded(`INFO ${place}`, cancel?.signal, async () => judgeServer(await command.info(), place)),
    time: (cancel) => guarded(`TIME ${place}`, cancel?.signal, () => measureClock(command)),
    async close() {
      wiring.closed = true;
      for (const client of wiring.blocking) client.disconnect();
      // QUIT lets what was already sent be answered.
      if (command.status === "ready") await command.quit().catch(() => undefined);
      command.disconnect();
    },
  };
  wirings.set(connection, wiring);
  return connection;
}

/** Host and port for messages. */
function placeOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // The text itself may hold a password: it never gets into the message.
  if (!url || (url.protocol !== "redis:" && url.protocol !== "rediss:") || url.hostname === "")
    throw new LimError("bad_settings", "the Redis URL must read redis://host:port or rediss://host:port");
  if (url.pathname !== "" && !/^\/\d*$/.test(url.pathname))
    throw new LimError("bad_settings", "the Redis URL's path must be the number of a database");
  return `${url.protocol}//${url.hostname}:${url.port || "6379"}`;
}

/** Says once that the server is gone and once that it is back, instead of once per try. */
function watchConnection(client: Redis, log: Log | undefined, name: string): void {
  let down = false;
  client.on("error", (error: Error) => {
    if (down) return;
    down = true;
    log?.warn({ connection: name, reason: error.message }, "Redis is not reachable, reconnecting");
  });
  client.on("ready", () => {
    if (down) log?.info({ connection: name }, "Redis is reachable again");
    down = false;
  });
}

/** INFO holds all of it, so no right to CONFIG is needed. */
function judgeServer(info: string, place: string): { version: string } {
  const fields = new Map<string, string>();
  for (const line of info.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  const version = fields.get("redis_version") ?? "";
  const major = Number.parseInt(version, 10);
  if (!(major >= minMajorVersion))
    throw new LimError(
      "bad_settings",
      `${place} is version ${version || "unknown"}; LIM needs Redis ${minMajorVersion}.0 or newer, or Valkey`,
    );
  const policy = fields.get("maxmemory_policy") ?? "unknown";
  if (policy !== "noeviction")
    throw new LimError(
      "bad_settings",
      `${place} evicts keys (maxmemory-policy ${policy}), which would lose requests and tasks; run: redis-cli CONFIG SET maxmemory-policy noeviction, and put it into redis.conf`,
    );
  if (fields.get("role") !== "master")
    throw new LimError("bad_settings", `${place} is a read-only replica; point the URL at the primary`);
  return { version };
}
