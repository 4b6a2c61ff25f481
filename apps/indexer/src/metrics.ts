import { Counter, Gauge, Histogram, type Registry } from "@lim/service-kit";
import type { BuildSummary, Indexer } from "./indexer.ts";

export interface IndexerMetrics {
  buildEnded(summary: BuildSummary): void;
}

/** Seconds; builds take from under a second to hours. */
const durationBuckets = [1, 5, 15, 60, 300, 900, 3_600, 14_400];

export function createMetrics(registry: Registry, indexer: () => Indexer): IndexerMetrics {
  const builds = new Counter({
    name: "lim_indexer_builds_total",
    help: "Builds that ended here, by mode and by outcome (success or the error's name)",
    labelNames: ["mode", "outcome"],
    registers: [registry],
  });
  const durations = new Histogram({
    name: "lim_indexer_build_duration_seconds",
    help: "Time of successful builds, from request to published index",
    labelNames: ["mode"],
    buckets: durationBuckets,
    registers: [registry],
  });
  const faces = new Counter({
    name: "lim_indexer_built_faces_total",
    help: "Faces in the indexes that were published here",
    registers: [registry],
  });
  const peak = new Gauge({
    name: "lim_indexer_build_peak_resident_bytes",
    help: "Most resident memory that was seen of the last build's process",
    registers: [registry],
  });
  new Gauge({
    name: "lim_indexer_building",
    help: "1 while a build runs",
    registers: [registry],
    collect() {
      this.set(indexer().state().task_id === null ? 0 : 1);
    },
  });
  return {
    buildEnded({ request, report, error, durationMs, peakResidentBytes }) {
      peak.set(peakResidentBytes);
      builds.inc({ mode: request.mode, outcome: error?.errorName ?? "success" });
      if (!report) return;
      durations.observe({ mode: request.mode }, durationMs / 1000);
      faces.inc(report.count);
    },
  };
}
