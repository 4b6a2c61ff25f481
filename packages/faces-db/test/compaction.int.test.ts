import { randomUUID } from "node:crypto";
import { createTestDatabase } from "@lim/testkit";
import pg from "pg";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type FacesDb, facesDbLimits, type ListState, openFacesDb } from "../src/index.ts";
import { addFaces, connectPlain, currentContent, Follower, link, setDescriptor } from "./helpers.ts";

let test: Awaited<ReturnType<typeof createTestDatabase>>;
let db: FacesDb;
let sql: pg.Client;
beforeAll(async () => {
  test = await createTestDatabase();
  db = openFacesDb({ connectionString: test.url });
  sql = await connectPlain(test.url);
});
afterAll(async () => {
  await sql?.end();
  await db?.close();
  await test?.drop();
});

const hourMs = 3_600_000;
async function listOf(links: number): Promise<ListState> {
  const list = await db.createList({ name: "compaction" });
  const faces = await addFaces(sql, links);
  for (const face of faces) await setDescriptor(sql, face);
  if (links > 0) await link(sql, list.listId, ...faces);
  return list;
}
/** Makes the oldest rows of a feed, up to a revision, two hours old. */
const age = (listId: string, upTo: number) =>
  sql.query(
    "UPDATE faces.list_change SET create_time = create_time - interval '2 hours' WHERE list_id = $1 AND revision <= $2",
    [listId, upTo],
  );

it("names exactly the lists whose feed would become shorter", async () => {
  const [old, young, newestOnly, needed, compacted, empty] = [
    await listOf(4),
    await listOf(4),
    await listOf(1),
    await listOf(4),
    await listOf(4),
    await listOf(0),
  ];
  for (const list of [old, newestOnly, needed]) await age(list.listId, 4);
  await db.compactFeed({ listId: compacted.listId, keepMs: 0, keepFromRevision: 3 });
  await age(compacted.listId, 4);
  const feeds = [
    { listId: old.listId, upToRevision: 1 },
    { listId: young.listId, upToRevision: 3 },
    { listId: newestOnly.listId, upToRevision: 9 },
    { listId: needed.listId, upToRevision: 0 },
    { listId: compacted.listId, upToRevision: 3 },
    { listId: empty.listId, upToRevision: 9 },
    { listId: randomUUID(), upToRevision: 9 },
  ];
  const named = await db.feedsWithOldRows({ feeds, keepMs: hourMs });
  expect(named).toEqual(new Set([old.listId]));
  for (const { listId, upToRevision } of feeds.slice(0, -1)) {
    const removed = await db.compactFeed({ listId, keepMs: hourMs, keepFromRevision: upToRevision });
    expect(removed > 0).toBe(named.has(listId));
  }
});

it("one query for a thousand lists; bad bounds are refused (I11)", async () => {
  const old = await listOf(3);
  await age(old.listId, 3);
  const feeds = Array.from({ length: facesDbLimits.listsPerQuery }, () => ({
    listId: String(randomUUID()),
    upToRevision: 5,
  }));
  feeds.push({ listId: old.listId, upToRevision: 5 });
  const query = vi.spyOn(pg.Client.prototype, "query");
  try {
    expect(await db.feedsWithOldRows({ feeds, keepMs: hourMs })).toEqual(new Set([old.listId]));
    expect(query).toHaveBeenCalledTimes(2);
  } finally {
    query.mockRestore();
  }
  for (const bad of [
    { feeds: [{ listId: "x", upToRevision: 1 }], keepMs: 1 },
    { feeds: [{ listId: old.listId, upToRevision: -1 }], keepMs: 1 },
    { feeds: [], keepMs: -1 },
  ])
    await expect(db.feedsWithOldRows(bad)).rejects.toMatchObject({ errorName: "bad_input" });
});

it("I1: who stands at the revision up to which a feed was compacted follows it without a gap", async () => {
  const list = await listOf(6);
  const follower = new Follower(db, list);
  await follower.step(4);
  expect(follower.revision).toBe(4);
  expect(await db.compactFeed({ listId: list.listId, keepMs: 0, keepFromRevision: 4 })).toBe(4);
  await follower.drain();
  expect(follower.revision).toBe(6);
  expect(follower.content).toEqual(await currentContent(sql, list.listId));
  const behind = new Follower(db, list, { content: new Map(), revision: 3 });
  await expect(behind.step()).rejects.toThrow("gap: compacted");
});
