import type { MetricSpecs } from "./spec.ts";

/** Of every service. */
export const everyServiceMetrics = {
  lim_build_info: {
    type: "gauge",
    help: "Always 1; which service this is, of which version",
    unit: "1",
    labels: { service: "the service's name", version: "its version" },
  },
  lim_http_request_duration_seconds: {
    type: "histogram",
    help: "Time to answer HTTP requests",
    unit: "seconds",
    labels: { method: "GET, POST, …", route: "the operation's path", status: "HTTP status" },
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10],
  },
  lim_http_errors_total: {
    type: "counter",
    help: "HTTP requests answered with an error, by its name: fenced, indexer_busy, unauthorized, …",
    unit: "requests",
    labels: { error: "the error's name" },
  },
} as const satisfies MetricSpecs;
