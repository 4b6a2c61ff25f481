import { createHash, timingSafeEqual } from "node:crypto";
import { LimError } from "@lim/contracts";
import type { FastifyReply, FastifyRequest } from "fastify";
import { openPaths } from "./service-routes.ts";

export const bearerScheme = {
  type: "http",
  scheme: "bearer",
  description: "Asked for where the service was started with a token; without one every request is let in.",
} as const;

/** What the document says of an operation that needs the token where one is set, and nothing where none is. */
export const bearerSecurity = [{ bearer: [] }, {}];

const challenge = 'Bearer realm="lim"';
const bearerHeader = /^bearer +([^\s]+) *$/i;

const digest = (text: string) => createHash("sha256").update(text).digest();

/**
 * Throws `unauthorized`, with the challenge in the answer's headers, unless the request bears the token or asks for
 * health. The time it takes does not depend on the token: digests are compared, which all have one length.
 */
export function createBearerCheck(token: string): (request: FastifyRequest, reply: FastifyReply) => void {
  if (token === "") throw new LimError("bad_settings", "the bearer token is empty");
  const wanted = digest(token);
  return (request, reply) => {
    const path = request.routeOptions.url;
    if (path !== undefined && openPaths.has(path)) return;
    const given = bearerHeader.exec(request.headers.authorization ?? "")?.[1];
    // Hashed where nothing was given as well: the same work whatever came.
    const same = timingSafeEqual(digest(given ?? ""), wanted);
    if (given !== undefined && same) return;
    void reply.header("WWW-Authenticate", challenge);
    throw new LimError(
      "unauthorized",
      given === undefined ? "send Authorization: Bearer <token>" : "the bearer token is wrong",
    );
  };
}
