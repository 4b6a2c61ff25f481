import { createServer, request as sendRequest } from "node:http";
import type { AddressInfo } from "node:net";

/** Moments of a request that passes: before the server gets it, and before its client gets the answer. */
export interface HttpGateHooks {
  onRequest?(method: string, path: string): Promise<void> | void;
  onAnswer?(method: string, path: string, status: number): Promise<void> | void;
}

/** A proxy in front of an HTTP server of 127.0.0.1. What a client sent goes on even where the client is gone by then. */
export interface HttpGate {
  readonly origin: string;
  hooks(hooks: HttpGateHooks): void;
  close(): Promise<void>;
}

export async function startHttpGate(target: string): Promise<HttpGate> {
  let hooks: HttpGateHooks = {};
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("error", () => {});
    response.on("error", () => {});
    request.on("end", () => {
      void (async () => {
        const { method = "GET", url = "/" } = request;
        await hooks.onRequest?.(method, url);
        const { connection: _connection, host: _host, ...headers } = request.headers;
        const forward = sendRequest(new URL(url, target), { method, headers, agent: false }, (answer) => {
          const parts: Buffer[] = [];
          answer.on("data", (part: Buffer) => parts.push(part));
          answer.on("end", () => {
            const status = answer.statusCode ?? 502;
            void Promise.resolve(hooks.onAnswer?.(method, url, status)).then(() => {
              const type = answer.headers["content-type"];
              response.writeHead(status, type === undefined ? {} : { "content-type": type });
              response.end(Buffer.concat(parts));
            });
          });
        });
        forward.on("error", () => response.destroy());
        forward.end(Buffer.concat(chunks));
      })();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    hooks(next) {
      hooks = next;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
