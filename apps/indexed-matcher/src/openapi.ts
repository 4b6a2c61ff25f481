import { createLogger, Registry as MetricRegistry, openApiYaml } from "@lim/service-kit";
import { buildApp } from "./app.ts";
import { Registry } from "./registry.ts";
import { serviceName } from "./version.ts";

/** The OpenAPI document of this service as YAML. Connects nowhere. */
export async function renderOpenApi(): Promise<string> {
  const app = await buildApp({
    registry: new Registry(),
    matcherId: () => "",
    memory: () => undefined,
    logger: createLogger({ service: serviceName, level: "silent" }),
    apiToken: undefined,
    metrics: new MetricRegistry(),
    health: [],
    isReady: () => false,
  });
  try {
    return await openApiYaml(app);
  } finally {
    await app.close();
  }
}
