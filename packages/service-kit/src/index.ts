export type { Logger } from "pino";
export { Registry } from "prom-client";
export {
  apiSettings,
  commonSettings,
  descriptorSettings,
  flag,
  listenSettings,
  wholeNumber,
} from "./common-settings.ts";
export { guessHost } from "./host.ts";
export { createHttpApp } from "./http-app.ts";
export { errorComponent, errorResponses } from "./http-errors.ts";
export { createLogger } from "./logger.ts";
export { metricSections, metricsCatalogue } from "./metrics/catalogue.ts";
export {
  type CounterOf,
  type GaugeOf,
  type HistogramOf,
  type MetricMaker,
  metricsIn,
} from "./metrics/make.ts";
export { openApiYaml } from "./openapi.ts";
export { redactText } from "./redact.ts";
export { httpLimits } from "./request-checks.ts";
export { requestIdHeader, requestIdOf } from "./request-id.ts";
export { runService } from "./run-service.ts";
export type { HealthCheck } from "./service-routes.ts";
export {
  describeSettings,
  loadSettings,
  type Setting,
  type SettingsShape,
  settingsFileOf,
  settingsSources,
} from "./settings.ts";
export { settingsFileLimits } from "./settings-file.ts";
