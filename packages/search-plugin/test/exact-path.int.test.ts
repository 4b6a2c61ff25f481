import { randomUUID } from "node:crypto";
import { createTestDatabase, eventually, faceIdOf, startTestRedis } from "@lim/testkit";
import { createExactIndex } from "@lim/vector-index";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { addFaces, assemble, dim, faces, facesOf, makeList, refusalOf } from "./support.ts";

let redis: Awaited<ReturnType<typeof startTestRedis>>;
let database: Awaited<ReturnType<typeof createTestDatabase>>;
const cleanUps: (() => Promise<void>)[] = [];
beforeAll(async () => {
  [redis, database] = await Promise.all([startTestRedis(), createTestDatabase()]);
});
afterAll(async () => {
  await database.drop();
  await redis.stop();
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

async function plugin(options: { exactMaxFaces?: number; exactCacheBytes?: number } = {}) {
  const made = await assemble({ redisUrl: redis.url, databaseUrl: database.url, ...options });
  cleanUps.push(() => made.plugin.close());
  return made;
}
const bytesOf = (count: number) => count * (dim * 4 + 16);

describe("exact path", () => {
  it("32 callers at once cause one load of the list, and get what brute force finds", async () => {
    const { listId, space } = await makeList(database.db, 3_000);
    const { plugin: search, counts } = await plugin();
    const oracle = createExactIndex({ dim });
    oracle.upsert(facesOf(space, 3_000));
    const answers = await Promise.all(
      Array.from({ length: 32 }, (_, person) =>
        search.match({ label: listId, references: [{ descriptor: faces.vector(person, 1) }], limit: 10 }),
      ),
    );
    expect(counts.get("openSnapshot")).toBe(1);
    const state = (await database.db.listStates({ listIds: [listId] }))[0];
    for (const [person, [answer]] of answers.entries()) {
      expect(answer).toMatchObject({ path: "exact", indexId: null, revision: state?.revision });
      expect(answer?.matches).toEqual((await oracle.search(faces.vector(person, 1), { limit: 10 }))[0]);
    }
    await oracle.close();
    // Later calls read the feed, never the list; those that come together share one look.
    const before = counts.get("readPacket") ?? 0;
    await Promise.all(
      Array.from({ length: 32 }, () =>
        search.match({ label: listId, references: [{ descriptor: faces.vector(1, 1) }] }),
      ),
    );
    expect(counts.get("openSnapshot")).toBe(1);
    expect((counts.get("readPacket") ?? 0) - before).toBeLessThanOrEqual(3);
  });

  it("loads no native code of an engine", async () => {
    const { listId } = await makeList(database.db, 5);
    const { plugin: search } = await plugin();
    await search.match({ label: listId, references: [{ descriptor: faces.vector(0, 0) }] });
    const { sharedObjects } = process.report.getReport() as unknown as { sharedObjects: string[] };
    expect(sharedObjects.length).toBeGreaterThan(0);
    expect(sharedObjects.filter((path) => path.includes("hnswlib"))).toEqual([]);
  });

  it("I5: a face linked or unlinked before the call is in or out of its answer", async () => {
    const { listId, space } = await makeList(database.db, 50);
    const { plugin: search, counts } = await plugin();
    const best = async (person: number) => {
      const [answer] = await search.match({
        label: listId,
        references: [{ descriptor: faces.vector(person, 0) }],
        limit: 1,
      });
      return answer?.matches[0];
    };
    expect((await best(7))?.[0]).toBe(faceIdOf(space, 7));
    for (let person = 100; person < 110; person++) {
      await addFaces(database.db, listId, facesOf(space, 1, person));
      expect((await best(person))?.[0]).toBe(faceIdOf(space, person));
      await database.db.unlinkFaces({ listId, faceIds: [faceIdOf(space, person)] });
      expect((await best(person))?.[0]).not.toBe(faceIdOf(space, person));
    }
    // Callers whose own changes come while others' catch-ups run.
    await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        await addFaces(database.db, listId, facesOf(space, 1, 200 + i));
        expect((await best(200 + i))?.[0]).toBe(faceIdOf(space, 200 + i));
      }),
    );
    expect(counts.get("openSnapshot")).toBe(1);
  });

  it("follows a burst of changes in packets", async () => {
    const { listId, space } = await makeList(database.db, 10);
    const { plugin: search } = await plugin();
    const query = { label: listId, references: [{ descriptor: faces.vector(1_500, 0) }], limit: 1 };
    await search.match(query);
    await addFaces(database.db, listId, facesOf(space, 2_000, 10));
    const [answer] = await search.match(query);
    expect(answer?.matches[0]?.[0]).toBe(faceIdOf(space, 1_500));
    expect(answer?.revision).toBe((await database.db.listStates({ listIds: [listId] }))[0]?.revision);
  });

  it("takes descriptors and face ids, several in one call, in order", async () => {
    const { listId, space } = await makeList(database.db, 20);
    const { plugin: search } = await plugin();
    const scaled = faces.vector(3, 0).map((x) => x * 40);
    const kept = scaled.slice();
    const answers = await search.match({
      label: listId.toUpperCase(),
      references: [
        { descriptor: scaled },
        { faceId: faceIdOf(space, 5).toUpperCase() },
        { descriptor: faces.vector(9, 0) },
      ],
      limit: 1,
      threshold: 0.9,
    });
    expect(answers.map(({ matches }) => matches[0]?.[0])).toEqual([3, 5, 9].map((p) => faceIdOf(space, p)));
    expect(scaled).toEqual(kept);
    const unknown = search.match({ label: listId, references: [{ faceId: randomUUID() }] });
    expect(await refusalOf(unknown)).toBe("not_found");
  });

  it("respects minRevision", async () => {
    const { listId } = await makeList(database.db, 5);
    const { plugin: search } = await plugin();
    const revision = (await database.db.listStates({ listIds: [listId] }))[0]?.revision ?? 0;
    const references = [{ descriptor: faces.vector(0, 0) }];
    expect((await search.match({ label: listId, references, minRevision: revision }))[0]?.revision).toBe(
      revision,
    );
    expect(await refusalOf(search.match({ label: listId, references, minRevision: revision + 1 }))).toBe(
      "index_behind",
    );
  });

  it("loads anew where the feed was compacted away or the history is another, and says when the list is gone", async () => {
    const { listId, space } = await makeList(database.db, 20);
    const { plugin: search, counts } = await plugin();
    const query = { label: listId, references: [{ descriptor: faces.vector(30, 0) }], limit: 1 };
    await search.match(query);
    await addFaces(database.db, listId, facesOf(space, 20, 20));
    await database.db.compactFeed({ listId, keepMs: 0 });
    expect((await search.match(query))[0]?.matches[0]?.[0]).toBe(faceIdOf(space, 30));
    expect(counts.get("openSnapshot")).toBe(2);
    await database.db.newHistory();
    expect((await Promise.all([search.match(query), search.match(query)])).length).toBe(2);
    expect(counts.get("openSnapshot")).toBe(3);
    await database.db.deleteList({ listId });
    expect(await refusalOf(search.match(query))).toBe("list_not_found");
  });
});

