import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type ManagedProcess, startProcess } from "@lim/testkit";
import type { Run } from "./run.ts";

const pollMs = 10;

export const matcherModule = fileURLToPath(
  new URL("../../../apps/indexed-matcher/dist/main.js", import.meta.url),
);

export interface RunningMatcher {
  process: ManagedProcess;
  url: string;
  /** From its start until it says that it is ready. */
  readySeconds: number;
}

/** One matcher that is ready; whoever starts it stops it. */
export async function startMatcher(
  run: Run,
  root: string,
  options: { env?: Record<string, string>; nodeArgs?: string[] } = {},
): Promise<RunningMatcher> {
  const startedMs = performance.now();
  const process = startProcess({
    name: "indexed-matcher",
    script: matcherModule,
    nodeArgs: ["--enable-source-maps", ...(options.nodeArgs ?? [])],
    env: {
      LIM_SETTINGS_FILE: "",
      REDIS_URL: run.redisUrl,
      DATABASE_URL: run.postgresUrl,
      LIM_STORAGE_ROOT: root,
      LIM_MATCHER_HOST: "127.0.0.1",
      LIM_MATCHER_PORT: "0",
      VL_LIM_MATCHER_HOST: "127.0.0.1",
      LIM_DESCRIPTOR_DIM: String(run.options.dim),
      LIM_EF_SEARCH: String(run.options.ef),
      LIM_API_TOKEN: "",
      ...options.env,
    },
  });
  try {
    const line = await process.waitForLine(/indexed-matcher listening/, { timeoutMs: run.options.limitMs });
    const { url } = JSON.parse(line) as { url: string };
    const signal = AbortSignal.any([run.signal, AbortSignal.timeout(run.options.limitMs)]);
    while (!(await fetch(`${url}/readyz`, { signal })).ok) await sleep(pollMs, undefined, { signal });
    return { process, url, readySeconds: (performance.now() - startedMs) / 1000 };
  } catch (error) {
    await process.stop();
    throw error;
  }
}

export async function withMatcher<T>(
  run: Run,
  root: string,
  options: Parameters<typeof startMatcher>[2],
  work: (matcher: RunningMatcher) => Promise<T>,
): Promise<T> {
  const matcher = await startMatcher(run, root, options);
  try {
    return await work(matcher);
  } finally {
    await matcher.process.stop();
  }
}
