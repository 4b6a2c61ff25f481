import { buildPhases } from "@lim/contracts";
import { metricsIn, type Registry } from "@lim/service-kit";
import type { BuildSummary, Indexer } from "./indexer.ts";

export interface IndexerMetrics {
  buildEnded(summary: BuildSummary): void;
}

export function createMetrics(registry: Registry, indexer: () => Indexer): IndexerMetrics {
  const { counter, gauge, histogram } = metricsIn(registry);
  const builds = counter("lim_indexer_builds_total");
  const durations = histogram("lim_indexer_build_duration_seconds");
  const phaseDurations = histogram("lim_indexer_build_phase_duration_seconds");
  const faces = counter("lim_indexer_built_faces_total");
  const peak = gauge("lim_indexer_build_peak_resident_bytes");
  gauge("lim_indexer_building", (building) => {
    building.set(indexer().state().task_id === null ? 0 : 1);
  });
  gauge("lim_indexer_build_phase", (phases) => {
    const current = indexer().state().progress?.phase;
    for (const phase of buildPhases) phases.set({ phase }, phase === current ? 1 : 0);
  });
  gauge("lim_indexer_build_progress_ratio", (ratio) => {
    const { progress } = indexer().state();
    if (progress) ratio.set(progress.total > 0 ? Math.min(1, progress.done / progress.total) : 0);
    else ratio.remove();
  });
  return {
    buildEnded({ request, report, error, durationMs, peakResidentBytes }) {
      peak.set(peakResidentBytes);
      builds.inc({ mode: request.mode, outcome: error?.errorName ?? "success" });
      if (!report) return;
      durations.observe({ mode: request.mode }, durationMs / 1000);
      for (const [phase, ms] of Object.entries(report.phases)) phaseDurations.observe({ phase }, ms / 1000);
      faces.inc(report.count);
    },
  };
}
