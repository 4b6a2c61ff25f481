import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { limits, type Task, writeUuid } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { openProcessLedger } from "@lim/local-servers";
import { createSearchPlugin, type SearchPlugin } from "@lim/search-plugin";
import {
  createTestDatabase,
  eventually,
  faceIdOf,
  type Servers,
  type Service,
  type ServiceKind,
  startService,
  startTestRedis,
  stopAll,
  type TestRedis,
} from "@lim/testkit";
import { createExactIndex, type ExactIndex } from "@lim/vector-index";

export const limMain = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
export const descriptorVersion = 1;

/** Real servers and real service processes of one test file, with times short enough to watch them fail and heal. */
export interface TestStack {
  redis: TestRedis;
  db: FacesDb;
  databaseUrl: string;
  storageRoot: string;
  services: Service[];
  start(kind: ServiceKind, env?: Readonly<Record<string, string>>): Promise<Service>;
  plugin(options?: { exact?: boolean }): Promise<SearchPlugin>;
  kill(service: Service): Promise<void>;
  stop(): Promise<void>;
}

/** Short enough to wait for the end of what was killed; label keys of others stay while a test looks. */
export const times = { leaseTtlMs: 2_000, labelKeyTtlMs: 600_000, shortLabelKeyTtlMs: 2_000 } as const;

export async function startTestStack(options: {
  dim: number;
  minListSize: number;
  env?: Readonly<Record<string, string>>;
}): Promise<TestStack> {
  const dir = await mkdtemp(join(tmpdir(), "lim-e2e-"));
  const redis = await startTestRedis();
  const database = await createTestDatabase();
  const servers: Servers = {
    redis,
    postgres: { url: database.url, pids: [], stop: () => database.drop() },
    ledger: await openProcessLedger(dir),
    ledgerDir: dir,
  };
  const storageRoot = join(dir, "index-storage");
  const services: Service[] = [];
  const plugins: SearchPlugin[] = [];
  const env = {
    LIM_STORAGE_ROOT: storageRoot,
    LIM_DESCRIPTOR_DIM: String(options.dim),
    LIM_DESCRIPTOR_VERSION: String(descriptorVersion),
    LIM_MIN_INDEXING_LIST_SIZE: String(options.minListSize),
    LIM_MANAGER_LEASE_TTL_MS: String(times.leaseTtlMs),
    LIM_LOOKUP_PERIOD_MS: "200",
    LIM_RELOAD_PERIOD_MS: "500",
    LIM_LABEL_KEY_TTL_MS: String(times.labelKeyTtlMs),
    LIM_LABEL_KEY_RENEW_MS: "500",
    // Whoever runs the tests may have one.
    LIM_API_TOKEN: "",
    ...options.env,
  };
  return {
    redis,
    db: database.db,
    databaseUrl: database.url,
    storageRoot,
    services,
    async start(kind, extra = {}) {
      const name = `${kind}-${services.filter((service) => service.kind === kind).length + 1}`;
      const service = await startService(servers, { kind, name, port: 0, env: { ...env, ...extra } });
      services.push(service);
      return service;
    },
    async plugin({ exact = false } = {}) {
      const plugin = await createSearchPlugin({
        redis: { url: redis.url },
        dim: options.dim,
        descriptorVersion,
        ...(exact ? { facesDb: { connectionString: database.url } } : {}),
      });
      plugins.push(plugin);
      return plugin;
    },
    async kill(service) {
      service.process.kill("SIGKILL");
      await service.process.exited;
      services.splice(services.indexOf(service), 1);
    },
    async stop() {
      await Promise.allSettled(plugins.map((plugin) => plugin.close()));
      await stopAll(services, servers);
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

export interface TestFaces {
  ids: string[];
  vectors: Float32Array[];
}

export function facesOf(space: string, matrix: Float32Array, dim: number): TestFaces {
  const count = matrix.length / dim;
  return {
    ids: Array.from({ length: count }, (_, i) => faceIdOf(space, i)),
    vectors: Array.from({ length: count }, (_, i) => matrix.subarray(i * dim, (i + 1) * dim)),
  };
}

export async function importFaces(db: FacesDb, name: string, faces: TestFaces, dim: number): Promise<string> {
  const { listId } = await db.createList({ name });
  const result = await db.importRows({
    listId,
    descriptorVersion,
    dim,
    sourceKey: name,
    rows: (async function* () {
      for (const [i, faceId] of faces.ids.entries())
        yield { line: i + 1, faceId, vector: faces.vectors[i] ?? new Float32Array(0) };
    })(),
  });
  if (result.imported !== faces.ids.length) throw new Error(`imported ${result.imported}`);
  return listId;
}

export function oracleOf(faces: TestFaces, dim: number): ExactIndex {
  const exact = createExactIndex({ dim, capacity: faces.ids.length });
  const ids = new Uint8Array(faces.ids.length * 16);
  const vectors = new Float32Array(faces.ids.length * dim);
  for (const [row, faceId] of faces.ids.entries()) {
    writeUuid(faceId, ids, row * 16);
    vectors.set(faces.vectors[row] ?? [], row * dim);
  }
  exact.upsertMany(ids, vectors);
  return exact;
}

export async function untilServed(plugin: SearchPlugin, label: string, matchers: number): Promise<void> {
  await eventually(
    `${matchers} matchers serve ${label}`,
    () => plugin.labels().filter((served) => served.label === label).length === matchers || undefined,
    { timeoutMs: 60_000 },
  );
}

export async function managerCall<T>(
  service: Service,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; body: T }> {
  const response = await fetch(service.url + path, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  return { status: response.status, body: (text === "" ? undefined : JSON.parse(text)) as T };
}

export async function untilTaskEnds(manager: Service, taskId: string): Promise<Task> {
  return eventually(
    `task ${taskId} ends`,
    async () => {
      const { body } = await managerCall<Task>(manager, "GET", `/1/tasks/${taskId}`);
      return body.status === "success" || body.status === "error" ? body : undefined;
    },
    { timeoutMs: 90_000 },
  );
}

/** Matches one after the other from `callers` until stopped; every failure is kept. */
export function matchUnderLoad(
  plugin: SearchPlugin,
  label: string,
  vectors: readonly Float32Array[],
  callers = 4,
): { seen: Map<string, number>; stop(): Promise<{ sent: number; failures: string[] }> } {
  const seen = new Map<string, number>();
  const failures: string[] = [];
  let sent = 0;
  let stopping = false;
  const running = Array.from({ length: callers }, async () => {
    while (!stopping) {
      const descriptor = vectors[sent++ % vectors.length] ?? new Float32Array(0);
      try {
        const [answer] = await plugin.match({
          label,
          references: [{ descriptor }],
          limit: 3,
          timeoutMs: limits.maxMatchTimeoutMs,
        });
        const indexId = answer?.indexId ?? "none";
        seen.set(indexId, (seen.get(indexId) ?? 0) + 1);
      } catch (error) {
        failures.push(error instanceof Error ? error.message : String(error));
        // A refusal without any I/O (no matcher serves the label) must not keep everything else from running.
        await setImmediate();
      }
    }
  });
  return {
    seen,
    async stop() {
      stopping = true;
      await Promise.all(running);
      return { sent, failures };
    },
  };
}
