import { type ErrorName, LimError } from "@lim/contracts";
import { connectRedis, createLabelAnnouncer } from "@lim/coordination";
import { createTestDatabase, eventually, faceIdOf, startTestRedis } from "@lim/testkit";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createSearchPlugin } from "../src/index.ts";
import type { SearchPlugin, SearchPluginOptions } from "../src/types.ts";
import { dim, faces, makeList, refusalOf, serve } from "./support.ts";

let redis: Awaited<ReturnType<typeof startTestRedis>>;
let database: Awaited<ReturnType<typeof createTestDatabase>>;
let raw: Redis;
const cleanUps: (() => Promise<void>)[] = [];
beforeAll(async () => {
  [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
  raw = new Redis(redis.url);
});
afterAll(async () => {
  raw.disconnect();
  await database.drop();
  await redis.stop();
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

const references = [{ descriptor: faces.vector(1, 0) }];
/** Half of it is left to the path that goes first: enough on a busy machine, too. */
const timeoutMs = 30_000;

async function plugin(options: Partial<SearchPluginOptions> = {}): Promise<SearchPlugin> {
  const made = await createSearchPlugin({ redis: { url: redis.url }, dim, ...options });
  cleanUps.push(() => made.close());
  return made;
}
const withDatabase = (options: Partial<SearchPluginOptions> = {}) =>
  plugin({ facesDb: { connectionString: database.url }, exactFirstFaces: 0, ...options });

async function matcher(label: string, options: Omit<Parameters<typeof serve>[0], "redisUrl" | "label">) {
  const made = await serve({ redisUrl: redis.url, label, ...options });
  cleanUps.push(() => made.stop());
  return made;
}
const refusal = (name: ErrorName) => {
  const error = new LimError(name, "says the matcher");
  return { status_code: error.httpStatus, error: error.toBody(), index_id: null, revision: null };
};

describe("small lists that are served", () => {
  it("are searched exactly as soon as they are in memory; their matcher answers meanwhile", async () => {
    const { listId, space } = await makeList(database.db, 5);
    const served = await matcher(listId, { faces: 5, answer: () => ({}) });
    const search = await withDatabase({ exactFirstFaces: 5 });
    const first = await search.match({ label: listId, references, timeoutMs });
    expect(first[0]?.path).toBe("index");
    const answer = await eventually("exact search", async () => {
      const [one] = await search.match({ label: listId, references, limit: 1 });
      return one?.path === "exact" ? one : undefined;
    });
    expect(answer).toMatchObject({ matches: [[faceIdOf(space, 1), expect.closeTo(1, 5)]], sends: 0 });
    const { totalMs, prepareMs, queueMs, followMs, searchMs, transportMs } = answer.timings;
    expect([queueMs, transportMs]).toEqual([null, null]);
    expect(prepareMs + (followMs ?? Number.NaN) + searchMs).toBeLessThanOrEqual(totalMs);
    expect(served.seen.length).toBeGreaterThan(0);
  });

  it("are their matcher's where they are larger than exactFirstFaces, or memory for them is used up", async () => {
    const { listId } = await makeList(database.db, 5);
    await matcher(listId, { faces: 5, answer: () => ({}) });
    for (const options of [{ exactFirstFaces: 4 }, { exactCacheBytes: 1_000, exactFirstFaces: 5 }]) {
      const search = await withDatabase(options);
      for (let i = 0; i < 5; i++)
        expect((await search.match({ label: listId, references, timeoutMs }))[0]?.path).toBe("index");
    }
  });
});

describe("exact search where matchers fail", () => {
  it("answers what a matcher is silent about, within the deadline", async () => {
    const { listId, space } = await makeList(database.db, 5);
    const search = await withDatabase();
    // The list is in memory before anything is measured against a deadline.
    expect((await search.match({ label: listId, references, timeoutMs }))[0]?.path).toBe("exact");
    await matcher(listId, { faces: 5, answer: () => undefined });
    await eventually("the label", () => search.labels().some(({ label }) => label === listId) || undefined);
    const [answer] = await search.match({ label: listId, references, limit: 1, timeoutMs: 4_000 });
    expect(answer).toMatchObject({ path: "exact", matches: [[faceIdOf(space, 1), expect.closeTo(1, 5)]] });
    // What was asked of the matcher is taken back.
    await eventually("no request is left", async () =>
      (await raw.xlen(`lim_match:${listId}`)) === 0 ? true : undefined,
    );
  });

  it("answers what a matcher refuses, but for what is wrong with the request itself", async () => {
    const { listId } = await makeList(database.db, 5);
    const refusals: ErrorName[] = [];
    await matcher(listId, { faces: 5, answer: () => refusal(refusals.shift() ?? "internal") });
    const search = await withDatabase();
    for (const name of ["dead_lettered", "index_behind", "engine_failed", "request_expired"] as const) {
      refusals.push(name);
      const [answer] = await search.match({ label: listId, references, minRevision: 1, timeoutMs });
      expect([name, answer?.path]).toEqual([name, "exact"]);
    }
    expect(search.stats()).toMatchObject({ indexAnswers: 0, exactAnswers: 4, failedCalls: 0 });
    const { exactFallbacks } = search.stats();
    expect(exactFallbacks).toBeGreaterThan(0);
    for (const name of ["bad_match_request", "descriptor_version_mismatch"] as const) {
      refusals.push(name);
      expect(await refusalOf(search.match({ label: listId, references, timeoutMs }))).toBe(name);
    }
    expect(search.stats()).toMatchObject({ exactAnswers: 4, exactFallbacks, failedCalls: 2 });
  });

  it("searches exactly only the references that lack an answer", async () => {
    const { listId } = await makeList(database.db, 5);
    let asked = 0;
    await matcher(listId, { faces: 5, answer: () => (asked++ === 1 ? refusal("not_served") : {}) });
    const answers = await (await withDatabase()).match({
      label: listId,
      references: [...references, ...references, ...references],
      timeoutMs,
    });
    expect(answers.map(({ path }) => path).toSorted()).toEqual(["exact", "index", "index"]);
  });
});

describe("requests that are sent again", () => {
  it("go to another matcher by the same rid where the one that took them is dead", async () => {
    const { listId: label } = await makeList(database.db, 1);
    const connection = connectRedis({ url: redis.url, name: "dead" });
    const announcer = createLabelAnnouncer({
      redis: connection,
      matcherId: "dead:1",
      ttlMs: 60_000,
      renewMs: 500,
    });
    cleanUps.push(async () => {
      await announcer.close();
      await connection.close();
    });
    await announcer.announce(label, {
      ...{ index_id: label, revision: 1, descriptor_version: 1, dim, count: 1_000_000, engine: "hnsw" },
    });
    const stream = `lim_match:${label}`;
    await raw.xgroup("CREATE", stream, "lim_matcher", "0", "MKSTREAM");
    const search = await plugin();
    const call = search.match({ label, references, timeoutMs: 20_000 });
    call.catch(() => {});
    const taken = await eventually("the request", async () => {
      const found = await raw.xreadgroup("GROUP", "lim_matcher", "dead", "COUNT", 1, "STREAMS", stream, ">");
      return (found as [string, [string, string[]][]][] | null)?.[0]?.[1][0];
    });
    const again = await eventually("the request again", async () =>
      (await raw.xrange(stream, "-", "+")).find(([id]) => id !== taken[0]),
    );
    expect(again[1][1]).toBe(taken[1][1]);
    await matcher(label, { matcherId: "living:1", answer: () => ({}) });
    expect((await call)[0]).toMatchObject({ path: "index", sends: 2 });
  });

  it("are answered where the first answer is a failure that passes", async () => {
    const { listId: label } = await makeList(database.db, 1);
    const failures: ErrorName[] = ["request_expired", "not_served"];
    const served = await matcher(label, {
      answer: () => {
        const name = failures.shift();
        return name ? refusal(name) : {};
      },
    });
    const [answer] = await (await plugin()).match({ label, references, timeoutMs: 20_000 });
    expect(answer).toMatchObject({ path: "index", sends: 3 });
    expect(new Set(served.seen.map(({ rid }) => rid)).size).toBe(1);
  });

  it("are not where the failure does not pass", async () => {
    const { listId: label } = await makeList(database.db, 1);
    const served = await matcher(label, { answer: () => refusal("dead_lettered") });
    expect(await refusalOf((await plugin()).match({ label, references }))).toBe("dead_lettered");
    expect(served.seen).toHaveLength(1);
  });
});
