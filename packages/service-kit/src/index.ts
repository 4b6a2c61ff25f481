// Re-exported so that every service counts and logs with the very classes that this room hands out.
export type { Logger } from "pino";
export { Counter, Gauge, Histogram, Registry } from "prom-client";
export { guessHost } from "./host.ts";
export { createHttpApp } from "./http-app.ts";
export { errorComponent, errorResponses } from "./http-errors.ts";
export { createLogger } from "./logger.ts";
export { openApiYaml } from "./openapi.ts";
export { requestIdHeader, requestIdOf } from "./request-id.ts";
export { runService } from "./run-service.ts";
export type { HealthCheck } from "./service-routes.ts";
export { describeSettings, loadSettings, redactUrl, type Setting } from "./settings.ts";
