import { buildRequestSchema, defaults, indexerStateSchema, stopRequestSchema } from "@lim/contracts";
import { createHttpApp, errorResponses, type HealthCheck, type Registry } from "@lim/service-kit";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { z } from "zod";
import type { Indexer } from "./indexer.ts";
import { serviceName, serviceVersion } from "./version.ts";

export interface AppDeps {
  indexer: Indexer;
  logger: FastifyBaseLogger;
  /** Every request but those for health must bear it; undefined: none is asked for. */
  apiToken: string | undefined;
  metrics: Registry;
  health: readonly HealthCheck[];
  isReady: () => boolean;
  /** Told after each answer of GET /state. */
  onStateRead?: () => void;
}

const tags = ["build"];

const exampleStop: z.input<typeof stopRequestSchema> = {
  task_id: "018f6f2e-0000-4000-8000-000000000001",
  attempt: 1,
  epoch: 1_763_000_000_000_000,
};
const exampleRequest: z.input<typeof buildRequestSchema> = {
  ...exampleStop,
  list_id: "018f6f2e-0000-4000-8000-000000000002",
  mode: "rebuild",
  engine: defaults.engine,
  params: { m: 16, ef_construction: 200 },
  descriptor_version: 1,
  dim: 512,
};
const exampleState: z.input<typeof indexerStateSchema> = {
  boot_id: "018f6f2e-0000-4000-8000-000000000003",
  state: "building",
  task_id: exampleRequest.task_id,
  list_id: exampleRequest.list_id,
  attempt: 1,
  mode: "rebuild",
  start_time: "2026-01-01T12:00:00.000Z",
  progress: { phase: "build", done: 12_000, total: 20_000, rate_per_s: 980.4, eta_s: 8.2 },
  outcomes: [],
};

// Named once for all apps of a process: a name stands for one schema.
const buildRequest = buildRequestSchema.meta({ id: "BuildRequest", example: exampleRequest });
const stopRequest = stopRequestSchema.meta({ id: "StopRequest", example: exampleStop });
const state = indexerStateSchema.meta({
  id: "IndexerState",
  description: "What this indexer does now, and the last builds that ended here, newest first.",
  example: exampleState,
});
const stateResponse = (description: string) => ({
  description,
  content: { "application/json": { schema: state } },
});

/** The indexer's internal HTTP API: the Index Manager is its only caller. */
export async function buildApp(deps: AppDeps): Promise<FastifyInstance> {
  const base = await createHttpApp({
    service: serviceName,
    version: serviceVersion,
    description: "Builds the index of one list at a time in a process of its own and publishes it.",
    logger: deps.logger,
    metrics: deps.metrics,
    health: deps.health,
    isReady: deps.isReady,
    bearerToken: deps.apiToken,
  });
  const app = base.withTypeProvider<ZodTypeProvider>();

  app.route({
    method: "GET",
    url: "/state",
    schema: {
      operationId: "getState",
      description: "What this indexer does now, how far it is, and how its last builds ended.",
      tags,
      response: { 200: stateResponse("State"), ...errorResponses() },
    },
    onResponse: async () => deps.onStateRead?.(),
    handler: async (_request, reply) => reply.code(200).send(deps.indexer.state()),
  });

  app.route({
    method: "POST",
    url: "/index_list",
    schema: {
      operationId: "indexList",
      description:
        "Begins a build. Asking again for the attempt that runs or has ended here changes nothing and is a 202 too. " +
        "Refused while another build runs (26101) and for a stale master or attempt (26030).",
      tags,
      body: buildRequest,
      response: {
        202: stateResponse("Accepted"),
        ...errorResponses("bad_input", "indexer_busy", "fenced"),
      },
    },
    handler: async (request, reply) => {
      const { task_id, list_id, attempt } = request.body;
      deps.indexer.submit(request.body);
      // Beside the request's id: from here on the build's lines bear its task only.
      request.log.info({ task_id, list_id, attempt }, "build accepted");
      return reply.code(202).send(deps.indexer.state());
    },
  });

  app.route({
    method: "POST",
    url: "/stop",
    schema: {
      operationId: "stopBuild",
      description:
        "Cancels the running build where it is the task and attempt named; its outcome then is 26106, unless it " +
        "had published already. Any other changes nothing.",
      tags,
      body: stopRequest,
      response: {
        200: stateResponse("Cancelling"),
        ...errorResponses("bad_input", "not_found", "fenced"),
      },
    },
    handler: async (request, reply) => {
      const { task_id, attempt } = request.body;
      deps.indexer.stop(request.body);
      request.log.info({ task_id, attempt }, "build is told to stop");
      return reply.code(200).send(deps.indexer.state());
    },
  });
  return base;
}
