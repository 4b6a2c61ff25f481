import { isLimError } from "@lim/contracts";
import {
  connectRedis,
  createDeadLetters,
  createIndexerRegistry,
  createLeaderElection,
  createTaskStore,
  defaultKeyNames,
  type RedisConnection,
} from "@lim/coordination";
import { type FacesDb, openFacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import { createLogger, type HealthCheck, type Logger, Registry } from "@lim/service-kit";
import { buildApp, service } from "./app.ts";
import { createIndexerClient } from "./indexer-client.ts";
import { type MasterDeps, runMaster } from "./master.ts";
import { createManagerMetrics } from "./metrics.ts";
import { createPreviews } from "./previews.ts";
import { repeat } from "./routine.ts";
import { type Settings, scheduleOf } from "./settings.ts";
import { assertStorageThere } from "./storage-check.ts";

const startRetryMs = 1_000;

/** Runs a manager until the signal fires. Throws bad_settings where what it was pointed at can never work. */
export async function runManager(settings: Settings, signal: AbortSignal): Promise<void> {
  const log = createLogger({ service, level: settings.logLevel });
  const redis = connectRedis({ url: settings.redisUrl, name: service, log });
  const db = openFacesDb({ connectionString: settings.databaseUrl, applicationName: service });
  try {
    const storage = await openIndexStorage({ root: settings.storageRoot });
    await serve(settings, { log, redis, db, storage }, signal);
  } finally {
    await Promise.allSettled([redis.close(), db.close()]);
  }
}

async function serve(
  settings: Settings,
  resources: { log: Logger; redis: RedisConnection; db: FacesDb; storage: IndexStorage },
  signal: AbortSignal,
): Promise<void> {
  const { log, redis, db, storage } = resources;
  const keys = { ...defaultKeyNames, masterLock: settings.masterLock };
  const registry = new Registry();
  const election = createLeaderElection({ redis, keys, leaseTtlMs: settings.leaseTtlMs, log });
  const store = createTaskStore({ redis, keys, log });
  let ready = false;
  const metrics = createManagerMetrics(registry);
  const deps: MasterDeps = {
    ...masterSettings(settings),
    store,
    storage,
    db,
    log,
    registry: createIndexerRegistry({ redis, log }),
    client: createIndexerClient(log, settings.apiToken),
    deadLetters: createDeadLetters({ redis, log }),
    metrics,
    nowMs: async (of) => (await redis.time({ signal: of })).redisMs,
  };
  const app = await buildApp({
    store,
    db,
    storage,
    previews: createPreviews(deps),
    descriptorVersion: settings.descriptorVersion,
    logger: log,
    apiToken: settings.apiToken,
    metrics: registry,
    progressStreams: metrics.progressStreams,
    stopping: signal,
    health: healthChecks(resources),
    isReady: () => ready,
    isMaster: () => election.isLeader(),
  });
  try {
    const url = await app.listen({ host: settings.host, port: settings.port });
    await untilUsable(resources, signal);
    if (signal.aborted) return;
    ready = true;
    log.info({ url }, "index-manager listening");
    await runMaster(deps, election, signal);
  } finally {
    ready = false;
    await app.close();
  }
}

function masterSettings(settings: Settings) {
  return {
    staticOrigins: settings.indexers ?? [],
    build: {
      engine: settings.engine,
      params: { m: settings.m, ef_construction: settings.efConstruction },
      descriptor_version: settings.descriptorVersion,
      dim: settings.descriptorDim,
    },
    schedule: scheduleOf(settings),
    settleMs: settings.planningSettleMs,
    wanted: settings.wanted,
    minFaces: settings.minIndexingListSize,
    rules: {
      rebuildDefault: settings.rebuildDefault,
      maxRemovalForRebuild: settings.maxRemovalForRebuild,
      maxRemovalRatio: settings.maxRemovalRatio,
    },
    keepVersions: settings.keepVersions,
    keepTasks: settings.keepTasks,
    taskRetentionMs: settings.taskRetentionS * 1000,
    deletedListGraceMs: settings.deletedListGraceS * 1000,
    deadLetterRetentionMs: settings.deadLetterRetentionS * 1000,
    feedRetentionMs: settings.feedRetentionS * 1000,
    retryBackoffMs: settings.retryBackoffMs,
    lookupPeriodMs: settings.lookupPeriodMs,
    retentionPeriodMs: settings.retentionPeriodMs,
  };
}

function healthChecks({
  redis,
  db,
  storage,
}: {
  redis: RedisConnection;
  db: FacesDb;
  storage: IndexStorage;
}): HealthCheck[] {
  return [
    { name: "redis", check: (signal) => redis.ping({ signal }) },
    { name: "postgres", check: (signal) => db.ping({ signal }) },
    {
      name: "storage",
      check: () => assertStorageThere(storage.root),
    },
  ];
}

/**
 * Waits for Redis and Postgres, which may start later, and applies missing migrations (one manager does, under a lock in
 * Postgres; the others find them applied). What waiting cannot mend (bad_settings) is thrown.
 */
async function untilUsable(
  { log, redis, db }: { log: Logger; redis: RedisConnection; db: FacesDb },
  signal: AbortSignal,
): Promise<void> {
  const usable = new AbortController();
  let unmendable: unknown;
  await repeat(
    "start",
    async () => {
      try {
        await redis.checkServer({ signal });
        const { applied } = await db.migrate({ signal });
        if (applied.length > 0) log.info({ applied }, "migrations applied to Postgres");
        usable.abort();
      } catch (thrown) {
        if (!isLimError(thrown, "bad_settings")) throw thrown;
        unmendable = thrown;
        usable.abort();
      }
      return { nextAfterMs: 0 };
    },
    { failurePauseMs: startRetryMs, log, signal: AbortSignal.any([signal, usable.signal]) },
  );
  if (unmendable !== undefined) throw unmendable;
}
