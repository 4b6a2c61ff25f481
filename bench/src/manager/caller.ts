import { Agent, get } from "node:http";
import { LimError } from "@lim/contracts";

/** GET requests over one kept connection: what a caller beside the manager waits for, without a client library. */
export interface Caller {
  /** The parsed body; any other status than 200 is an error. */
  json<T>(path: string): Promise<T>;
  /** Milliseconds until the whole body has come. */
  timed(path: string): Promise<number>;
  close(): void;
}

const timeoutMs = 120_000;

export function createCaller(baseUrl: string): Caller {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const body = (path: string) =>
    new Promise<string>((resolve, reject) => {
      const request = get(baseUrl + path, { agent, timeout: timeoutMs }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          if (response.statusCode === 200) resolve(text);
          else reject(new LimError("internal", `GET ${path}: ${response.statusCode} ${text.slice(0, 300)}`));
        });
      });
      request.on("timeout", () =>
        request.destroy(new LimError("timeout", `GET ${path}: ${timeoutMs} ms passed`)),
      );
      request.on("error", reject);
    });
  return {
    json: async <T>(path: string) => JSON.parse(await body(path)) as T,
    async timed(path) {
      const startedMs = performance.now();
      await body(path);
      return performance.now() - startedMs;
    },
    close: () => agent.destroy(),
  };
}
