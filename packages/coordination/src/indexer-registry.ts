import { randomUUID } from "node:crypto";
import { LimError } from "@lim/contracts";
import type { Redis } from "ioredis";
import { commandClient, primariesOf } from "./connection.ts";
import { abortedError, guarded, pause, redisFailure } from "./failures.ts";
import { fixedKeys } from "./keys.ts";
import type { Log } from "./log.ts";
import { loadScript, runScript } from "./lua.ts";
import type { Cancellable, IndexerRegistry, RedisConnection } from "./port.ts";

const renewalsPerTtl = 3;
const scanCount = 1_000;
/** Far past any deployment's keys: a scan that needs more runs into keys that are not LIM's. */
const maxScanRounds = 1_000;

const removeRegistration = loadScript("registration_remove", Number);

export function createIndexerRegistry(options: { redis: RedisConnection; log?: Log }): IndexerRegistry {
  const { redis, log } = options;
  return {
    announce: (request) => announce(redis, request, log),
    origins: (cancel) => scanOrigins(redis, cancel),
  };
}

async function announce(
  redis: RedisConnection,
  { origin, ttlMs, signal }: { origin: string; ttlMs: number; signal: AbortSignal },
  log: Log | undefined,
): Promise<void> {
  const client = commandClient(redis);
  const key = fixedKeys.indexer(origin);
  // Tells this process' registration from that of a successor at the same origin.
  const value = randomUUID();
  let failing = false;
  while (!signal.aborted) {
    try {
      await guarded("announce indexer", signal, () => client.set(key, value, "PX", ttlMs));
      failing = false;
    } catch (thrown) {
      if (!failing && !signal.aborted)
        log?.warn(
          { origin, reason: redisFailure(thrown, "announce").message },
          "Indexer could not be announced",
        );
      failing = true;
    }
    await pause(ttlMs / renewalsPerTtl, signal);
  }
  // Where Redis is away the key expires by itself.
  await runScript(client, removeRegistration, { keys: [key], args: [value] }).catch(() => undefined);
}

async function scanOrigins(redis: RedisConnection, options: Cancellable | undefined): Promise<string[]> {
  const origins = new Set<string>();
  const servers = await guarded("list indexers", options?.signal, () => primariesOf(redis));
  await Promise.all(
    servers.map(async (server) => {
      for (const key of await scanKeys(server, options)) origins.add(fixedKeys.originOfIndexer(key));
    }),
  );
  return [...origins].sort();
}

async function scanKeys(server: Redis, options: Cancellable | undefined): Promise<Set<string>> {
  const found = new Set<string>();
  let cursor = "0";
  for (let round = 0; round < maxScanRounds; round++) {
    if (options?.signal?.aborted) throw abortedError(options.signal);
    const [next, keys] = await guarded("list indexers", options?.signal, () =>
      server.scan(cursor, "MATCH", fixedKeys.indexerPattern, "COUNT", scanCount),
    );
    for (const key of keys) found.add(key);
    if (next === "0") return found;
    cursor = next;
  }
  throw new LimError("overloaded", `Redis holds over ${scanCount * maxScanRounds} keys; give LIM its own`);
}
