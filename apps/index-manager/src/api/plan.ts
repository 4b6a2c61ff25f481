import { planDecisionSchema, uuidSchema } from "@lim/contracts";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { managerLimits } from "../limits.ts";
import type { Previews } from "../previews.ts";
import { cursorQuery, limitQuery, pageOf } from "./paging.ts";
import { json, plan } from "./schemas.ts";

export interface PlanApiDeps {
  previews: Previews;
}

type Decision = z.infer<typeof planDecisionSchema>;

const defaultDecisions = 1_000;
const byListId = {
  keyOf: ({ list_id }: Decision) => list_id,
  compare: (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0),
  keySchema: uuidSchema,
};

/** The next plan as a dry run. */
export const planRoutes =
  ({ previews }: PlanApiDeps): FastifyPluginAsyncZod =>
  async (app) => {
    app.get(
      "/plan",
      {
        schema: {
          operationId: "getPlan",
          description:
            "What the next planning would do with every list considered, and why: a dry run, computed anew. By list id.",
          tags: ["planning"],
          querystring: z.strictObject({
            list_id: uuidSchema.optional().describe("Only the decision on this list"),
            action: planDecisionSchema.shape.action.optional().describe("Only decisions with this action"),
            limit: limitQuery({
              most: managerLimits.maxDecisionsPerAnswer,
              byDefault: defaultDecisions,
              what: "decisions in one answer",
            }),
            cursor: cursorQuery,
          }),
          response: {
            200: json("The plan", plan),
            ...errorResponses(
              "bad_input",
              "postgres_unavailable",
              "redis_unavailable",
              "storage_unavailable",
            ),
          },
        },
      },
      async (request) => {
        const { list_id, action, limit, cursor } = request.query;
        const { decisions, ...when } = await previews.plan(request.signal);
        const wanted = decisions
          .filter(
            (decision) =>
              (list_id === undefined || decision.list_id === list_id) &&
              (action === undefined || decision.action === action),
          )
          .toSorted((a, b) => byListId.compare(a.list_id, b.list_id));
        const { items, nextCursor } = pageOf(wanted, { limit, cursor }, byListId);
        const creates = decisions.filter((decision) => decision.action === "create").length;
        return {
          ...when,
          count: decisions.length,
          creates,
          skips: decisions.length - creates,
          decisions: items,
          next_cursor: nextCursor,
        };
      },
    );
  };
