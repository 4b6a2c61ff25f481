import { rm } from "node:fs/promises";
import { type LocalServer, startRedis } from "@lim/local-servers";
import { makeRunFolder, testRoot } from "./test-root.ts";

export interface TestRedis extends LocalServer {
  /** Stops it (if it still runs) and starts it again, empty, on the same port. */
  restart(): Promise<void>;
}

/** A private Redis for one test file; `extraArgs` go to its program. Its folder goes with `stop`. */
export async function startTestRedis(
  options: { extraArgs?: readonly string[]; program?: string } = {},
): Promise<TestRedis> {
  const dir = await makeRunFolder();
  const ledgerDir = await testRoot();
  const start = (port?: number) =>
    startRedis({
      dir,
      ledgerDir,
      extraArgs: options.extraArgs ?? [],
      ...(options.program === undefined ? {} : { program: options.program }),
      ...(port === undefined ? {} : { port }),
    });
  let server = await start();
  const port = Number(new URL(server.url).port);
  return {
    url: server.url,
    get pids() {
      return server.pids;
    },
    async restart() {
      await server.stop();
      server = await start(port);
    },
    async stop() {
      await server.stop();
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
