import { createTestDatabase } from "@lim/testkit";
import fc from "fast-check";
import type pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type FacesDb, type ListState, openFacesDb } from "../src/index.ts";
import {
  addFaces,
  bytesOf,
  type Content,
  connectPlain,
  currentContent,
  dim,
  Follower,
  feedOf,
  newVector,
  vectorText,
  version,
} from "./helpers.ts";

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

const listCount = 3;
const faceCount = 6;
const list = fc.nat(listCount - 1);
const faces = fc.uniqueArray(fc.nat(faceCount - 1), { minLength: 1, maxLength: faceCount });
const operation = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("link" as const), list, faces }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("unlink" as const), list, faces }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("move" as const), list, to: list, faces }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("describe" as const), faces }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("undescribe" as const), faces }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("delete" as const), faces }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

interface Expected {
  face: string;
  op: string;
  faceCount: number;
  removedTotal: number;
}

/** What the feed must say, computed without the database. */
class Model {
  readonly links: Set<string>[] = Array.from({ length: listCount }, () => new Set());
  readonly described = new Set<string>();
  readonly alive: Set<string>;
  readonly feeds: Expected[][] = Array.from({ length: listCount }, () => []);

  constructor(faceIds: readonly string[]) {
    this.alive = new Set(faceIds);
  }

  /** Rows of one statement for one list, in the feed's order: unlinks, replacements, links; each by face. */
  #append(index: number, rows: { face: string; op: "link" | "unlink" | "replace"; removed: number }[]) {
    const order = { unlink: 0, replace: 1, link: 2 };
    rows.sort((x, y) => order[x.op] - order[y.op] || (x.face < y.face ? -1 : 1));
    const feed = this.feeds[index] as Expected[];
    for (const { face, op, removed } of rows) {
      const last = feed.at(-1);
      feed.push({
        face,
        op,
        faceCount: (last?.faceCount ?? 0) + (op === "link" ? 1 : op === "unlink" ? -1 : 0),
        removedTotal: (last?.removedTotal ?? 0) + removed,
      });
    }
  }

  link(index: number, ids: string[]) {
    const links = this.links[index] as Set<string>;
    const added = ids.filter((id) => this.alive.has(id) && !links.has(id));
    for (const id of added) links.add(id);
    this.#append(
      index,
      added.map((face) => ({ face, op: "link", removed: 0 })),
    );
  }
  unlink(index: number, ids: string[]) {
    const links = this.links[index] as Set<string>;
    const gone = ids.filter((id) => links.delete(id));
    this.#append(
      index,
      gone.map((face) => ({ face, op: "unlink", removed: 1 })),
    );
    return gone;
  }
  redescribe(ids: string[], dies: (face: string) => boolean) {
    for (const [index, links] of this.links.entries())
      this.#append(
        index,
        ids
          .filter((id) => links.has(id))
          .map((face) => ({ face, op: "replace", removed: dies(face) ? 1 : 0 })),
      );
  }
}

async function apply(op: Operation, model: Model, lists: ListState[], faceIds: string[]): Promise<void> {
  const ids = op.faces.map((i) => faceIds[i] as string);
  const listId = "list" in op ? (lists[op.list] as ListState).listId : "";
  switch (op.kind) {
    case "link":
      await sql.query(
        `INSERT INTO faces.list_face SELECT $1, face_id FROM faces.face WHERE face_id = ANY ($2) ON CONFLICT DO NOTHING`,
        [listId, ids],
      );
      return model.link(op.list, ids);
    case "unlink":
      await sql.query("DELETE FROM faces.list_face WHERE list_id = $1 AND face_id = ANY ($2)", [listId, ids]);
      model.unlink(op.list, ids);
      return;
    case "move": {
      const toId = (lists[op.to] as ListState).listId;
      await sql.query(
        `UPDATE faces.list_face SET list_id = $2 WHERE list_id = $1 AND face_id = ANY ($3)
         AND face_id NOT IN (SELECT face_id FROM faces.list_face WHERE list_id = $2)`,
        [listId, toId, ids],
      );
      if (op.list === op.to) return;
      const movable = ids.filter((id) => !model.links[op.to]?.has(id));
      return model.link(op.to, model.unlink(op.list, movable));
    }
    case "describe": {
      const alive = ids.filter((id) => model.alive.has(id));
      await sql.query(
        `INSERT INTO faces.descriptor (face_id, descriptor_version, data)
         SELECT * FROM (SELECT unnest($1::uuid[]), $2::integer, unnest($3::bytea[])) n
         ON CONFLICT (face_id, descriptor_version) DO UPDATE SET data = excluded.data`,
        [alive, version, alive.map(() => bytesOf(newVector()))],
      );
      // One statement, two triggers: rows inserted and rows updated by it. Inserts come first in the feed.
      const fresh = alive.filter((id) => !model.described.has(id));
      const known = alive.filter((id) => model.described.has(id));
      for (const id of alive) model.described.add(id);
      model.redescribe(fresh, () => false);
      return model.redescribe(known, () => true);
    }
    case "undescribe": {
      await sql.query("DELETE FROM faces.descriptor WHERE face_id = ANY ($1)", [ids]);
      const gone = ids.filter((id) => model.described.delete(id));
      return model.redescribe(gone, () => true);
    }
    case "delete":
      await sql.query("DELETE FROM faces.face WHERE face_id = ANY ($1)", [ids]);
      for (const id of ids) {
        model.alive.delete(id);
        model.described.delete(id);
      }
      for (const index of lists.keys()) model.unlink(index, ids);
  }
}

