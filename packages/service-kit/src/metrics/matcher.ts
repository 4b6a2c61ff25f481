import type { MetricSpecs } from "./spec.ts";

/** Of the Indexed Matcher. */
export const matcherMetrics = {
  lim_matcher_requests_total: {
    type: "counter",
    help: "Match requests answered, by outcome",
    unit: "requests",
    labels: { outcome: "ok, or the error's name" },
  },
  lim_matcher_stage_seconds: {
    type: "histogram",
    help: "Time of searched match requests by stage: from being sent until the search begins, by Redis' clock; the search of their batch; the writing of their batch's answers to Redis",
    unit: "seconds",
    labels: { stage: "waiting, search, answering" },
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
  },
  lim_matcher_searches_total: {
    type: "counter",
    help: "Searches of the engine, each of a batch of queries",
    unit: "searches",
  },
  lim_matcher_searched_queries_total: {
    type: "counter",
    help: "Queries that were searched",
    unit: "queries",
  },
  lim_matcher_stream_entries: {
    type: "gauge",
    help: "Requests in the streams of the labels served here (the first 1,000), of all matchers together; absent while Redis is away",
    unit: "requests",
    labels: { state: "lag (read by nobody yet), pending (read, not answered)" },
  },
  lim_matcher_stream_events_total: {
    type: "counter",
    help: "Match requests by what the streams' consumer did with them",
    unit: "requests",
    labels: {
      event:
        "read, answered, expired, invalid, claimed (another matcher had left them), gone (deleted unanswered), dead_lettered",
    },
  },
  lim_matcher_failed_batches_total: {
    type: "counter",
    help: "Batches that failed; what they left unanswered comes again",
    unit: "batches",
  },
  lim_matcher_labels: {
    type: "gauge",
    help: "Labels by state; stale ones cannot follow their list's changes and need a rebuild, full ones have no memory for them",
    unit: "labels",
    labels: { state: "loading, serving, full, stale, failed" },
  },
  lim_matcher_index_memory_bytes: {
    type: "gauge",
    help: "Estimated memory of the served indexes",
    unit: "bytes",
  },
  lim_matcher_memory_bytes: {
    type: "gauge",
    help: "Memory of this process as loads are held against it",
    unit: "bytes",
    labels: {
      kind: "limit, resident (without spare), spare (kept of closed indexes for the next ones), reserved (of loads under way, estimated)",
    },
  },
  lim_matcher_behind_by_max: {
    type: "gauge",
    help: "Revisions that the served index furthest behind lacks",
    unit: "revisions",
  },
  lim_matcher_behind_seconds_max: {
    type: "gauge",
    help: "For how long the served index that is behind longest has been so",
    unit: "seconds",
  },
  lim_matcher_refresh_backlog_revisions: {
    type: "gauge",
    help: "Revisions that the served indexes are known to lack, all together",
    unit: "revisions",
  },
  lim_matcher_revisions_age_seconds: {
    type: "gauge",
    help: "Seconds since the lists' revisions were read last; absent before the first time and where refresh is off",
    unit: "seconds",
  },
  lim_matcher_refresh_packets_total: {
    type: "counter",
    help: "Packets of the change feed that were applied to a served index",
    unit: "packets",
  },
  lim_matcher_refresh_faces_total: {
    type: "counter",
    help: "Faces of those packets, by what became of them",
    unit: "faces",
    labels: { change: "added, replaced, removed, unchanged" },
  },
  lim_matcher_refresh_failures_total: {
    type: "counter",
    help: "Refresh passes that failed",
    unit: "passes",
  },
  lim_matcher_load_seconds: {
    type: "histogram",
    help: "Time from opening an index to its being served",
    unit: "seconds",
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300],
  },
  lim_matcher_load_failures_total: {
    type: "counter",
    help: "Loads of an index that failed",
    unit: "loads",
    labels: { reason: "the error's name" },
  },
  lim_matcher_label_locks_total: {
    type: "counter",
    help: "Tries for the lock under which one matcher at a time replaces a label's index, and locks that were lost",
    unit: "locks",
    labels: { event: "acquired, busy (another has it), lost (not renewed in time, or taken)" },
  },
  lim_matcher_label_locks_held: {
    type: "gauge",
    help: "Such locks that this matcher holds",
    unit: "locks",
  },
  lim_matcher_storage_reads_total: {
    type: "counter",
    help: "Indexes whose data files were read from the storage",
    unit: "indexes",
  },
  lim_matcher_cache_events_total: {
    type: "counter",
    help: "Uses of the cache folder by what became of them",
    unit: "uses",
    labels: {
      event:
        "hit, fetched, shared (another process fetched it), removed, corrupt, taken_over (of a process that died fetching), bypassed (the folder could not be used)",
    },
  },
  lim_matcher_cache_entries: { type: "gauge", help: "Indexes in the cache folder", unit: "indexes" },
  lim_matcher_cache_bytes: { type: "gauge", help: "Bytes in the cache folder", unit: "bytes" },
  lim_matcher_drops_total: {
    type: "counter",
    help: "Indexes that were dropped before their successor was loaded, for want of memory",
    unit: "indexes",
  },
} as const satisfies MetricSpecs;
