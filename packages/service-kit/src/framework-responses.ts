import { type ErrorName, errorTable } from "@lim/contracts";
import type { FastifySchema, RouteOptions } from "fastify";
import { z } from "zod";
import { bearerSecurity } from "./bearer.ts";
import { errorResponses } from "./http-errors.ts";
import { openPaths, serviceTag } from "./service-routes.ts";

const headersTooLarge = `${errorTable.payload_too_large.code} ${errorTable.payload_too_large.desc} (headers and address)`;

type Responses = Record<string, { description?: string; content?: object }>;

/** What an operation's schema is once what holds of every operation is in it. The route's own object stays as it is. */
export function completeSchema(
  route: Pick<RouteOptions, "schema" | "url" | "method">,
  options: { offersBearer: boolean },
): FastifySchema {
  const schema = route.schema ?? {};
  const guarded = options.offersBearer && !openPaths.has(route.url);
  const refusesQuery = !schema.querystring && !schema.tags?.includes(serviceTag);
  const errors: ErrorName[] = ["bad_input", "payload_too_large"];
  if (route.method !== "GET" && route.method !== "HEAD") errors.push("unsupported_media_type");
  if (!openPaths.has(route.url)) errors.push("overloaded");
  if (guarded) errors.push("unauthorized");
  return {
    ...schema,
    ...(refusesQuery ? { querystring: z.strictObject({}) } : {}),
    ...(options.offersBearer ? { security: guarded ? bearerSecurity : [] } : {}),
    response: withResponses(schema.response as Responses, {
      ...errorResponses(...errors),
      431: { ...errorResponses("payload_too_large")[413], description: headersTooLarge },
    }),
  };
}

/** Both joined by status; what a declared description says already is not said twice. */
function withResponses(declared: Responses | undefined, added: Responses): Responses {
  const all: Responses = { ...declared };
  for (const [status, response] of Object.entries(added)) {
    const present = all[status];
    const texts = [present?.description, response.description].flatMap((text) => text?.split("; ") ?? []);
    all[status] = { ...response, ...present, description: [...new Set(texts)].join("; ") };
  }
  return all;
}
