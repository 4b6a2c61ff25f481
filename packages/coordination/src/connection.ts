import { LimError, parseRedisUrl, type RedisTarget, redisPlace } from "@lim/contracts";
import { Cluster, Redis } from "ioredis";
import { connectCluster, connectToSlot, nodeOf, type ServerOptions } from "./cluster.ts";
import { guarded } from "./failures.ts";
import type { Log } from "./log.ts";
import type { RedisConnection } from "./port.ts";
import { checkCluster, checkSingle, checkState } from "./server-check.ts";
import { measureClock } from "./server-clock.ts";

/** Longest that a command may take on the command connection, reconnecting included. */
const commandTimeoutMs = 2_000;
const connectTimeoutMs = 2_000;
/** A Sentinel that is silent for so long is left for the next one. */
const sentinelTimeoutMs = 1_000;
/** A connection that owes an answer for longer is taken for dead (half-open after a network split) and made anew. */
const socketTimeoutMs = 5_000;
/** Reconnection goes on for ever, waiting this long at most between tries. */
const maxReconnectDelayMs = 1_000;
const reconnectStepMs = 50;

interface Wiring {
  command: Redis | Cluster;
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

/**
 * For the room's own files: the client for commands that answer at once. Never block on it. In a Redis Cluster it sends
 * each command to the node of its keys; a pipeline's or script's keys must then lie in one slot (`pipelined` sorts that
 * out), and a command without keys goes to any node.
 */
export function commandClient(redis: RedisConnection): Redis {
  // The two have the commands in common, which is all that the room's files use.
  return wiringOf(redis).command as Redis;
}

/** For the room's own files: the cluster that the connection leads to, undefined where it is one server. */
export function clusterOf(redis: RedisConnection): Cluster | undefined {
  const { command } = wiringOf(redis);
  return command instanceof Cluster ? command : undefined;
}

/**
 * For the room's own files: an own connection for one blocking reader of keys of one slot, `key` among them, that never
 * asks for a longer BLOCK than `maxBlockMs`. Commands wait for the server for ever, so end them by `disconnect()`, which
 * its owner calls; closing the connection disconnects those left.
 */
export function blockingClient(redis: RedisConnection, name: string, maxBlockMs: number, key: string): Redis {
  const wiring = wiringOf(redis);
  if (wiring.closed) throw new LimError("redis_unavailable", "the connection was closed");
  const { command } = wiring;
  const shared = command instanceof Cluster ? (command.options.redisOptions ?? {}) : command.options;
  const own: ServerOptions = {
    commandTimeout: undefined,
    maxRetriesPerRequest: null,
    socketTimeout: maxBlockMs + socketTimeoutMs,
    connectionName: `${shared.connectionName ?? "lim"}-${name}`,
  };
  const client =
    command instanceof Cluster
      ? connectToSlot(command, key, { ...shared, ...own, retryStrategy: reconnectDelay })
      : command.duplicate(own);
  watchConnection(client, wiring.log, name);
  wiring.blocking.add(client);
  client.once("end", () => wiring.blocking.delete(client));
  return client;
}

/** Ends the BLOCK of a blocking client by its CLIENT ID; false where it has none under way. */
export async function unblock(redis: RedisConnection, client: Redis, id: number): Promise<boolean> {
  const { command } = wiringOf(redis);
  const server = command instanceof Cluster ? nodeOf(command, client) : command;
  return (await server?.client("UNBLOCK", id)) === 1;
}

/** Results of commands whose keys may lie in any slots: in one round trip, in a Redis Cluster each to its node. */
export async function pipelined(
  redis: RedisConnection,
  commands: readonly (readonly [name: string, ...args: (string | number | Buffer)[]])[],
): Promise<[error: Error | null, result: unknown][]> {
  const { command } = wiringOf(redis);
  if (command instanceof Redis) return (await command.pipeline(commands.map((one) => [...one])).exec()) ?? [];
  return Promise.all(
    commands.map(async ([name, ...args]): Promise<[Error | null, unknown]> => {
      try {
        return [null, await command.call(name, ...args)];
      } catch (thrown) {
        return [thrown instanceof Error ? thrown : new Error(String(thrown)), undefined];
      }
    }),
  );
}

/** Every server that holds keys of its own. */
export async function primariesOf(redis: RedisConnection): Promise<Redis[]> {
  const { command } = wiringOf(redis);
  if (command instanceof Redis) return [command];
  // Its nodes are known once it has answered.
  await command.ping();
  return command.nodes("master");
}

const reconnectDelay = (times: number) => Math.min(times * reconnectStepMs, maxReconnectDelayMs);

/** `url`: see `redisUrlForms` of the contracts. Connects by itself; what is sent meanwhile waits, in bounded time. */
export function connectRedis(options: { url: string; name: string; log?: Log }): RedisConnection {
  const target = parseRedisUrl(options.url);
  const place = redisPlace(target);
  const command = connectTo(target, options.name);
  const wiring: Wiring = { command, blocking: new Set(), log: options.log, closed: false };
  const fault = watchConnection(command, options.log, options.name);
  const ask = <T>(what: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> =>
    guarded(`${what} ${place}`, signal, work).catch((thrown: unknown) => {
      throw explained(thrown, fault());
    });
  const connection: RedisConnection = {
    ping: (cancel) =>
      ask("PING", cancel?.signal, async () => {
        if (command instanceof Cluster) await checkState(command, place);
        else await command.ping();
      }),
    checkServer: (cancel) =>
      ask("INFO", cancel?.signal, () =>
        command instanceof Cluster ? checkCluster(command, place) : checkSingle(command, place),
      ),
    time: (cancel) => ask("TIME", cancel?.signal, () => measureClock(command)),
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

function connectTo(target: RedisTarget, name: string): Redis | Cluster {
  const node: ServerOptions = {
    // Redis refuses names with blanks.
    connectionName: name.replaceAll(/[^\x21-\x7e]/g, "_"),
    connectTimeout: connectTimeoutMs,
    commandTimeout: commandTimeoutMs,
    socketTimeout: socketTimeoutMs,
    maxRetriesPerRequest: 1,
    username: target.username,
    password: target.password,
    ...(target.tls ? { tls: {} } : {}),
    // After a failover the old primary answers READONLY: reconnect, and send the command again.
    reconnectOnError: (error: Error) => (error.message.startsWith("READONLY") ? 2 : false),
  };
  if (target.kind === "cluster")
    return connectCluster(target, { node, commandTimeoutMs, retryStrategy: reconnectDelay });
  if (target.kind === "single")
    return new Redis({ ...node, ...target.nodes[0], db: target.db, retryStrategy: reconnectDelay });
  return new Redis({
    ...node,
    sentinels: target.nodes,
    name: target.name,
    db: target.db,
    sentinelUsername: target.sentinelUsername,
    sentinelPassword: target.sentinelPassword,
    sentinelCommandTimeout: sentinelTimeoutMs,
    enableTLSForSentinelMode: target.tls,
    ...(target.tls ? { sentinelTLS: {} } : {}),
    sentinelRetryStrategy: reconnectDelay,
    // Not the library's failoverDetector: a switch that it hears of while it connects ends the client for good. A primary
    // that hangs is left by socketTimeout.
    retryStrategy: reconnectDelay,
  });
}

/** Says once that the server is gone and once that it is back, instead of once per try. Returns a look at the last fault. */
function watchConnection(
  client: Redis | Cluster,
  log: Log | undefined,
  name: string,
): () => string | undefined {
  let down = false;
  let fault: string | undefined;
  client.on("error", (error: Error) => {
    fault = rootOf(error).message;
    if (down) return;
    down = true;
    log?.warn({ connection: name, reason: fault }, "Redis is not reachable, reconnecting");
  });
  client.on("ready", () => {
    if (down) log?.info({ connection: name }, "Redis is reachable again");
    down = false;
    fault = undefined;
  });
  return () => fault;
}

/** A cluster says only that no node was right; what was wrong with the last one tells more. */
function rootOf(error: Error): Error {
  const last = (error as { lastNodeError?: unknown }).lastNodeError;
  return last instanceof Error ? last : error;
}

/** A command that never left has timed out; why its connection was not made is what helps. */
function explained(thrown: unknown, fault: string | undefined): unknown {
  if (!(thrown instanceof LimError) || thrown.errorName !== "redis_unavailable" || fault === undefined)
    return thrown;
  if (fault.includes("cluster support disabled"))
    return new LimError(
      "bad_settings",
      `${thrown.detail}: the server is no node of a Redis Cluster; name it as redis://`,
    );
  if (/^(NOAUTH|WRONGPASS|NOPERM) /.test(fault))
    return new LimError("bad_settings", `Redis refused the credentials or rights: ${fault}`);
  return thrown.detail.includes(fault)
    ? thrown
    : new LimError("redis_unavailable", `${thrown.detail} (${fault})`);
}
