import { readFileSync } from "node:fs";
import {
  createHttpApp,
  errorResponses,
  type HealthCheck,
  type Logger,
  type Registry,
} from "@lim/service-kit";
import type { FastifyInstance } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { type IndexApiDeps, indexRoutes } from "./api/indexes.ts";
import { json, master } from "./api/schemas.ts";
import { type TaskApiDeps, taskRoutes } from "./api/tasks.ts";

export interface AppDeps extends TaskApiDeps, IndexApiDeps {
  logger: Logger;
  metrics: Registry;
  health: readonly HealthCheck[];
  isReady: () => boolean;
  isMaster: () => boolean;
}

export const service = "index-manager";

export const version = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))).version;

const masterRoute =
  (isMaster: () => boolean): FastifyPluginAsyncZod =>
  async (app) => {
    app.get(
      "/master",
      {
        schema: {
          operationId: "getMaster",
          description: "Whether this manager is the master at this moment, as far as it knows.",
          tags: ["managers"],
          response: { 200: json("This manager's role", master), ...errorResponses("bad_input") },
        },
      },
      async () => ({ is_master: isMaster() }),
    );
  };

/** The HTTP application. Connects nowhere, listens nowhere. */
export async function buildApp(deps: AppDeps): Promise<FastifyInstance> {
  const app = await createHttpApp({
    service,
    version,
    description: "Plans, queues and dispatches builds of indexes. Every manager serves this API.",
    logger: deps.logger,
    metrics: deps.metrics,
    health: deps.health,
    isReady: deps.isReady,
  });
  await app.register(taskRoutes(deps), { prefix: "/1" });
  await app.register(indexRoutes(deps), { prefix: "/1" });
  await app.register(masterRoute(deps.isMaster), { prefix: "/1" });
  return app;
}
