import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { Previews } from "../previews.ts";
import { json, retention } from "./schemas.ts";

/** The next run of retention as a dry run. */
export const retentionRoutes =
  ({ previews }: { previews: Previews }): FastifyPluginAsyncZod =>
  async (app) => {
    app.get(
      "/retention",
      {
        schema: {
          operationId: "getRetention",
          description: "What the next run of retention would remove, and why: a dry run, computed anew.",
          tags: ["retention"],
          response: {
            200: json("What is past its retention", retention),
            ...errorResponses(
              "bad_input",
              "postgres_unavailable",
              "redis_unavailable",
              "storage_unavailable",
            ),
          },
        },
      },
      async (request) => previews.retention(request.signal),
    );
  };