/** After each of many packets of one read: every face that changed up to its `toRevision`, and not since, is as it is. */
async function checkPackets(
  { listId, historyId }: ListState,
  feed: readonly { face: string; revision: number }[],
  content: Content,
  packetFaces: number,
): Promise<void> {
  const read = { listId, historyId, descriptorVersion: version, dim };
  const all = await db.readPackets({ ...read, sinceRevision: 0, packetFaces });
  if (feed.length === 0) return expect(all).toEqual({ kind: "up_to_date", headRevision: 0 });
  if (all.kind !== "packets") throw new Error(all.kind);
  const held: Content = new Map();
  let revision = 0;
  for (const { fromRevision, toRevision, upserts, removals } of all.packets) {
    expect(fromRevision).toBe(revision);
    expect(toRevision).toBeGreaterThan(revision);
    expect(upserts.length + removals.length).toBeLessThanOrEqual(packetFaces);
    revision = toRevision;
    for (const { faceId, vector } of upserts) held.set(faceId, vectorText(vector));
    for (const faceId of removals) held.delete(faceId);
    for (const { face } of feed.filter((row) => row.revision <= revision))
      expect(held.get(face)).toBe(content.get(face));
  }
  expect([revision, held]).toEqual([feed.length, content]);
  const half = Math.ceil(feed.length / 2);
  const part = await db.readPackets({ ...read, sinceRevision: 0, toRevision: half, packetFaces });
  if (part.kind !== "packets") throw new Error(part.kind);
  expect(part.packets.at(-1)?.toRevision).toBe(half);
}

const byFace = (rows: { face: string; op: string }[]) => rows.map((row) => `${row.op} ${row.face}`).sort();

it("I1 any sequence of SQL leaves exactly the model's feed, and its packets lead to the current state", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 1, max: 12 }),
      async (operations, maxFaces) => {
        const lists = await Promise.all(
          Array.from({ length: listCount }, (_, i) => db.createList({ name: `model ${i}` })),
        );
        const faceIds = await addFaces(sql, faceCount);
        const model = new Model(faceIds);
        for (const op of operations) {
          const before = model.feeds.map((feed) => feed.length);
          await apply(op, model, lists, faceIds);
          for (const [index, { listId }] of lists.entries()) {
            const rows = await feedOf(sql, listId, before[index]);
            const expected = (model.feeds[index] as Expected[]).slice(before[index]);
            expect(byFace(rows)).toEqual(byFace(expected));
            expect(rows.at(-1)?.faceCount).toBe(expected.at(-1)?.faceCount);
            expect(rows.at(-1)?.removedTotal).toBe(expected.at(-1)?.removedTotal);
          }
        }
        for (const [index, state] of lists.entries()) {
          const feed = await feedOf(sql, state.listId);
          expect(feed.map((row) => row.revision)).toEqual(feed.map((_, i) => i + 1));
          expect(feed.at(-1)?.faceCount ?? 0).toBe(model.links[index]?.size);
          const follower = new Follower(db, state);
          while (await follower.step(maxFaces));
          expect(follower.revision).toBe(feed.length);
          const content = await currentContent(sql, state.listId);
          expect(follower.content).toEqual(content);
          await checkPackets(state, feed, content, maxFaces);
        }
      },
    ),
    { numRuns: 40 },
  );
});
