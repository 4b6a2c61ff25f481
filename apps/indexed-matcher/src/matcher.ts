import { randomUUID } from "node:crypto";
import {
  createLabelAnnouncer,
  createLabelLocks,
  createMatchConsumer,
  defaultKeyNames,
  type MatchConsumer,
  type RedisConnection,
} from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, LoadAdapter } from "@lim/index-storage";
import type { Logger, Registry as MetricRegistry } from "@lim/service-kit";
import { spareEngineBytes } from "@lim/vector-index";
import { MatchService } from "./match-service.ts";
import { MemoryBudget, memoryTotalBytes } from "./memory-budget.ts";
import { createMetrics } from "./metrics.ts";
import { Publisher } from "./publisher.ts";
import { Reconciler } from "./reconciler.ts";
import { Refresher } from "./refresher.ts";
import type { Registry } from "./registry.ts";
import type { Settings } from "./settings.ts";

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
}

export interface Matcher {
  readonly ready: boolean;
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
  const metrics = createMetrics(deps.metrics, registry, () => consumer.stats());
  const publisher = new Publisher({ registry, consumer, announcer, log });
  const reconciler = new Reconciler({
    storage,
    db,
    registry,
    publisher,
    locks: createLabelLocks({ redis, keys, log }),
    budget: new MemoryBudget({
      limitBytes: memoryTotalBytes() * settings.memoryLimitRatio,
      residentBytes: () => process.memoryUsage.rss() - spareEngineBytes(),
    }),
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
