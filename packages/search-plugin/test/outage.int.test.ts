import {
  createTestDatabase,
  eventually,
  type FlakyProxy,
  faceIdOf,
  startFlakyProxy,
  startTestRedis,
} from "@lim/testkit";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { createSearchPlugin } from "../src/index.ts";
import type { SearchPlugin, SearchPluginOptions } from "../src/types.ts";
import { dim, faces, makeList, refusalOf, serve } from "./support.ts";

let redis: Awaited<ReturnType<typeof startTestRedis>>;
let database: Awaited<ReturnType<typeof createTestDatabase>>;
let toRedis: FlakyProxy;
let toPostgres: FlakyProxy;
const cleanUps: (() => Promise<void>)[] = [];
beforeAll(async () => {
  [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
  toRedis = await startFlakyProxy(Number(new URL(redis.url).port));
  toPostgres = await startFlakyProxy(Number(new URL(database.url).port));
});
afterAll(async () => {
  await Promise.all([toRedis.close(), toPostgres.close()]);
  await database.drop();
  await redis.stop();
});
afterEach(async () => {
  toRedis.resume();
  toPostgres.resume();
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

const references = [{ descriptor: faces.vector(1, 0) }];
const through = (url: string, proxy: FlakyProxy) => {
  const to = new URL(url);
  to.host = `127.0.0.1:${proxy.port}`;
  return to.href;
};

async function plugin(options: Partial<SearchPluginOptions> = {}): Promise<SearchPlugin> {
  const made = await createSearchPlugin({ redis: { url: through(redis.url, toRedis) }, dim, ...options });
  cleanUps.push(() => made.close());
  return made;
}
const withDatabase = (exactFirstFaces: number) =>
  plugin({ facesDb: { connectionString: through(database.url, toPostgres) }, exactFirstFaces });

/** A list of 5, served by a matcher that is not behind the proxies. */
async function servedList(): Promise<{ label: string; faceId: string }> {
  const { listId, space } = await makeList(database.db, 5);
  const made = await serve({ redisUrl: redis.url, label: listId, faces: 5, answer: () => ({}) });
  cleanUps.push(() => made.stop());
  return { label: listId, faceId: faceIdOf(space, 1) };
}
const untilPath = (search: SearchPlugin, label: string, path: "index" | "exact") =>
  eventually(`path ${path}`, async () =>
    (await search.match({ label, references }))[0]?.path === path ? true : undefined,
  );

it("I9: while Redis is away lists are searched exactly; when it is back, by their matchers", async () => {
  const { label } = await servedList();
  const search = await withDatabase(0);
  await untilPath(search, label, "index");
  toRedis.cut();
  await untilPath(search, label, "exact");
  // The failure is remembered for a moment, and so is the view of what is served for its time to live.
  expect((await search.match({ label, references }))[0]?.path).toBe("exact");
  toRedis.resume();
  await untilPath(search, label, "index");
});

it("a request finds Redis away, and is answered when it comes back within the deadline", async () => {
  const { label } = await servedList();
  const search = await plugin();
  await untilPath(search, label, "index");
  toRedis.cut();
  const call = search.match({ label, references, timeoutMs: 30_000 });
  setTimeout(() => toRedis.resume(), 400);
  expect((await call)[0]?.path).toBe("index");
});

it("a flush with requests in flight is made up for", async () => {
  const { listId: label } = await makeList(database.db, 5);
  const raw = new Redis(redis.url);
  cleanUps.push(async () => raw.disconnect());
  let asked = 0;
  const served = await serve({
    redisUrl: redis.url,
    label,
    answer: () => (asked++ === 0 ? undefined : {}),
  });
  cleanUps.push(() => served.stop());
  const search = await plugin();
  const call = search.match({ label, references, timeoutMs: 30_000 });
  await eventually("the request is taken", () => served.seen.length === 1 || undefined);
  await raw.flushall();
  expect((await call)[0]?.path).toBe("index");
  expect(served.seen[1]?.rid).toBe(served.seen[0]?.rid);
  await untilPath(search, label, "index");
});

it("Postgres away: matchers answer also small lists, till it is back; ids of faces cannot be looked up", async () => {
  const { label, faceId } = await servedList();
  const search = await withDatabase(5);
  await untilPath(search, label, "exact");
  toPostgres.pause();
  // It hangs: the matcher is asked beside. From then on first, for a moment.
  for (let i = 0; i < 2; i++) expect((await search.match({ label, references }))[0]?.path).toBe("index");
  toPostgres.resume();
  await untilPath(search, label, "exact");
  toPostgres.cut();
  expect((await search.match({ label, references }))[0]?.path).toBe("index");
  expect(await refusalOf(search.match({ label, references: [{ faceId }] }))).toBe("postgres_unavailable");
  const unserved = await makeList(database.db, 5);
  expect(await refusalOf(search.match({ label: unserved.listId, references }))).toBe("postgres_unavailable");
});

it("Redis and Postgres away: the error tells of both", async () => {
  const { label } = await servedList();
  const search = await withDatabase(0);
  await untilPath(search, label, "index");
  toRedis.cut();
  toPostgres.cut();
  await expect(search.match({ label, references })).rejects.toMatchObject({
    errorName: "redis_unavailable",
    detail: expect.stringContaining("exact search: "),
  });
});
