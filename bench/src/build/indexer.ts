import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  type BuildOutcome,
  type BuildRequest,
  type EngineName,
  type IndexMeta,
  indexerStateSchema,
  LimError,
} from "@lim/contracts";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import { type ManagedProcess, startProcess } from "@lim/testkit";
import { type ChildMemory, watchChildren } from "./descendants.ts";
import { type BenchList, descriptorVersion } from "./lists.ts";
import { type Run, stepSignal } from "./run.ts";

/** How exact the end of a build is known. */
const pollMs = 20;
const sayEveryMs = 10_000;
const startLimitMs = 30_000;
const distOf = (name: string) =>
  fileURLToPath(new URL(`../../../apps/indexer/dist/${name}.js`, import.meta.url));

/** Modules of the processes of a build. */
export const buildModules = { build: distOf("build-child"), publish: distOf("publish-child") } as const;

export interface RunningIndexer {
  process: ManagedProcess;
  origin: string;
  root: string;
  storage: IndexStorage;
}

export interface BuildFigures {
  /** From the request until the indexer tells its outcome. */
  seconds: number;
  /** From the request until its build process told its first progress: it has opened the snapshot. */
  startSeconds: number;
  /** From the end of the build process to the outcome: the work of the publish process. */
  afterBuildSeconds: number | undefined;
  meta: IndexMeta;
  sizeBytes: number;
  children: ChildMemory[];
  /** Greatest sum of the processes that ran at one time; 0 where the system does not tell. */
  togetherBytes: number;
}

export async function startIndexer(run: Run): Promise<RunningIndexer> {
  const root = join(run.dir, "indexes");
  const process = startProcess({
    name: "indexer",
    script: distOf("main"),
    env: {
      REDIS_URL: run.redisUrl,
      DATABASE_URL: run.postgresUrl,
      LIM_STORAGE_ROOT: root,
      LIM_INDEXER_HOST: "127.0.0.1",
      LIM_INDEXER_PORT: "0",
      LIM_LOG_LEVEL: "info",
      // A benchmark that is stopped waits for no build.
      LIM_DRAIN_TIMEOUT_MS: "0",
      LIM_API_TOKEN: "",
    },
  });
  try {
    const line = await process.waitForLine(/indexer listening/, { timeoutMs: startLimitMs });
    const { port } = new URL((JSON.parse(line) as { url: string }).url);
    return { process, origin: `http://127.0.0.1:${port}`, root, storage: await openIndexStorage({ root }) };
  } catch (error) {
    await process.stop();
    throw error;
  }
}

function requestOf(run: Run, engine: EngineName, list: BenchList): BuildRequest {
  const { m, efConstruction, dim } = run.options;
  return {
    task_id: randomUUID(),
    list_id: list.listId,
    attempt: 1,
    epoch: 1,
    mode: "rebuild",
    engine,
    params: { m, ef_construction: efConstruction },
    descriptor_version: descriptorVersion,
    dim,
  };
}

interface Awaited {
  outcome: BuildOutcome;
  /** When progress was there for the first time. */
  firstProgressMs: number | undefined;
}

async function awaitOutcome(
  origin: string,
  taskId: string,
  options: { signal: AbortSignal; say: (text: string) => void },
): Promise<Awaited> {
  let firstProgressMs: number | undefined;
  let saidMs = performance.now();
  for (;;) {
    const response = await fetch(`${origin}/state`, { signal: options.signal });
    const state = indexerStateSchema.parse(await response.json());
    const outcome = state.outcomes.find(({ task_id }) => task_id === taskId);
    const nowMs = performance.now();
    if (state.progress) firstProgressMs ??= nowMs;
    if (outcome) return { outcome, firstProgressMs };
    if (state.progress && nowMs - saidMs >= sayEveryMs) {
      saidMs = nowMs;
      const { phase, done, total } = state.progress;
      options.say(`${phase} ${Math.round((100 * done) / Math.max(total, 1))} %`);
    }
    await sleep(pollMs, undefined, { signal: options.signal });
  }
}

/** One build; its index is removed again. Throws what the indexer says where it failed. */
export async function buildByIndexer(
  run: Run,
  indexer: RunningIndexer,
  build: { engine: EngineName; list: BenchList; name: string },
): Promise<BuildFigures> {
  const { engine, list, name } = build;
  const signal = stepSignal(run);
  const request = requestOf(run, engine, list);
  const watch = watchChildren(indexer.process.pid);
  try {
    const startedMs = performance.now();
    const response = await fetch(`${indexer.origin}/index_list`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
      signal,
    });
    if (response.status !== 202)
      throw new LimError("internal", `the indexer answered ${await response.text()}`);
    const { outcome, firstProgressMs } = await awaitOutcome(indexer.origin, request.task_id, {
      signal,
      say: (text) => run.say(`${name}: ${text}`),
    });
    const endedMs = performance.now();
    watch.stop();
    if (outcome.error) throw LimError.fromBody(outcome.error);
    const children = [...watch.children];
    const builder = children.find((child) => child.name === "build-child");
    return {
      seconds: (endedMs - startedMs) / 1000,
      startSeconds: ((firstProgressMs ?? endedMs) - startedMs) / 1000,
      afterBuildSeconds: builder && (endedMs - builder.lastSeenMs) / 1000,
      ...(await publishedBy(indexer, request, list)),
      children,
      togetherBytes: watch.togetherBytes,
    };
  } finally {
    watch.stop();
    await rm(join(indexer.root, request.list_id, request.task_id), { recursive: true, force: true });
  }
}

async function publishedBy({ storage }: RunningIndexer, request: BuildRequest, list: BenchList) {
  const published = await storage.find({ indexId: request.task_id, label: request.list_id });
  if (!published || published.meta.count !== list.faces)
    throw new LimError("verification_failed", `published ${published?.meta.count} of ${list.faces} faces`);
  return { meta: published.meta, sizeBytes: published.sizeBytes };
}
