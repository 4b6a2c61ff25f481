import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defaults, type EngineName, encodeDescriptor } from "@lim/contracts";
import {
  connectRedis,
  createLabelWatcher,
  createMatchClient,
  defaultKeyNames,
  type LabelWatcher,
  type MatchClient,
} from "@lim/coordination";
import type { FacesDb, ImportRow } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { eventually, type FaceGenerator, faceIdOf, type ManagedProcess, startProcess } from "@lim/testkit";
import { createKeyedIndex, type KeyedIndex, loadEngine } from "@lim/vector-index";
import { type BenchServers, startBenchServers } from "../servers.ts";

const params = { m: defaults.m, efConstruction: defaults.efConstruction };
const readyLimitMs = 300_000;
const { descriptorVersion } = defaults;

type Closers = (() => Promise<unknown>)[];

/** Servers of a run, a storage, and a client of the streams. What `closers` gets ends them, last one first. */
export interface MatchBench extends BenchServers {
  storageRoot: string;
  client: MatchClient;
  watcher: LabelWatcher;
}

export async function startMatchBench(dir: string, closers: Closers): Promise<MatchBench> {
  const servers = await startBenchServers(dir, closers);
  const connection = connectRedis({ url: servers.redisUrl, name: "bench" });
  closers.push(() => connection.close());
  const watcher = createLabelWatcher({ redis: connection, ttlMs: defaults.labelKeyTtlMs, pollMs: 200 });
  closers.push(() => watcher.close());
  const client = createMatchClient({ redis: connection, keys: defaultKeyNames });
  closers.push(() => client.close());
  return { ...servers, storageRoot: join(dir, "indexes"), client, watcher };
}

/** A new list of persons 0..persons-1, face ids by `faceIdOf(name, person)`. */
export async function createBenchList(
  db: FacesDb,
  options: { name: string; generator: FaceGenerator; persons: number },
): Promise<string> {
  const { name, generator, persons } = options;
  const { listId } = await db.createList({ name });
  const { dim } = generator.params;
  async function* rows(): AsyncGenerator<ImportRow> {
    for (let person = 0; person < persons; person++)
      yield { line: person + 1, faceId: faceIdOf(name, person), vector: generator.vector(person, 0) };
  }
  await db.importRows({ listId, descriptorVersion, dim, sourceKey: name, rows: rows() });
  return listId;
}

/** Builds and publishes the list's index; the caller closes the object that it was built in. */
export async function publishBenchIndex(
  { db, storageRoot }: { db: FacesDb; storageRoot: string },
  options: { listId: string; engine: EngineName; dim: number },
): Promise<{ indexId: string; keyed: KeyedIndex }> {
  const { listId, dim } = options;
  const storage = await openIndexStorage({ root: storageRoot });
  const engine = await loadEngine(options.engine);
  const snapshot = await db.openSnapshot({ listId, descriptorVersion, dim });
  const capacity = Math.max(16, snapshot.faceCount);
  const keyed = createKeyedIndex(await engine.create({ dim, capacity, params: { ...params, seed: 7 } }));
  const indexId = randomUUID();
  try {
    for await (const batch of snapshot.batches) await keyed.addNew(batch.faceIds, batch.vectors);
    const staging = await storage.stage({ label: listId, indexId, attempt: 1 });
    const content = {
      label: listId,
      historyId: snapshot.historyId,
      descriptorVersion,
      revision: snapshot.revision,
      engine: options.engine,
      params,
      mode: "rebuild" as const,
      removedSinceRebuild: 0,
      skipped: snapshot.skipped,
    };
    await staging.publish(keyed, content, { phases: {} });
  } finally {
    await snapshot.close();
  }
  return { indexId, keyed };
}

/** A matcher process of its own, listening. `env` is added to what it needs. */
export async function startBenchMatcher(
  bench: MatchBench,
  options: { dim: number; env?: Readonly<Record<string, string>> },
  closers: Closers,
): Promise<{ process: ManagedProcess; url: string }> {
  const matcher = startProcess({
    name: "indexed-matcher",
    script: fileURLToPath(new URL("../../../apps/indexed-matcher/dist/main.js", import.meta.url)),
    env: {
      REDIS_URL: bench.redisUrl,
      DATABASE_URL: bench.postgresUrl,
      LIM_STORAGE_ROOT: bench.storageRoot,
      LIM_MATCHER_HOST: "127.0.0.1",
      LIM_MATCHER_PORT: "0",
      VL_LIM_MATCHER_HOST: "127.0.0.1",
      LIM_DESCRIPTOR_DIM: String(options.dim),
      LIM_API_TOKEN: "",
      ...options.env,
    },
  });
  closers.push(() => matcher.stop());
  const line = await matcher.waitForLine(/indexed-matcher listening/, { timeoutMs: readyLimitMs });
  return { process: matcher, url: (JSON.parse(line) as { url: string }).url };
}

export async function untilServed(bench: MatchBench, listId: string): Promise<void> {
  await eventually("the list is served", () => bench.watcher.served(listId)[0], { timeoutMs: readyLimitMs });
}

/** Second images of the first persons: what is searched for. */
export function probesOf(generator: FaceGenerator, persons: number): Buffer[] {
  return Array.from({ length: persons }, (_, person) =>
    encodeDescriptor(generator.vector(person, 1), descriptorVersion),
  );
}
