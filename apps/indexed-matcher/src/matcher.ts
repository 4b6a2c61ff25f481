import { randomUUID } from "node:crypto";
import {
  createLabelAnnouncer,
  createLabelLocks,
  createLabelWatcher,
  createMatchConsumer,
  defaultKeyNames,
  type MatchConsumer,
  type RedisConnection,
} from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, LoadAdapter } from "@lim/index-storage";
import type { Logger, Registry as MetricRegistry } from "@lim/service-kit";
import { spareEngineBytes } from "@lim/vector-index";
import { createIndexSource } from "./index-source.ts";
import { MatchService } from "./match-service.ts";
import { MemoryBudget, type MemoryState, type MemoryUsage, memoryTotalBytes } from "./memory-budget.ts";
import { countedLocks, createMetrics } from "./metrics.ts";
import { Publisher } from "./publisher.ts";
import { Reconciler } from "./reconciler.ts";
import { Refresher } from "./refresher.ts";
import type { Registry } from "./registry.ts";
import type { Settings } from "./settings.ts";

const mebibyte = 1024 * 1024;

export interface MatcherDeps {
  settings: Settings;
  matcherId: string;
  registry: Registry;
  redis: RedisConnection;
  db: FacesDb;
  storage: IndexStorage;
  loadAdapter: LoadAdapter;
  log: Logger;
  metrics: MetricRegistry;
  /** Where the process stands; default: as it is, with the limit of the settings. */
  memoryState?: () => MemoryState;
}

export interface Matcher {
  readonly ready: boolean;
  readonly memory: MemoryUsage;
  /** Resolves once everything has ended after `signal`: keys withdrawn first, then running batches, then indexes. */
  run(signal: AbortSignal): Promise<void>;
}

/** Wires what makes a matcher: registry, reconcile loop, refresh, streams and label keys. */
export function createMatcher(deps: MatcherDeps): Matcher {
  const { settings, matcherId, registry, redis, db, storage, loadAdapter, log } = deps;
  const keys = {
    ...defaultKeyNames,
    consumerGroup: settings.consumerGroup,
    matcherLockPrefix: settings.lockPrefix,
    matchStreamPrefix: settings.streamPrefix,
  };
  const consumer = createMatchConsumer({
    redis,
    keys,
    consumerName: `${matcherId}:${randomUUID()}`,
    batchSize: settings.batchSize,
    log,
  });
  const announcer = createLabelAnnouncer({
    redis,
    matcherId,
    ttlMs: settings.labelKeyTtlMs,
    renewMs: settings.labelKeyRenewMs,
    log,
  });
  const budget = new MemoryBudget(deps.memoryState ?? memoryStateOf(settings));
  const metrics = createMetrics(deps.metrics, {
    registry,
    streamStats: () => consumer.stats(),
    backlog: () => consumer.backlog(),
    memory: () => budget.usage(),
  });
  const publisher = new Publisher({ registry, consumer, announcer, log });
  const reconciler = new Reconciler({
    storage,
    source: createIndexSource({
      storage,
      loadAdapter,
      cacheDir: settings.cacheDir,
      cacheMaxBytes: settings.cacheMaxMb === undefined ? undefined : settings.cacheMaxMb * mebibyte,
      metrics,
      log,
    }),
    db,
    registry,
    publisher,
    locks: countedLocks(deps.metrics, createLabelLocks({ redis, keys, log })),
    budget,
    ...(settings.dropThenLoad
      ? {
          dropThenLoad: {
            isServedElsewhere: (label, signal) => isServedElsewhere(deps, label, signal),
            settled: (label) => service.settledOf(label),
          },
        }
      : {}),
    loadAdapter,
    metrics,
    log,
    periodMs: settings.reloadPeriodMs,
    descriptorVersion: settings.descriptorVersion,
    dim: settings.descriptorDim,
  });
  const wakeReconciler = () => reconciler.wake();
  const refresher = new Refresher({
    db,
    registry,
    publisher,
    metrics,
    log,
    periodMs: settings.refreshPeriodMs,
    onUnservable: wakeReconciler,
  });
  const service = new MatchService({
    registry,
    consumer,
    metrics,
    log,
    efSearch: settings.efSearch,
    descriptorVersion: settings.descriptorVersion,
    dim: settings.descriptorDim,
    ...(settings.refreshEnabled ? { requestRefresh: () => refresher.wake() } : {}),
    onEngineFailed: wakeReconciler,
  });
  return {
    get ready() {
      return reconciler.ready;
    },
    get memory() {
      return budget.usage();
    },
    run: (signal) =>
      runUntil(signal, {
        consumer,
        service,
        publisher,
        registry,
        loops: settings.refreshEnabled ? [reconciler, refresher] : [reconciler],
      }),
  };
}

function memoryStateOf(settings: Settings): () => MemoryState {
  const totalBytes = memoryTotalBytes();
  return () => ({
    limitBytes: totalBytes * settings.memoryLimitRatio,
    totalBytes,
    residentBytes: process.memoryUsage.rss(),
    spareBytes: spareEngineBytes(),
  });
}

/** Asks Redis now: a watcher that looked before would keep keys for a while that are gone. */
async function isServedElsewhere(deps: MatcherDeps, label: string, signal: AbortSignal): Promise<boolean> {
  const { redis, matcherId, settings, log } = deps;
  const ttlMs = settings.labelKeyTtlMs;
  const watcher = createLabelWatcher({ redis, ttlMs, pollMs: ttlMs, log });
  try {
    await watcher.refresh({ signal });
    return watcher
      .served(label)
      .some(
        (other) =>
          other.matcherId !== matcherId && other.value.descriptor_version === settings.descriptorVersion,
      );
  } finally {
    await watcher.close();
  }
}

interface Parts {
  consumer: MatchConsumer;
  service: MatchService;
  publisher: Publisher;
  registry: Registry;
  loops: readonly { run(signal: AbortSignal): Promise<void> }[];
}

async function runUntil(signal: AbortSignal, parts: Parts): Promise<void> {
  const { consumer, service, publisher, registry } = parts;
  const streams = new AbortController();
  const consuming = consumer.run((batch) => service.handle(batch), { signal: streams.signal });
  const loops = Promise.all(parts.loops.map((loop) => loop.run(signal)));
  // Either ends before the signal only by a failure, which ends the process.
  await Promise.race([consuming, loops, untilAborted(signal)]);
  await publisher.close();
  await loops;
  streams.abort();
  await consuming;
  // Not before the last batch: its answers must be written while the consumer still holds their entries.
  await service.close();
  await consumer.close();
  await registry.close();
}

function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
