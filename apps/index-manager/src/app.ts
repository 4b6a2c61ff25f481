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
import { indexRemovalRoutes } from "./api/index-removal.ts";
import { type IndexApiDeps, indexRoutes } from "./api/indexes.ts";
import { type PlanApiDeps, planRoutes } from "./api/plan.ts";
import { type ProgressApiDeps, progressRoutes } from "./api/progress.ts";
import { retentionRoutes } from "./api/retention.ts";
import { json, master } from "./api/schemas.ts";
import { taskCreationRoutes } from "./api/task-creation.ts";
import { taskRemovalRoutes } from "./api/task-removal.ts";
import { type TaskApiDeps, taskRoutes } from "./api/tasks.ts";

export interface AppDeps
  extends TaskApiDeps,
    IndexApiDeps,
    PlanApiDeps,
    Pick<ProgressApiDeps, "progressStreams" | "stopping"> {
  logger: Logger;
  /** Every request but those for health must bear it; undefined: none is asked for. */
  apiToken: string | undefined;
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
    bearerToken: deps.apiToken,
  });
  const routes = [
    taskCreationRoutes(deps),
    taskRoutes(deps),
    taskRemovalRoutes(deps),
    progressRoutes(deps),
    indexRoutes(deps),
    indexRemovalRoutes(deps),
    planRoutes(deps),
    retentionRoutes(deps),
    masterRoute(deps.isMaster),
  ];
  for (const route of routes) await app.register(route, { prefix: "/1" });
  return app;
}
