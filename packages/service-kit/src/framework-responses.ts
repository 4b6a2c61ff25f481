import type { ErrorName } from "@lim/contracts";
import type { FastifySchema, RouteOptions } from "fastify";
import { z } from "zod";
import { bearerSecurity } from "./bearer.ts";
import { errorResponses } from "./http-errors.ts";
import { openPaths, serviceTag } from "./service-routes.ts";

type Responses = Record<string, { description?: string; content?: object }>;

/** What an operation's schema is once what holds of every operation is in it. The route's own object stays as it is. */
export function completeSchema(
  route: Pick<RouteOptions, "schema" | "url" | "method">,
  options: { offersBearer: boolean },
): FastifySchema {
  const schema = route.schema ?? {};
  const guarded = options.offersBearer && !openPaths.has(route.url);
  const refusesQuery = !schema.querystring && !schema.tags?.includes(serviceTag);
  return {
    ...schema,
    ...(refusesQuery ? { querystring: z.strictObject({}) } : {}),
    ...(guarded ? { security: bearerSecurity } : {}),
    response: withResponses(schema.response as Responses, guarded ? ["unauthorized"] : []),
  };
}

/** Responses of the errors `names` joined to those declared; what is there already is not said twice. */
function withResponses(declared: Responses | undefined, names: ErrorName[]): Responses {
  const all: Responses = { ...declared };
  for (const [status, added] of Object.entries(errorResponses(...names))) {
    const present = all[status];
    const texts = new Set(
      [present?.description, added.description].flatMap((text) => text?.split("; ") ?? []),
    );
    all[status] = { ...added, ...present, description: [...texts].join("; ") };
  }
  return all;
}
