import { uuidSchema } from "@lim/contracts";
import {
  createHttpApp,
  errorResponses,
  type HealthCheck,
  type Registry as MetricRegistry,
} from "@lim/service-kit";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { MemoryUsage } from "./memory-budget.ts";
import { indexStates, type Registry } from "./registry.ts";
import { serviceName, serviceVersion } from "./version.ts";

export interface AppDeps {
  registry: Registry;
  matcherId: () => string;
  /** Undefined until the matcher runs. */
  memory: () => MemoryUsage | undefined;
  logger: FastifyBaseLogger;
  /** Every request but those for health must bear it; undefined: none is asked for. */
  apiToken: string | undefined;
  metrics: MetricRegistry;
  health: readonly HealthCheck[];
  isReady: () => boolean;
}

const whole = z.int().nonnegative();

const loadedLabelSchema = z
  .object({
    label: uuidSchema,
    state: z
      .enum(indexStates)
      .describe(
        "stale: serving, but the list's change feed cannot be followed, a rebuild is needed; " +
          "full: serving, but without memory to follow the list",
      ),
    index_id: uuidSchema.nullable(),
    revision: whole.nullable().describe("revision of the list that answers are computed on"),
    behind_by: whole.nullable().describe("revisions that the list is known to be ahead"),
    behind_seconds: z
      .number()
      .nonnegative()
      .nullable()
      .describe("for how long changes have been known that answers lack"),
    count: whole.nullable().describe("faces that can be found"),
    size: whole.nullable().describe("bytes in the storage"),
    memory: whole.nullable().describe("bytes in memory, estimated"),
    descriptor_version: whole.nullable(),
    detail: z.string().nullable().describe("why it is stale or full, or why the last load failed"),
  })
  .meta({ id: "LoadedLabel", description: "A label of this matcher; null where no index is loaded." });

const memorySchema = z
  .object({
    limit: whole.describe("past it nothing is loaded, and no index grows"),
    resident: whole.describe("of the process, without `spare`"),
    spare: whole.describe("kept of closed indexes for the next ones"),
    reserved: whole.describe("of loads under way, estimated"),
  })
  .meta({ id: "MatcherMemory", description: "Bytes of memory." });

const loadedResponseSchema = z
  .object({
    matcher_id: z.string(),
    memory: memorySchema.nullable().describe("null until the matcher runs"),
    count: whole,
    indexes: z.array(loadedLabelSchema),
  })
  .meta({
    id: "LoadedIndexes",
    description: "What this matcher holds.",
    example: {
      matcher_id: "10.0.0.7:5200",
      memory: { limit: 6_800_000_000, resident: 180_000_000, spare: 0, reserved: 0 },
      count: 1,
      indexes: [
        {
          label: "018f6f2e-0000-4000-8000-000000000002",
          state: "serving",
          index_id: "018f6f2e-0000-4000-8000-000000000001",
          revision: 20_025,
          behind_by: 0,
          behind_seconds: 0,
          count: 20_000,
          size: 45_000_000,
          memory: 52_000_000,
          descriptor_version: 1,
          detail: null,
        },
      ],
    },
  });

/** The matcher's HTTP API: reads only; matches come over the streams. */
export async function buildApp(deps: AppDeps): Promise<FastifyInstance> {
  const base = await createHttpApp({
    service: serviceName,
    version: serviceVersion,
    description: "Serves matches over Redis streams from the newest index of every label.",
    logger: deps.logger,
    metrics: deps.metrics,
    health: deps.health,
    isReady: deps.isReady,
    bearerToken: deps.apiToken,
  });
  base.withTypeProvider<ZodTypeProvider>().route({
    method: "GET",
    url: "/indexes",
    schema: {
      operationId: "getLoadedIndexes",
      description:
        "The labels that this matcher serves or is about to serve, with what they are served from.",
      tags: ["indexes"],
      response: {
        200: {
          description: "Loaded indexes",
          content: { "application/json": { schema: loadedResponseSchema } },
        },
        ...errorResponses(),
      },
    },
    handler: async (_request, reply) => {
      const indexes = deps.registry.describe();
      const memory = deps.memory() ?? null;
      return reply.code(200).send({ matcher_id: deps.matcherId(), memory, count: indexes.length, indexes });
    },
  });
  return base;
}
