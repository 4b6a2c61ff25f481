import { healthResponseSchema, LimError, versionResponseSchema } from "@lim/contracts";
import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { Registry } from "prom-client";
import { z } from "zod";

export interface HealthCheck {
  name: string;
  /** Rejects with the reason while failing. */
  check: (signal: AbortSignal) => Promise<void>;
}

/** A component that has not answered by then is reported as failing. */
const healthTimeoutMs = 2_000;

const health = healthResponseSchema.meta({
  id: "Health",
  example: { status: "ok", components: { redis: "ok" } },
});
const json = (description: string, schema: z.ZodType) => ({
  description,
  content: { "application/json": { schema } },
});
const healthResponses = { 200: json("Everything answers", health), 503: json("Something fails", health) };

export const serviceTag = "service";

/** What load balancers and supervisors ask: answered without authorization, and until the last connection ends. */
export const openPaths: ReadonlySet<string> = new Set(["/healthcheck", "/livez", "/readyz"]);

async function reasonOf({ check }: HealthCheck): Promise<string> {
  const signal = AbortSignal.timeout(healthTimeoutMs);
  const late = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(new Error(`no answer in ${healthTimeoutMs} ms`)), {
      once: true,
    });
  });
  try {
    await Promise.race([check(signal), late]);
    return "ok";
  } catch (thrown) {
    return LimError.from(thrown).detail || "failing";
  }
}

async function healthOf(checks: readonly HealthCheck[]): Promise<z.infer<typeof healthResponseSchema>> {
  const entries = await Promise.all(
    checks.map(async (check) => [check.name, await reasonOf(check)] as const),
  );
  return {
    status: entries.every(([, reason]) => reason === "ok") ? "ok" : "failing",
    components: Object.fromEntries(entries),
  };
}

/** /version, /healthcheck, /livez, /readyz, /metrics: unversioned. */
export function addServiceRoutes(
  plain: FastifyInstance,
  options: {
    service: string;
    version: string;
    metrics: Registry;
    health: readonly HealthCheck[];
    isReady: () => boolean;
  },
): void {
  const app = plain.withTypeProvider<ZodTypeProvider>();
  const tags = [serviceTag];
  app.route({
    method: "GET",
    url: "/version",
    schema: {
      operationId: "getVersion",
      description: "Name and version of this service.",
      tags,
      response: {
        200: json(
          "Name and version",
          versionResponseSchema.meta({
            id: "Version",
            example: { service: options.service, version: options.version },
          }),
        ),
      },
    },
    handler: () => ({ service: options.service, version: options.version }),
  });
  app.route({
    method: "GET",
    url: "/healthcheck",
    schema: {
      operationId: "getHealth",
      description: `State of everything this service rests on, each asked now (at most ${healthTimeoutMs} ms).`,
      tags,
      response: healthResponses,
    },
    handler: async (_request, reply) => {
      const body = await healthOf(options.health);
      return reply.code(body.status === "ok" ? 200 : 503).send(body);
    },
  });
  app.route({
    method: "GET",
    url: "/livez",
    schema: {
      operationId: "getLiveness",
      description: "200 while the process answers; asks nothing else. Restart the process when this fails.",
      tags,
      response: { 200: healthResponses[200] },
    },
    handler: () => ({ status: "ok" as const, components: {} }),
  });
  app.route({
    method: "GET",
    url: "/readyz",
    schema: {
      operationId: "getReadiness",
      description: "200 once the service may take work and until it begins to shut down.",
      tags,
      response: healthResponses,
    },
    handler: (_request, reply) => {
      const ready = options.isReady();
      return reply.code(ready ? 200 : 503).send({
        status: ready ? "ok" : "failing",
        components: { [options.service]: ready ? "ok" : "not ready" },
      });
    },
  });
  app.route({
    method: "GET",
    url: "/metrics",
    schema: {
      operationId: "getMetrics",
      description: "Metrics in the Prometheus text format.",
      tags,
      response: { 200: { description: "Metrics", content: { "text/plain": { schema: z.string() } } } },
    },
    handler: async (_request, reply) =>
      reply.type(options.metrics.contentType).send(await options.metrics.metrics()),
  });
}
