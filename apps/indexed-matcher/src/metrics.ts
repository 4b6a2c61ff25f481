import type { LabelLocks, MatchConsumerStats, StreamBacklog } from "@lim/coordination";
import { type MetricMaker, type Registry as MetricRegistry, metricsIn } from "@lim/service-kit";
import type { MemoryUsage } from "./memory-budget.ts";
import { indexStates, type Registry } from "./registry.ts";

/** Times are milliseconds. */
export interface MatcherMetrics {
  answered(outcome: string, requests: number): void;
  /** A request's time from being sent until its search began. */
  waited(elapsedMs: number): void;
  searched(elapsedMs: number, requests: number): void;
  /** Searched requests whose answers were written to Redis together. */
  replied(elapsedMs: number, requests: number): void;
  refreshed(faces: { added: number; replaced: number; removed: number; unchanged: number }): void;
  refreshFailed(): void;
  /** The lists' revisions were read. */
  revisionsRead(): void;
  loaded(elapsedMs: number): void;
  loadFailed(reason: string): void;
  /** The data files of one index are read from the storage. */
  storageRead(): void;
  cacheEvent(kind: string): void;
  cacheHolds(contents: { entries: number; sizeBytes: number }): void;
  dropped(): void;
}

const stages = ["waiting", "search", "answering"] as const;

export interface MetricSources {
  registry: Registry;
  streamStats: () => MatchConsumerStats;
  /** Asks Redis. */
  backlog: () => Promise<StreamBacklog>;
  memory: () => MemoryUsage;
}

/** Metrics of one matcher; gauges read the registry, and stream counters the consumer, when they are scraped. */
export function createMetrics(metrics: MetricRegistry, sources: MetricSources): MatcherMetrics {
  const make = metricsIn(metrics);
  const { counter, histogram, buckets } = make;
  const requests = counter("lim_matcher_requests_total");
  const stage = buckets("lim_matcher_stage_seconds", "stage", stages);
  const searches = counter("lim_matcher_searches_total");
  const searched = counter("lim_matcher_searched_queries_total");
  const packets = counter("lim_matcher_refresh_packets_total");
  const faces = counter("lim_matcher_refresh_faces_total");
  const refreshFailures = counter("lim_matcher_refresh_failures_total");
  const loads = histogram("lim_matcher_load_seconds");
  const loadFailures = counter("lim_matcher_load_failures_total");
  addStreamMetrics(make, sources);
  addRegistryGauges(make, sources.registry);
  const revisionsRead = addRevisionsAge(make);
  make.gauge("lim_matcher_memory_bytes", (gauge) => {
    for (const [kind, bytes] of Object.entries(sources.memory())) gauge.set({ kind }, bytes);
  });
  return {
    answered: (outcome, count) => requests.inc({ outcome }, count),
    waited: (elapsedMs) => stage.observeMs("waiting", elapsedMs),
    searched(elapsedMs, count) {
      stage.observeMs("search", elapsedMs, count);
      searches.inc();
      searched.inc(count);
    },
    replied: (elapsedMs, count) => stage.observeMs("answering", elapsedMs, count),
    refreshed(applied) {
      packets.inc();
      for (const change of ["added", "replaced", "removed", "unchanged"] as const)
        faces.inc({ change }, applied[change]);
    },
    refreshFailed: () => refreshFailures.inc(),
    revisionsRead,
    loaded: (elapsedMs) => loads.observe(elapsedMs / 1_000),
    loadFailed: (reason) => loadFailures.inc({ reason }),
    ...createSourceMetrics(make),
  };
}

/** The locks, counted. */
export function countedLocks(metrics: MetricRegistry, locks: LabelLocks): LabelLocks {
  const { counter, gauge } = metricsIn(metrics);
  const events = counter("lim_matcher_label_locks_total");
  const held = gauge("lim_matcher_label_locks_held");
  return {
    async tryAcquire(label, options) {
      const lock = await locks.tryAcquire(label, options);
      events.inc({ event: lock ? "acquired" : "busy" });
      if (!lock) return undefined;
      held.inc();
      const onLost = () => events.inc({ event: "lost" });
      lock.signal.addEventListener("abort", onLost, { once: true });
      return {
        signal: lock.signal,
        async release() {
          lock.signal.removeEventListener("abort", onLost);
          held.dec();
          await lock.release();
        },
      };
    },
  };
}

function addStreamMetrics({ counter, gauge }: MetricMaker, sources: MetricSources): void {
  counter("lim_matcher_stream_events_total", (events) => {
    events.reset();
    const { read, answered, expired, invalid, claimed, gone, deadLettered } = sources.streamStats();
    const counts = { read, answered, expired, invalid, claimed, gone, dead_lettered: deadLettered };
    for (const [event, count] of Object.entries(counts)) events.inc({ event }, count);
  });
  counter("lim_matcher_failed_batches_total", (batches) => {
    batches.reset();
    batches.inc(sources.streamStats().failedBatches);
  });
  gauge("lim_matcher_stream_entries", async (entries) => {
    entries.reset();
    try {
      const { lag, pending } = await sources.backlog();
      entries.set({ state: "lag" }, lag);
      entries.set({ state: "pending" }, pending);
    } catch {
      // Redis is away: a scrape tells what it can.
    }
  });
}

function addRevisionsAge({ gauge }: MetricMaker): () => void {
  let readMs: number | undefined;
  gauge("lim_matcher_revisions_age_seconds", (age) => {
    if (readMs === undefined) age.remove();
    else age.set((performance.now() - readMs) / 1_000);
  });
  return () => {
    readMs = performance.now();
  };
}

function createSourceMetrics({
  counter,
  gauge,
}: MetricMaker): Pick<MatcherMetrics, "storageRead" | "cacheEvent" | "cacheHolds" | "dropped"> {
  const reads = counter("lim_matcher_storage_reads_total");
  const events = counter("lim_matcher_cache_events_total");
  const entries = gauge("lim_matcher_cache_entries");
  const bytes = gauge("lim_matcher_cache_bytes");
  const drops = counter("lim_matcher_drops_total");
  return {
    storageRead: () => reads.inc(),
    cacheEvent: (event) => events.inc({ event }),
    cacheHolds(contents) {
      entries.set(contents.entries);
      bytes.set(contents.sizeBytes);
    },
    dropped: () => drops.inc(),
  };
}

function addRegistryGauges({ gauge }: MetricMaker, registry: Registry): void {
  const labels = () => registry.describe();
  gauge("lim_matcher_labels", (states) => {
    const all = labels();
    for (const state of indexStates)
      states.set({ state }, all.filter((label) => label.state === state).length);
  });
  gauge("lim_matcher_index_memory_bytes", (memory) => {
    memory.set(labels().reduce((sum, label) => sum + (label.memory ?? 0), 0));
  });
  gauge("lim_matcher_refresh_backlog_revisions", (backlog) => {
    backlog.set(labels().reduce((sum, label) => sum + (label.behind_by ?? 0), 0));
  });
  gauge("lim_matcher_behind_seconds_max", (behind) => {
    behind.set(Math.max(0, ...labels().map((label) => label.behind_seconds ?? 0)));
  });
  gauge("lim_matcher_behind_by_max", (behind) => {
    behind.set(Math.max(0, ...labels().map((label) => label.behind_by ?? 0)));
  });
}