describe("I10: limits of the exact path", () => {
  it("refuses lists past exactMaxFaces, also when a held one grows past it", async () => {
    const { listId, space } = await makeList(database.db, 30);
    const { plugin: search, exact, counts } = await plugin({ exactMaxFaces: 40 });
    const query = { label: listId, references: [{ descriptor: faces.vector(0, 0) }] };
    await search.match(query);
    await addFaces(database.db, listId, facesOf(space, 20, 30));
    expect(await refusalOf(search.match(query))).toBe("not_served");
    expect(exact.heldLists).toEqual([]);
    for (let i = 0; i < 10; i++) expect(await refusalOf(search.match(query))).toBe("not_served");
    expect(counts.get("openSnapshot")).toBe(1);
    expect(counts.get("listStates")).toBeLessThanOrEqual(2);
    await database.db.unlinkFaces({ listId, faceIds: facesOf(space, 20, 30).map(({ faceId }) => faceId) });
    await eventually("served again", async () =>
      (await search.match(query)).length === 1 ? true : undefined,
    );
  });

  it("keeps the bytes of all lists under the limit, least recently used ones go", async () => {
    const lists = [];
    for (let i = 0; i < 4; i++) lists.push((await makeList(database.db, 8_500)).listId);
    const [a = "", b = "", c = "", d = ""] = lists;
    // An index of so many faces takes chunks of whole mebibytes: room for three, not for four.
    const probe = await plugin();
    const references = [{ descriptor: faces.vector(0, 0) }];
    await probe.plugin.match({ label: a, references });
    const cacheBytes = Math.floor(probe.exact.bytes * 3.5);
    const { plugin: search, exact, counts } = await plugin({ exactCacheBytes: cacheBytes });
    for (const label of [a, b, c, a, d]) {
      await search.match({ label, references });
      expect(exact.bytes).toBeLessThanOrEqual(cacheBytes);
    }
    expect(exact.heldLists).toEqual([c, a, d]);
    expect(counts.get("openSnapshot")).toBe(4);
    await search.match({ label: b, references });
    expect(exact.heldLists).toEqual([a, d, b]);
    // All at once, more than fit: some may be told to try later, none gets a wrong answer, nothing leaks.
    await Promise.allSettled(lists.map((label) => search.match({ label, references })));
    expect(exact.bytes).toBeLessThanOrEqual(cacheBytes);
  });

  it("refuses a list that could never fit", async () => {
    const { listId } = await makeList(database.db, 100);
    const { plugin: search } = await plugin({ exactCacheBytes: bytesOf(99) });
    expect(
      await refusalOf(search.match({ label: listId, references: [{ descriptor: faces.vector(0, 0) }] })),
    ).toBe("not_served");
  });
});
