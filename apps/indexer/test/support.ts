import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  type BuildOutcome,
  type BuildRequest,
  defaults,
  errorBodySchema,
  type IndexerState,
  indexerStateSchema,
} from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import {
  createFaceGenerator,
  createTestDatabase,
  eventually,
  faceIdOf,
  type ManagedProcess,
  startProcess,
  startTestRedis,
} from "@lim/testkit";
import { expect } from "vitest";

export const dim = 64;
const script = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const faces = createFaceGenerator({ dim, seed: 7, effectiveDim: 32 });

export interface Stack {
  redisUrl: string;
  databaseUrl: string;
  db: FacesDb;
  root: string;
  storage: IndexStorage;
  /** A folder beside the storage. */
  scratch: string;
  /** It comes back empty, on the same port. */
  restartRedis(): Promise<void>;
  close(): Promise<void>;
}

/** Redis, a database and a storage folder for one test file. */
export async function startStack(): Promise<Stack> {
  const scratch = await mkdtemp(join(tmpdir(), "lim-indexer-test-"));
  const root = join(scratch, "storage");
  await mkdir(root);
  const [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
  return {
    redisUrl: redis.url,
    databaseUrl: database.url,
    db: database.db,
    root,
    storage: await openIndexStorage({ root }),
    scratch,
    restartRedis: () => redis.restart(),
    async close() {
      await Promise.allSettled([redis.stop(), database.drop()]);
      await rm(scratch, { recursive: true, force: true });
    },
  };
}

export interface TestIndexer {
  process: ManagedProcess;
  url: string;
  state(): Promise<IndexerState>;
  post(path: string, body: unknown): Promise<{ status: number; body: unknown }>;
  /** Posts, expects a refusal, returns its error. */
  refusal(path: string, body: unknown): Promise<{ status: number; error_code: number; detail: string }>;
  outcome(request: { task_id: string; attempt: number }): Promise<BuildOutcome>;
  /** Waits until the build is in the phase, with at least `done` done. */
  reach(phase: string, done?: number): Promise<IndexerState>;
  /** Process id of the newest build. */
  buildPid(): Promise<number>;
}

export async function startIndexer(stack: Stack, env: Record<string, string> = {}): Promise<TestIndexer> {
  const running = startProcess({
    name: "indexer",
    script,
    env: {
      REDIS_URL: stack.redisUrl,
      DATABASE_URL: stack.databaseUrl,
      LIM_STORAGE_ROOT: stack.root,
      LIM_INDEXER_HOST: "127.0.0.1",
      LIM_INDEXER_PORT: "0",
      LIM_INDEXER_TTL_MS: "1500",
      // Whoever runs the tests may have one.
      LIM_API_TOKEN: "",
      ...env,
    },
  });
  const line = await running.waitForLine(/indexer listening/, { timeoutMs: 60_000 });
  const url = `http://127.0.0.1:${new URL((JSON.parse(line) as { url: string }).url).port}`;
  const state = async () => indexerStateSchema.parse(await (await fetch(`${url}/state`)).json());
  const post = async (path: string, body: unknown) => {
    const response = await fetch(`${url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  };
  return {
    process: running,
    url,
    state,
    post,
    async refusal(path, body) {
      const answer = await post(path, body);
      return { status: answer.status, ...errorBodySchema.parse(answer.body) };
    },
    outcome: (request) =>
      eventually(
        "the build's outcome",
        async () =>
          (await state()).outcomes.find(
            (outcome) => outcome.task_id === request.task_id && outcome.attempt === request.attempt,
          ),
        { timeoutMs: 90_000 },
      ),
    reach: (phase, done = 0) =>
      eventually(
        `phase ${phase}`,
        async () => {
          const now = await state();
          return now.progress?.phase === phase && now.progress.done >= done ? now : undefined;
        },
        { timeoutMs: 60_000, intervalMs: 10 },
      ),
    async buildPid() {
      const began = running.lines.filter((text) => text.includes('"build_pid"')).at(-1);
      return (JSON.parse(began ?? "{}") as { build_pid: number }).build_pid;
    },
  };
}

let epoch = 1;
/** A later request has a higher epoch unless told otherwise. */
export function buildRequest(listId: string, over: Partial<BuildRequest> = {}): BuildRequest {
  return {
    task_id: randomUUID(),
    list_id: listId,
    attempt: 1,
    epoch: ++epoch,
    mode: "rebuild",
    engine: defaults.engine,
    params: { m: 16, ef_construction: 200 },
    descriptor_version: 1,
    dim,
    ...over,
  };
}

/** Makes two thousand insertions take many seconds: time to do something to a running build. */
export const slowParams = { m: 100, ef_construction: 2000 };

export const vectorOf = (person: number, image = 0) => faces.vector(person, image);
export const faceOf = (list: string, person: number) => faceIdOf(list, person);

/** A new list of persons `first` to `first + count - 1`. */
export async function createList(db: FacesDb, count: number, first = 0): Promise<string> {
  const { listId } = await db.createList({ name: `list-${randomUUID()}` });
  await putPersons(db, listId, first, count);
  return listId;
}

export async function putPersons(
  db: FacesDb,
  listId: string,
  first: number,
  count: number,
  image = 0,
): Promise<void> {
  if (count === 0) return;
  const people = Array.from({ length: count }, (_, i) => first + i);
  await db.putFaces({
    listIds: [listId],
    descriptorVersion: 1,
    faces: people.map((person) => ({ faceId: faceOf(listId, person), vector: vectorOf(person, image) })),
  });
}

/** Nobody sees an index of the task, and none of its files waits in the staging. */
export async function expectNothingOf(stack: Stack, request: { task_id: string }): Promise<void> {
  expect(await stack.storage.find({ indexId: request.task_id })).toBeUndefined();
  expect((await stagingOf(stack)).filter((name) => name.startsWith(request.task_id))).toEqual([]);
}

/** The next attempt of a task that failed, at once and with small parameters, publishes `count` faces. */
export async function expectNextAttempt(
  stack: Stack,
  indexer: TestIndexer,
  failed: BuildRequest,
  count: number,
): Promise<void> {
  const retry = buildRequest(failed.list_id, { task_id: failed.task_id, attempt: failed.attempt + 1 });
  expect(await indexer.post("/index_list", retry)).toMatchObject({ status: 202 });
  expect((await indexer.outcome(retry)).error).toBeNull();
  const meta = await stack.storage.verify({ label: failed.list_id, indexId: failed.task_id });
  expect(meta.count).toBe(count);
  expect(await stagingOf(stack)).toEqual([]);
}

/** Folders of unfinished attempts. */
export async function stagingOf(stack: Stack): Promise<string[]> {
  return readdir(join(stack.root, ".staging")).catch(() => []);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
