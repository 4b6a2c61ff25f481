import type { FastifyReply } from "fastify";

/**
 * Fires when the client goes away before it has its answer. For requests with a body: fastify's `request.signal` fires
 * for those as soon as the body was read.
 */
export function clientGone(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) gone.abort(new DOMException("the client has gone", "AbortError"));
  });
  return gone.signal;
}
