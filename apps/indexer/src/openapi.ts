import { createLogger, openApiYaml, Registry } from "@lim/service-kit";
import { buildApp } from "./app.ts";
import { createIndexer } from "./indexer.ts";

/** The OpenAPI document of this service as YAML. Connects nowhere. */
export async function renderOpenApi(): Promise<string> {
  const indexer = createIndexer({
    bootId: "00000000-0000-0000-0000-000000000000",
    startBuild() {
      throw new Error("the document's app serves no requests");
    },
    afterBuild: async (_request, end) => end,
    onEnd() {},
    now: () => new Date(0),
  });
  const app = await buildApp({
    indexer,
    logger: createLogger({ service: "indexer", level: "silent" }),
    apiToken: undefined,
    metrics: new Registry(),
    health: [],
    isReady: () => false,
  });
  try {
    return await openApiYaml(app);
  } finally {
    await app.close();
  }
}
