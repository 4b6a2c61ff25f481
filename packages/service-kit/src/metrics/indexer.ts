import type { MetricSpecs } from "./spec.ts";

/** Seconds; builds take from under a second to hours. */
const durationBuckets = [1, 5, 15, 60, 300, 900, 3_600, 14_400] as const;

/** Of the indexer. */
export const indexerMetrics = {
  lim_indexer_building: { type: "gauge", help: "1 while a build runs", unit: "1" },
  lim_indexer_build_phase: {
    type: "gauge",
    help: "1 for the phase of the running build, 0 for the others",
    unit: "1",
    labels: { phase: "snapshot, build, verify, store, publish" },
  },
  lim_indexer_build_progress_ratio: {
    type: "gauge",
    help: "How much of its phase the running build has done, 0 to 1; absent while none runs",
    unit: "1",
  },
  lim_indexer_builds_total: {
    type: "counter",
    help: "Builds that ended here, by mode and by outcome (success or the error's name)",
    unit: "builds",
    labels: { mode: "rebuild, update", outcome: "success, or the error's name" },
  },
  lim_indexer_build_duration_seconds: {
    type: "histogram",
    help: "Time of successful builds, from request to published index",
    unit: "seconds",
    labels: { mode: "rebuild, update" },
    buckets: durationBuckets,
  },
  lim_indexer_build_phase_duration_seconds: {
    type: "histogram",
    help: "Time of each phase of successful builds",
    unit: "seconds",
    labels: { phase: "snapshot, build, verify, store" },
    buckets: [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400],
  },
  lim_indexer_built_faces_total: {
    type: "counter",
    help: "Faces in the indexes that were published here",
    unit: "faces",
  },
  lim_indexer_build_peak_resident_bytes: {
    type: "gauge",
    help: "Most resident memory that was seen of the last build's process",
    unit: "bytes",
  },
} as const satisfies MetricSpecs;
