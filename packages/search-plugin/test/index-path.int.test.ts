import { randomUUID } from "node:crypto";
import { type AddressInfo, connect, createServer } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { decodeDescriptor, LimError } from "@lim/contracts";
import { createTestDatabase, eventually, faceIdOf, startTestRedis } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createSearchPlugin } from "../src/index.ts";
import type { SearchPlugin } from "../src/types.ts";
import { dim, type FakeMatcher, faces, makeList, refusalOf, serve } from "./support.ts";

let redis: Awaited<ReturnType<typeof startTestRedis>>;
let database: Awaited<ReturnType<typeof createTestDatabase>>;
let label: string;
const face = randomUUID();
const cleanUps: (() => Promise<void>)[] = [];
beforeAll(async () => {
  [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
});
afterAll(async () => {
  await database.drop();
  await redis.stop();
});
beforeEach(() => {
  label = randomUUID();
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

async function plugin(options: { facesDb?: boolean; url?: string } = {}): Promise<SearchPlugin> {
  const made = await createSearchPlugin({
    redis: { url: options.url ?? redis.url },
    dim,
    exactFirstFaces: 0,
    ...(options.facesDb === false ? {} : { facesDb: { connectionString: database.url } }),
  });
  cleanUps.push(() => made.close());
  return made;
}
async function matcher(
  options: Omit<Parameters<typeof serve>[0], "redisUrl" | "label">,
  of = label,
): Promise<FakeMatcher> {
  const made = await serve({ redisUrl: redis.url, label: of, ...options });
  cleanUps.push(() => made.stop());
  return made;
}
const references = [{ descriptor: faces.vector(1, 0) }];

describe("index path", () => {
  it("sends a unit descriptor with its version, and tells index, revision and path of the answer", async () => {
    const served = await matcher({ answer: () => ({ result: [[face, 0.75]] }) });
    const search = await plugin();
    expect(search.labels()).toContainEqual({
      label,
      matcherId: "test:1",
      indexId: served.indexId,
      revision: 3,
      faces: 1_000_000,
      descriptorVersion: 1,
      dim,
    });
    const [answer] = await search.match({
      label,
      references: [{ descriptor: faces.vector(1, 0).map((x) => x * 3) }],
      limit: 4,
      threshold: 0.5,
      minRevision: 2,
      lunaRequestId: "1,x",
    });
    expect(answer).toMatchObject({
      matches: [[face, 0.75]],
      path: "index",
      indexId: served.indexId,
      revision: 3,
    });
    const {
      totalMs = 0,
      prepareMs = 0,
      queueMs,
      followMs,
      searchMs = 0,
      transportMs,
    } = answer?.timings ?? {};
    expect(followMs).toBeNull();
    // More only where Redis' clock, in whole milliseconds, tells of a longer wait than there was.
    const sumMs = prepareMs + (queueMs ?? Number.NaN) + searchMs + (transportMs ?? Number.NaN);
    expect(sumMs).toBeGreaterThan(totalMs - 0.01);
    expect(answer?.sends).toBe(1);
    const request = served.seen[0]?.request;
    if (!request || !("fields" in request)) throw new Error("no request");
    expect(request.fields).toMatchObject({
      limit: 4,
      threshold: 0.5,
      min_revision: 2,
      luna_request_id: "1,x",
    });
    const { descriptorVersion, vector } = decodeDescriptor(request.descriptor);
    expect(descriptorVersion).toBe(1);
    expect(Math.hypot(...vector)).toBeCloseTo(1, 5);
  });

  it("asks for several references at once and keeps their order", async () => {
    const { listId, space } = await makeList(database.db, 3);
    let busy = 0;
    await matcher(
      {
        answer: (entry) => {
          busy++;
          return { revision: busy, result: [[face, Math.fround(busy / 100)]], rid: entry.rid ?? "" };
        },
      },
      listId,
    );
    const search = await plugin();
    const answers = await search.match({
      label: listId,
      references: [...references, { faceId: faceIdOf(space, 2) }, ...references],
    });
    expect(answers.map(({ path }) => path)).toEqual(["index", "index", "index"]);
    expect(busy).toBe(3);
  });

  it("sees a label that appears after it began, and goes back to exact search when it is withdrawn", async () => {
    const { listId } = await makeList(database.db, 5);
    const search = await plugin();
    const pathOf = async () => (await search.match({ label: listId, references }))[0]?.path;
    expect(await pathOf()).toBe("exact");
    const served = await serve({ redisUrl: redis.url, label: listId, answer: () => ({}) });
    await eventually("the index path", async () => ((await pathOf()) === "index" ? true : undefined));
    await served.stop();
    await eventually("the exact path", async () =>
      search.labels().length === 0 && (await pathOf()) === "exact" ? true : undefined,
    );
  });

  it("falls back to exact search where a matcher says that it does not serve", async () => {
    const { listId, space } = await makeList(database.db, 5);
    const error = new LimError("not_served", "dropped just now");
    await matcher(
      {
        faces: 5,
        answer: () => ({ status_code: 503, error: error.toBody(), index_id: null, revision: null }),
      },
      listId,
    );
    const search = await plugin();
    const [answer] = await search.match({ label: listId, references, limit: 1 });
    expect(answer).toMatchObject({ path: "exact", matches: [[faceIdOf(space, 1), expect.closeTo(1, 5)]] });
    const bare = await plugin({ facesDb: false });
    // The second where its deadline came while it was being sent once more.
    expect(["not_served", "request_expired"]).toContain(
      await refusalOf(bare.match({ label: listId, references, timeoutMs: 500 })),
    );
  });

  it("passes a matcher's other errors on as they are", async () => {
    const error = new LimError("index_behind", "at revision 3");
    await matcher({
      answer: () => ({ status_code: 409, error: error.toBody(), index_id: null, revision: null }),
    });
    expect(await refusalOf((await plugin()).match({ label, references }))).toBe("index_behind");
  });

  it("refuses descriptors of another version than the served one", async () => {
    const served = await matcher({ descriptorVersion: 2, answer: () => ({}) });
    await expect((await plugin()).match({ label, references })).rejects.toMatchObject({
      errorName: "descriptor_version_mismatch",
      code: 26305,
      httpStatus: 400,
    });
    expect(served.seen).toEqual([]);
  });

  it("passes on what a matcher says of the descriptor's version, as the same error", async () => {
    const error = new LimError("descriptor_version_mismatch", "served is 7");
    await matcher({
      answer: () => ({ status_code: 400, error: error.toBody(), index_id: null, revision: null }),
    });
    await expect((await plugin()).match({ label, references })).rejects.toMatchObject({ code: 26305 });
  });
});

describe("deadlines and ends", () => {
  it("I6: ends by its deadline where no answer comes", async () => {
    await matcher({ answer: () => undefined });
    const search = await plugin();
    expect(await refusalOf(search.match({ label, references, timeoutMs: 300 }))).toBe("request_expired");
  });

  it("ends at once when the caller aborts, before or during the call", async () => {
    await matcher({ answer: () => undefined });
    const search = await plugin();
    expect(await refusalOf(search.match({ label, references, signal: AbortSignal.abort() }))).toBe("aborted");
    const abort = new AbortController();
    const call = search.match({ label, references, signal: abort.signal });
    setTimeout(() => abort.abort(), 50);
    expect(await refusalOf(call)).toBe("aborted");
  });

  it("ends its calls when it is closed", async () => {
    await matcher({ answer: () => undefined });
    const search = await plugin();
    const call = search.match({ label, references });
    setTimeout(() => void search.close(), 50);
    expect(await refusalOf(call)).toBe("aborted");
    expect(await refusalOf(search.match({ label, references }))).toBe("aborted");
  });
});

describe("without a server or a database", () => {
  it("leaves no connection behind where the database's connection string is refused", async () => {
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await expect(
      createSearchPlugin({
        redis: { url: `redis://127.0.0.1:${port}` },
        facesDb: { connectionString: "postgres://u:p@[h/db" },
      }),
    ).rejects.toMatchObject({ errorName: "bad_settings" });
    await nextTurn();
    // It comes after what was under way.
    await new Promise((resolve) => connect(port, "127.0.0.1").once("close", resolve));
    expect(connections).toBe(1);
    await new Promise((resolve) => server.close(resolve));
  });

  it("says not_served where there is neither a matcher nor a database", async () => {
    const search = await plugin({ facesDb: false });
    expect(await refusalOf(search.match({ label, references }))).toBe("not_served");
    expect(await refusalOf(search.match({ label, references: [{ faceId: face }] }))).toBe("bad_input");
  });

  it("I9: searches exactly while Redis is away from the start", async () => {
    const { listId } = await makeList(database.db, 5);
    const nowhere = await plugin({ url: "redis://127.0.0.1:1" });
    expect((await nowhere.match({ label: listId, references }))[0]?.path).toBe("exact");
  });

  it("says list_not_found of a list that does not exist", async () => {
    expect(await refusalOf((await plugin()).match({ label, references }))).toBe("list_not_found");
  });
});

describe("I11: bad input is refused before anything is sent", () => {
  const good = faces.vector(1, 0);
  const bad: [string, object][] = [
    ["label", { label: "list" }],
    ["no references", { references: [] }],
    ["too many references", { references: Array(257).fill({ descriptor: good }) }],
    ["reference of nothing", { references: [{}] }],
    ["reference null", { references: [null] }],
    ["plain array", { references: [{ descriptor: [...good] }] }],
    ["short", { references: [{ descriptor: good.slice(1) }] }],
    ["NaN", { references: [{ descriptor: good.map(() => Number.NaN) }] }],
    ["zero", { references: [{ descriptor: new Float32Array(dim) }] }],
    ["face id", { references: [{ faceId: "x" }] }],
    ["limit 0", { limit: 0 }],
    ["limit 1.5", { limit: 1.5 }],
    ["limit 1001", { limit: 1_001 }],
    ["threshold", { threshold: 1.1 }],
    ["timeout", { timeoutMs: 30_001 }],
    ["minRevision", { minRevision: -1 }],
  ];
  it("each kind", async () => {
    const search = await plugin();
    for (const [what, change] of bad)
      expect([what, await refusalOf(search.match({ label, references, ...change }))]).toEqual([
        what,
        "bad_input",
      ]);
    expect(search.stats().failedCalls).toBe(bad.length);
  });
});
