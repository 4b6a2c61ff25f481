import type { MatchConsumerStats } from "@lim/coordination";
import { Counter, Gauge, Histogram, type Registry as MetricRegistry } from "@lim/service-kit";
import type { MemoryUsage } from "./memory-budget.ts";
import { indexStates, type Registry } from "./registry.ts";

export interface MatcherMetrics {
  answered(outcome: string, requests: number): void;
  searched(elapsedMs: number, requests: number): void;
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

/** Metrics of one matcher; gauges read the registry, and stream counters the consumer, when they are scraped. */
export function createMetrics(
  metrics: MetricRegistry,
  registry: Registry,
  streamStats: () => MatchConsumerStats,
  memory: () => MemoryUsage,
): MatcherMetrics {
  const registers = [metrics];
  const requests = new Counter({
    name: "lim_matcher_requests_total",
    help: "Match requests answered, by outcome (ok or the error's name)",
    labelNames: ["outcome"],
    registers,
  });
  const searches = new Histogram({
    name: "lim_matcher_search_ms",
    help: "Milliseconds of one search of the engine, of a whole batch",
    buckets: [0.25, 0.5, 1, 2, 5, 10, 25, 50, 100, 250, 1_000],
    registers,
  });
  const searched = new Counter({
    name: "lim_matcher_searched_queries_total",
    help: "Queries that were searched",
    registers,
  });
  const packets = new Counter({
    name: "lim_matcher_refresh_packets_total",
    help: "Packets of the change feed that were applied to a served index",
    registers,
  });
  const faces = new Counter({
    name: "lim_matcher_refresh_faces_total",
    help: "Faces of those packets, by what became of them",
    labelNames: ["change"],
    registers,
  });
  const refreshFailures = new Counter({
    name: "lim_matcher_refresh_failures_total",
    help: "Refresh passes that failed",
    registers,
  });
  const loads = new Histogram({
    name: "lim_matcher_load_ms",
    help: "Milliseconds from opening an index to its being served",
    buckets: [50, 100, 250, 500, 1_000, 2_500, 5_000, 15_000, 60_000, 300_000],
    registers,
  });
  const loadFailures = new Counter({
    name: "lim_matcher_load_failures_total",
    help: "Loads of an index that failed, by the error's name",
    labelNames: ["reason"],
    registers,
  });
  new Counter({
    name: "lim_matcher_stream_events_total",
    help: "Match requests by what the streams' consumer did with them (claimed: another matcher had left them; gone: deleted unanswered)",
    labelNames: ["event"],
    registers,
    collect() {
      this.reset();
      const { read, answered, expired, invalid, claimed, gone, deadLettered } = streamStats();
      const events = { read, answered, expired, invalid, claimed, gone, dead_lettered: deadLettered };
      for (const [event, count] of Object.entries(events)) this.inc({ event }, count);
    },
  });
  let revisionsReadMs: number | undefined;
  new Gauge({
    name: "lim_matcher_revisions_age_seconds",
    help: "Seconds since the lists' revisions were read last; absent before the first time and where refresh is off",
    registers,
    collect() {
      if (revisionsReadMs === undefined) this.reset();
      else this.set((performance.now() - revisionsReadMs) / 1_000);
    },
  });
  addGauges(metrics, registry);
  addMemoryGauge(metrics, memory);
  return {
    answered: (outcome, count) => requests.inc({ outcome }, count),
    searched(elapsedMs, count) {
      searches.observe(elapsedMs);
      searched.inc(count);
    },
    refreshed(applied) {
      packets.inc();
      for (const change of ["added", "replaced", "removed", "unchanged"] as const)
        faces.inc({ change }, applied[change]);
    },
    refreshFailed: () => refreshFailures.inc(),
    revisionsRead() {
      revisionsReadMs = performance.now();
    },
    loaded: (elapsedMs) => loads.observe(elapsedMs),
    loadFailed: (reason) => loadFailures.inc({ reason }),
    ...createSourceMetrics(metrics),
  };
}

function createSourceMetrics(
  metrics: MetricRegistry,
): Pick<MatcherMetrics, "storageRead" | "cacheEvent" | "cacheHolds" | "dropped"> {
  const registers = [metrics];
  const reads = new Counter({
    name: "lim_matcher_storage_reads_total",
    help: "Indexes whose data files were read from the storage",
    registers,
  });
  const events = new Counter({
    name: "lim_matcher_cache_events_total",
    help: "Uses of the cache folder by what became of them (shared: another process fetched it; bypassed: the folder could not be used)",
    labelNames: ["event"],
    registers,
  });
  const entries = new Gauge({
    name: "lim_matcher_cache_entries",
    help: "Indexes in the cache folder",
    registers,
  });
  const bytes = new Gauge({ name: "lim_matcher_cache_bytes", help: "Bytes in the cache folder", registers });
  const drops = new Counter({
    name: "lim_matcher_drops_total",
    help: "Indexes that were dropped before their successor was loaded, for want of memory",
    registers,
  });
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

function addMemoryGauge(metrics: MetricRegistry, memory: () => MemoryUsage): void {
  new Gauge({
    name: "lim_matcher_memory_bytes",
    help: "Memory of this process as loads are held against it: limit, resident (without spare), spare (kept of closed indexes for the next ones), reserved (of loads under way, estimated)",
    labelNames: ["kind"],
    registers: [metrics],
    collect() {
      for (const [kind, bytes] of Object.entries(memory())) this.set({ kind }, bytes);
    },
  });
}

function addGauges(metrics: MetricRegistry, registry: Registry): void {
  const registers = [metrics];
  new Gauge({
    name: "lim_matcher_labels",
    help: "Labels by state; stale ones cannot follow their list's changes and need a rebuild, full ones have no memory for them",
    labelNames: ["state"],
    registers,
    collect() {
      const labels = registry.describe();
      for (const state of indexStates)
        this.set({ state }, labels.filter((label) => label.state === state).length);
    },
  });
  new Gauge({
    name: "lim_matcher_index_memory_bytes",
    help: "Estimated memory of the served indexes",
    registers,
    collect() {
      this.set(registry.describe().reduce((sum, label) => sum + (label.memory ?? 0), 0));
    },
  });
  new Gauge({
    name: "lim_matcher_refresh_backlog_revisions",
    help: "Revisions that the served indexes are known to lack, all together",
    registers,
    collect() {
      this.set(registry.describe().reduce((sum, label) => sum + (label.behind_by ?? 0), 0));
    },
  });
  new Gauge({
    name: "lim_matcher_behind_seconds_max",
    help: "For how long the served index that is behind longest has been so",
    registers,
    collect() {
      this.set(Math.max(0, ...registry.describe().map((label) => label.behind_seconds ?? 0)));
    },
  });
  new Gauge({
    name: "lim_matcher_behind_by_max",
    help: "Revisions that the served index furthest behind lacks",
    registers,
    collect() {
      this.set(Math.max(0, ...registry.describe().map((label) => label.behind_by ?? 0)));
    },
  });
}
