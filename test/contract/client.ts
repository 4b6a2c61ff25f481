import { Agent, type IncomingMessage, request as openRequest } from "node:http";
import type { Wire } from "./render.ts";

export interface Answer {
  status: number;
  /** Names in lower case. */
  headers: Readonly<Record<string, string | undefined>>;
  body: Buffer;
  elapsedMs: number;
  /** The client stopped reading an endless answer. */
  cut: boolean;
}

export type Outcome = { answer: Answer } | { failure: string };

export interface Client {
  send(wire: Wire): Promise<Outcome>;
  close(): void;
}

const eventStream = "text/event-stream";

/**
 * Sends requests as they are, faults included, over kept connections. An event stream is read for `streamMs`. What is
 * not answered in `timeoutMs` is a failure.
 */
export function createClient(options: {
  url: string;
  maxConnections: number;
  timeoutMs: number;
  streamMs: number;
}): Client {
  const { hostname, port } = new URL(options.url);
  const agent = new Agent({ keepAlive: true, maxSockets: options.maxConnections });
  const once = (wire: Wire): Promise<Outcome & { reused?: boolean }> =>
    new Promise((resolve) => {
      const startMs = performance.now();
      const request = openRequest({
        host: hostname,
        port,
        agent,
        method: wire.method,
        path: "/",
        // A request that HTTP forbids must reach the service; only its answer is judged.
        setHost: !wire.headers.some(([name]) => name.toLowerCase() === "host"),
      });
      // The setter would refuse broken targets.
      Object.defineProperty(request, "path", { value: wire.target });
      // After the path: some headers make the client write the first line at once.
      for (const [name, value] of wire.headers) request.setHeader(name, value);
      if (wire.body) request.setHeader("Content-Length", wire.body.length);
      const timer = setTimeout(
        () => request.destroy(new Error(`no answer in ${options.timeoutMs} ms`)),
        options.timeoutMs,
      );
      const settle = (outcome: Outcome) => {
        clearTimeout(timer);
        resolve({ ...outcome, reused: request.reusedSocket });
      };
      request.on("error", (error) => settle({ failure: error.message }));
      request.on("response", (response) => {
        readBody(response, options.streamMs, (body, cut) => {
          settle({
            answer: {
              status: response.statusCode ?? 0,
              headers: response.headers as Record<string, string>,
              body,
              elapsedMs: performance.now() - startMs,
              cut,
            },
          });
          if (cut) request.destroy();
        });
      });
      request.end(wire.body);
    });
  return {
    async send(wire) {
      let outcome = await once(wire);
      for (let tries = 1; tries < maxTries && "failure" in outcome && isNoAnswer(wire, outcome); tries++)
        outcome = await once(wire);
      return outcome;
    },
    close: () => agent.destroy(),
  };
}

const maxTries = 5;
/** A service may refuse a body of this size before it is whole, and end the connection. */
const largeBytes = 64 * 1024;

/**
 * Says nothing about the service: a kept connection may end in the moment it is used again, and an answer to a body
 * that is still being sent may be lost with the connection.
 */
function isNoAnswer(wire: Wire, outcome: { failure: string; reused?: boolean }): boolean {
  const isLarge = (wire.body?.length ?? 0) >= largeBytes;
  return (outcome.reused === true || isLarge) && /ECONNRESET|socket hang up|EPIPE/.test(outcome.failure);
}

function readBody(
  response: IncomingMessage,
  streamMs: number,
  done: (body: Buffer, cut: boolean) => void,
): void {
  const chunks: Buffer[] = [];
  let isDone = false;
  const finish = (cut: boolean) => {
    if (isDone) return;
    isDone = true;
    clearTimeout(timer);
    done(Buffer.concat(chunks), cut);
  };
  const isStream = response.headers["content-type"]?.startsWith(eventStream) === true;
  const timer = isStream ? setTimeout(() => finish(true), streamMs) : undefined;
  response.on("data", (chunk: Buffer) => chunks.push(chunk));
  response.on("end", () => finish(false));
  // Also where the connection broke in the middle: what is there fails its check.
  response.on("close", () => finish(false));
  response.on("error", () => finish(false));
}
