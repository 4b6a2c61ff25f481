import { everyServiceMetrics } from "./every-service.ts";
import { indexerMetrics } from "./indexer.ts";
import { managerMetrics } from "./manager.ts";
import { matcherMetrics } from "./matcher.ts";

/** Every metric of every service, by section of docs/metrics.md: the one place where they are named. */
export const metricSections = {
  "Every service": everyServiceMetrics,
  "Index Manager": managerMetrics,
  Indexer: indexerMetrics,
  "Indexed Matcher": matcherMetrics,
} as const;

export const metricsCatalogue = {
  ...everyServiceMetrics,
  ...managerMetrics,
  ...indexerMetrics,
  ...matcherMetrics,
} as const;
