import { randomUUID } from "node:crypto";
import { isLimError } from "@lim/contracts";
import { connectRedis } from "@lim/coordination";
import { openFacesDb } from "@lim/faces-db";
import { type LoadAdapter, openIndexStorage } from "@lim/index-storage";
import { createLogger, Registry as MetricRegistry, redactText, runService } from "@lim/service-kit";
import { loadEngine } from "@lim/vector-index";
import { buildApp } from "./app.ts";
import { createMatcher, type Matcher } from "./matcher.ts";
import { maxParallelPasses } from "./refresher.ts";
import { Registry } from "./registry.ts";
import { readSettings, settingsHelp } from "./settings.ts";
import { serviceName, serviceVersion } from "./version.ts";

/** Above a running batch and the withdrawal of label keys. */
const forceAfterMs = 15_000;
/** Connections to Postgres beside those of the refresh passes: revisions, loads, health. */
const otherConnections = 4;

async function main(signal: AbortSignal, settingsFile: string | undefined): Promise<void> {
  const settings = readSettings(process.env, settingsFile);
  const log = createLogger({ service: serviceName, level: settings.logLevel });
  const redis = connectRedis({ url: settings.redisUrl, name: serviceName, log });
  const db = openFacesDb({
    connectionString: settings.databaseUrl,
    maxConnections: maxParallelPasses + otherConnections,
    applicationName: "lim-indexed-matcher",
  });
  const loadAdapter: LoadAdapter = (name) => loadEngine(name, { rerank: settings.rerank });
  const storage = await openIndexStorage({ root: settings.storageRoot, loadAdapter });
  const registry = new Registry();
  const metrics = new MetricRegistry();
  let matcherId = "";
  let matcher: Matcher | undefined;
  const app = await buildApp({
    registry,
    matcherId: () => matcherId,
    memory: () => matcher?.memory,
    logger: log,
    apiToken: settings.apiToken,
    metrics,
    health: [
      { name: "postgres", check: (checkSignal) => db.ping({ signal: checkSignal }) },
      { name: "redis", check: (checkSignal) => redis.ping({ signal: checkSignal }) },
      {
        name: "storage",
        check: async (checkSignal) =>
          void (await storage.isMarkedRemoved({ indexId: randomUUID(), signal: checkSignal })),
      },
    ],
    isReady: () => (matcher?.ready ?? false) && !signal.aborted,
  });
  try {
    await redis.checkServer({ signal }).catch((thrown: unknown) => {
      // Away now, it may come; what is wrong with it stays wrong.
      if (!isLimError(thrown, "redis_unavailable")) throw thrown;
      log.warn({ reason: thrown.message }, "Redis is away, waiting for it");
    });
    await app.listen({ host: settings.host, port: settings.port });
    const address = app.server.address();
    const port = typeof address === "object" && address ? address.port : settings.port;
    matcherId = `${settings.matcherHost}:${port}`;
    matcher = createMatcher({ settings, matcherId, registry, redis, db, storage, loadAdapter, log, metrics });
    log.info(
      {
        url: `http://${matcherId}`,
        matcher_id: matcherId,
        database: redactText(settings.databaseUrl),
        storage_root: settings.storageRoot,
      },
      "indexed-matcher listening",
    );
    await matcher.run(signal);
  } finally {
    await Promise.allSettled([app.close(), redis.close(), db.close()]);
  }
  log.info({}, "indexed-matcher stopped");
}

await runService({
  name: serviceName,
  version: serviceVersion,
  help: () => `lim-indexed-matcher: answers matches from loaded indexes.\n\n${settingsHelp()}`,
  forceAfterMs,
  main,
});
