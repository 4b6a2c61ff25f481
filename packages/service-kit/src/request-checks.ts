import { LimError } from "@lim/contracts";
import type { FastifyRequest } from "fastify";

/** Named limits of every request. Headers together with the address have Node's own, 16 KiB. */
export const httpLimits = {
  defaultBodyBytes: 64 * 1024,
  /** Of the query string as it is sent, encoded. */
  maxQueryChars: 8_192,
  /** Of one decoded parameter of the path. */
  maxParamChars: 100,
  /** A request that has not arrived whole by then is ended (slow senders hold no connection forever). */
  requestTimeoutMs: 30_000,
  /** Above what load balancers keep (60 s), so that they close first. */
  keepAliveTimeoutMs: 72_000,
  /** What is still being answered when the service closes is cut off after this; below what services give themselves to stop. */
  closeGraceMs: 5_000,
} as const;

/** Throws what is wrong with a request whatever its operation: bad_input or payload_too_large. */
export function checkRequest(request: FastifyRequest): void {
  const { raw } = request;
  // Node would refuse it without the one form of error, so it is told not to.
  if (raw.httpVersion === "1.1" && raw.headers.host === undefined)
    throw new LimError("bad_input", "the header Host is missing");
  const address = raw.url ?? "";
  const at = address.search(/[?#]/);
  if (at < 0) return;
  const query = address.slice(at + 1);
  if (query.length > httpLimits.maxQueryChars)
    throw new LimError(
      "payload_too_large",
      `the query string has ${query.length} characters, at most ${httpLimits.maxQueryChars} are taken`,
    );
  if (decoded(query).includes("\0")) throw new LimError("bad_input", "query: a NUL character");
}

/** The parser takes what it cannot decode as it is, and would let through a value that nobody meant. */
function decoded(query: string): string {
  try {
    return decodeURIComponent(query);
  } catch {
    throw new LimError("bad_input", "query: a percent-encoding is broken");
  }
}

/**
 * Throws bad_input where an operation that declares no body gets one. A filter or `dry_run` that someone put there
 * would be passed over, and more would be done than was asked for.
 */
export function checkNoBody(request: FastifyRequest): void {
  const { schema } = request.routeOptions;
  if (!schema?.operationId || schema.body || request.body === undefined || request.body === null) return;
  throw new LimError("bad_input", "body: this operation takes none; its parameters belong in the address");
}
