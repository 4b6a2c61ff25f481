import { randomUUID } from "node:crypto";
import { defaults, isLimError, type MatchReply } from "@lim/contracts";
import {
  connectRedis,
  createLabelAnnouncer,
  createLabelWatcher,
  createMatchClient,
  createMatchConsumer,
  defaultKeyNames,
  type MatchEntry,
} from "@lim/coordination";
import { type FacesDb, openFacesDb } from "@lim/faces-db";
import { createFaceGenerator, faceIdOf } from "@lim/testkit";
import { ExactSearch } from "../src/exact-search.ts";
import { EmbeddedSearch } from "../src/plugin.ts";
import type { SearchPlugin } from "../src/types.ts";

export const dim = 32;
export const descriptorVersion = 1;
export const faces = createFaceGenerator({ dim, effectiveDim: 24, seed: 5 });
export const shape = { dim, descriptorVersion };

export function facesOf(space: string, count: number, first = 0) {
  return Array.from({ length: count }, (_, i) => ({
    faceId: faceIdOf(space, first + i),
    vector: faces.vector(first + i, 0),
  }));
}

export async function makeList(db: FacesDb, count: number): Promise<{ listId: string; space: string }> {
  const space = randomUUID();
  const { listId } = await db.createList({ name: space });
  await addFaces(db, listId, facesOf(space, count));
  return { listId, space };
}

export async function addFaces(
  db: FacesDb,
  listId: string,
  rows: { faceId: string; vector: Float32Array }[],
): Promise<void> {
  for (let at = 0; at < rows.length; at += 1_000)
    await db.putFaces({ listIds: [listId], descriptorVersion, faces: rows.slice(at, at + 1_000) });
}

/** The real database; `counts` says how often each of its methods was called. */
export function counting(db: FacesDb): { db: FacesDb; counts: Map<string, number> } {
  const counts = new Map<string, number>();
  const proxy = new Proxy(db, {
    get(target, name) {
      const member = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      return (...args: unknown[]) => {
        counts.set(String(name), (counts.get(String(name)) ?? 0) + 1);
        return Reflect.apply(member, target, args);
      };
    },
  });
  return { db: proxy, counts };
}

/** A plugin with its parts in reach. */
export async function assemble(options: {
  redisUrl: string;
  databaseUrl: string;
  exactMaxFaces?: number;
  exactFirstFaces?: number;
  exactCacheBytes?: number;
}): Promise<{ plugin: SearchPlugin; exact: ExactSearch; counts: Map<string, number> }> {
  const redis = connectRedis({ url: options.redisUrl, name: "plugin-test" });
  const { db, counts } = counting(openFacesDb({ connectionString: options.databaseUrl }));
  const exact = new ExactSearch(db, shape, {
    maxFaces: options.exactMaxFaces ?? 50_000,
    cacheBytes: options.exactCacheBytes ?? 1 << 30,
  });
  const watcher = createLabelWatcher({ redis, ttlMs: 2_000, pollMs: 50 });
  await watcher.refresh();
  const plugin = new EmbeddedSearch({
    watcher,
    client: createMatchClient({ redis, keys: defaultKeyNames }),
    faces: { db, exact },
    settings: {
      ...shape,
      defaultTimeoutMs: 5_000,
      exactMaxFaces: options.exactMaxFaces ?? 50_000,
      exactFirstFaces: options.exactFirstFaces ?? 0,
    },
    closeConnections: () => redis.close(),
  });
  return { plugin, exact, counts };
}

export interface FakeMatcher {
  indexId: string;
  seen: MatchEntry[];
  stop(): Promise<void>;
}

/** A real consumer with real label keys, whose search is the handler given. */
export async function serve(options: {
  redisUrl: string;
  label: string;
  descriptorVersion?: number;
  /** What its label key says; the default is too many for exact search. */
  faces?: number;
  matcherId?: string;
  answer: (entry: MatchEntry) => Partial<MatchReply> | undefined;
}): Promise<FakeMatcher> {
  const redis = connectRedis({ url: options.redisUrl, name: "matcher-test" });
  const indexId = randomUUID();
  const consumer = createMatchConsumer({
    redis,
    keys: defaultKeyNames,
    consumerName: randomUUID(),
    batchSize: 16,
  });
  const announcer = createLabelAnnouncer({
    redis,
    matcherId: options.matcherId ?? "test:1",
    ttlMs: 2_000,
    renewMs: 500,
  });
  await consumer.setLabels([options.label]);
  const stop = new AbortController();
  const seen: MatchEntry[] = [];
  const running = consumer.run(
    async (batch) => {
      seen.push(...batch);
      for (const entry of batch) {
        const answer = options.answer(entry);
        if (!answer) continue;
        const reply: MatchReply = {
          rid: entry.rid ?? "",
          status_code: 200,
          result: [],
          error: null,
          index_id: indexId,
          revision: 3,
          timings: { queue_ms: entry.waitedMs, search_ms: 0.5 },
          ...answer,
        };
        await consumer.reply([{ entry, reply }]);
      }
    },
    { signal: stop.signal },
  );
  await announcer.announce(options.label, {
    index_id: indexId,
    revision: 3,
    descriptor_version: options.descriptorVersion ?? descriptorVersion,
    dim,
    count: options.faces ?? 1_000_000,
    engine: defaults.engine,
  });
  return {
    indexId,
    seen,
    async stop() {
      await announcer.close();
      stop.abort();
      await running;
      await consumer.close();
      await redis.close();
    },
  };
}

/** Name of the LimError that the promise rejects with. */
export async function refusalOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (thrown) {
    if (isLimError(thrown)) return thrown.errorName;
    throw thrown;
  }
  return "answered";
}
