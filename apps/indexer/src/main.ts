import { randomUUID } from "node:crypto";
import { defaults } from "@lim/contracts";
import { connectRedis, createIndexerRegistry } from "@lim/coordination";
import { openFacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import { createLogger, type Logger, Registry, redactText, runService } from "@lim/service-kit";
import { settleBuild } from "./after-build.ts";
import { buildApp } from "./app.ts";
import { cancelGraceMs, startBuildProcess } from "./build-process.ts";
import { startChild } from "./child-process.ts";
import { collectGarbage } from "./collect.ts";
import { createIndexer, type Indexer } from "./indexer.ts";
import { createMetrics } from "./metrics.ts";
import { openModuleCache } from "./module-cache.ts";
import { readSettings, type Settings, settingsHelp } from "./settings.ts";
import { createSpares, type Spares } from "./spares.ts";
import { serviceName, serviceVersion } from "./version.ts";

/** After the last build of a draining indexer, how long its outcome stays readable for the manager. */
const reportOutcomeMs = 3_000;
/** Above the drain's own limits, for closing connections. */
const closeGraceMs = 10_000;

const settings = (file: string | undefined) => readSettings(process.env, file);

async function main(signal: AbortSignal, settingsFile: string | undefined): Promise<void> {
  await serve(settings(settingsFile), signal);
}

async function serve(config: Settings, signal: AbortSignal): Promise<void> {
  const log = createLogger({ service: serviceName, level: config.logLevel });
  const storage = await openIndexStorage({ root: config.storageRoot });
  const db = openFacesDb({
    connectionString: config.databaseUrl,
    maxConnections: 1,
    applicationName: "lim-indexer",
  });
  const redis = connectRedis({ url: config.redisUrl, name: serviceName, log });
  const registry = new Registry();
  let stateRead = () => {};
  const cacheDir = await openModuleCache();
  const spares = createSpares({
    enabled: config.spareProcesses,
    start: (stage, engine) => startChild(stage, { engine, cacheDir }),
  });
  const indexer = createService({ config, storage, registry, log, spares });
  let ready = false;
  const app = await buildApp({
    indexer,
    logger: log,
    apiToken: config.apiToken,
    metrics: registry,
    health: [
      { name: "postgres", check: (checkSignal) => db.ping({ signal: checkSignal }) },
      { name: "redis", check: (checkSignal) => redis.ping({ signal: checkSignal }) },
      {
        name: "storage",
        check: async (checkSignal) =>
          void (await storage.isMarkedRemoved({ indexId: randomUUID(), signal: checkSignal })),
      },
    ],
    isReady: () => ready && !signal.aborted,
    onStateRead: () => stateRead(),
  });
  await app.listen({ host: config.host, port: config.port });
  const address = app.server.address();
  const port = typeof address === "object" && address ? address.port : config.port;
  const origin = config.originOf(port);
  const registration = createIndexerRegistry({ redis, log }).announce({
    origin,
    ttlMs: config.registrationTtlMs,
    signal,
  });
  ready = true;
  log.info(
    { url: origin, database: redactText(config.databaseUrl), storage_root: config.storageRoot },
    "indexer listening",
  );
  spares.fill(defaults.engine);
  const collecting = collectGarbage({ storage, log, signal });
  await untilAborted(signal);
  const wasBuilding = indexer.state().task_id !== null;
  spares.close();
  log.info({ building: wasBuilding, drain_timeout_ms: config.drainTimeoutMs }, "draining");
  await Promise.all([registration, collecting, indexer.drain({ timeoutMs: config.drainTimeoutMs })]);
  if (wasBuilding)
    await new Promise<void>((resolve) => {
      stateRead = resolve;
      setTimeout(resolve, reportOutcomeMs);
    });
  await app.close();
  await Promise.all([redis.close(), db.close()]);
  log.info({}, "indexer stopped");
}

/** The state machine on real build processes, with its log lines and metrics. */
function createService(parts: {
  config: Settings;
  storage: IndexStorage;
  registry: Registry;
  log: Logger;
  spares: Spares;
}): Indexer {
  const { config, storage, registry, log, spares } = parts;
  const metrics = createMetrics(registry, () => indexer);
  // Also the name of its builds' folders in the staging: an attempt runs once in the life of a process.
  const bootId = randomUUID();
  const indexer: Indexer = createIndexer({
    bootId,
    now: () => new Date(),
    startBuild(request) {
      const { task_id, list_id, attempt } = request;
      const build = startBuildProcess(
        {
          type: "build",
          request,
          work: bootId,
          databaseUrl: config.databaseUrl,
          storageRoot: config.storageRoot,
          memoryLimitBytes: config.memoryLimitBytes,
          snapshotBytesPerS: config.snapshotRateMbPerS * 1_000_000,
          logLevel: config.logLevel,
        },
        {
          takeChild: spares.take,
          onPublish: (pid) =>
            log.info({ task_id, list_id, attempt, build_pid: pid }, "index saved, publishing begins"),
        },
      );
      log.info({ ...request, build_pid: build.pid }, "build begins");
      return build;
    },
    afterBuild: (request, end) => settleBuild({ storage, request, work: bootId, log }, end),
    onEnd(summary) {
      metrics.buildEnded(summary);
      spares.fill(summary.request.engine);
      const { request, report, error, durationMs, peakResidentBytes } = summary;
      const fields = {
        task_id: request.task_id,
        list_id: request.list_id,
        attempt: request.attempt,
        duration_ms: durationMs,
        peak_resident_bytes: peakResidentBytes,
      };
      if (report)
        log.info(
          { ...fields, count: report.count, revision: report.revision, skipped: report.skipped },
          "build succeeded",
        );
      else log.error({ ...fields, error_code: error?.code, detail: error?.detail }, "build failed");
    },
  });
  return indexer;
}

function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

await runService({
  name: serviceName,
  version: serviceVersion,
  help: () => `lim-indexer: builds indexes, one at a time.\n\n${settingsHelp()}`,
  forceAfterMs: (settingsFile) => drainLimitMs(settingsFile) + cancelGraceMs + reportOutcomeMs + closeGraceMs,
  main,
});

/** The drain timeout before settings are judged; bad ones are reported by main. */
function drainLimitMs(settingsFile: string | undefined): number {
  try {
    return settings(settingsFile).drainTimeoutMs;
  } catch {
    return 0;
  }
}
