// Process of a platform that embeds the plugin twice: as it asks matchers, and as it searches exactly.
import { setTimeout as sleep } from "node:timers/promises";
import { createSearchPlugin, type SearchPlugin } from "@lim/search-plugin";
import { descriptorVersion } from "../build/lists.ts";
import { serveEngine } from "../engine/rpc.ts";
import { readRows, rowsIn } from "../engine/vector-file.ts";
import { type ClosedLoopFigures, closedLoop } from "../load/closed-loop.ts";

export type PathName = "index" | "exact";

export interface SearchOperations {
  [name: string]: (args: never) => Promise<unknown>;
  /** Resolves when all labels are served, and held for exact search. */
  open(args: {
    redisUrl: string;
    databaseUrl: string;
    dim: number;
    limit: number;
    queriesPath: string;
    labels: string[];
  }): Promise<void>;
  /** An answer by the other path counts as a failure. */
  search(args: {
    path: PathName;
    label: string;
    callers: number;
    durationMs: number;
  }): Promise<ClosedLoopFigures>;
}

const timeoutMs = 10_000;
const pollMs = 50;
const readyLimitMs = 60_000;

let plugins: Record<PathName, SearchPlugin> | undefined;
let queries: Float32Array[] = [];
let limit = 10;

async function ask(path: PathName, label: string, n: number): Promise<boolean> {
  const descriptor = queries[n % queries.length] as Float32Array;
  const [answer] =
    (await plugins?.[path].match({ label, references: [{ descriptor }], limit, timeoutMs })) ?? [];
  return answer?.path === path && answer.matches.length > 0;
}

async function open(args: Parameters<SearchOperations["open"]>[0]): Promise<void> {
  const { redisUrl, databaseUrl, dim, queriesPath, labels } = args;
  const count = rowsIn(queriesPath, dim);
  const rows = readRows(queriesPath, dim, 0, count);
  queries = Array.from({ length: count }, (_, i) => rows.subarray(i * dim, (i + 1) * dim));
  limit = args.limit;
  const common = { redis: { url: redisUrl }, dim, descriptorVersion };
  const facesDb = { connectionString: databaseUrl };
  const most = 1e9;
  plugins = {
    index: await createSearchPlugin(common),
    exact: await createSearchPlugin({ ...common, facesDb, exactFirstFaces: most, exactMaxFaces: most }),
  };
  const untilMs = performance.now() + readyLimitMs;
  for (const path of ["index", "exact"] as const)
    for (const label of labels)
      while (!(await ask(path, label, 0).catch(() => false))) {
        if (performance.now() > untilMs)
          throw new Error(`no ${path} answer of ${label} after ${readyLimitMs} ms`);
        await sleep(pollMs);
      }
}

function search({ path, label, callers, durationMs }: Parameters<SearchOperations["search"]>[0]) {
  return closedLoop({ callers, durationMs, ask: (n) => ask(path, label, n) });
}

serveEngine({ open, search } satisfies SearchOperations);
