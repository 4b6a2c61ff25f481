import { randomUUID } from "node:crypto";
import { createTestDatabase } from "@lim/testkit";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type FacesDb, type ListState, openFacesDb } from "../src/index.ts";
import {
  addFaces,
  bytesOf,
  connectPlain,
  feedOf,
  link,
  newVector,
  setDescriptor,
  version,
} from "./helpers.ts";

let test: Awaited<ReturnType<typeof createTestDatabase>>;
let db: FacesDb;
let sql: pg.Client;
let a: ListState;
let b: ListState;

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
beforeEach(async () => {
  a = await db.createList({ name: "a" });
  b = await db.createList({ name: "b" });
});

const ops = async (list: ListState, since = 0) =>
  (await feedOf(sql, list.listId, since)).map((row) => `${row.op} ${row.face}`);

describe("I1 the feed is exact", () => {
  it("a new list has revision 0; links count up from 1", async () => {
    expect(a).toMatchObject({ revision: 0, faceCount: 0, removedTotal: 0, oldestKeptRevision: 0 });
    const [f, g] = (await addFaces(sql, 2)) as [string, string];
    await link(sql, a.listId, f, g);
    expect(await feedOf(sql, a.listId)).toEqual([
      { revision: 1, face: f, op: "link", faceCount: 1, removedTotal: 0 },
      { revision: 2, face: g, op: "link", faceCount: 2, removedTotal: 0 },
    ]);
  });

  it("unlink", async () => {
    const [f, g] = (await addFaces(sql, 2)) as [string, string];
    await link(sql, a.listId, f, g);
    await sql.query("DELETE FROM faces.list_face WHERE list_id = $1 AND face_id = $2", [a.listId, g]);
    expect((await feedOf(sql, a.listId, 2))[0]).toEqual({
      revision: 3,
      face: g,
      op: "unlink",
      faceCount: 1,
      removedTotal: 1,
    });
  });

  it("a link moved to another list, to another face, and both ends swapped", async () => {
    const [f, g] = (await addFaces(sql, 2)) as [string, string];
    await link(sql, a.listId, f);
    await sql.query("UPDATE faces.list_face SET list_id = $2 WHERE list_id = $1", [a.listId, b.listId]);
    expect(await ops(a, 1)).toEqual([`unlink ${f}`]);
    expect(await ops(b)).toEqual([`link ${f}`]);
    await sql.query("UPDATE faces.list_face SET face_id = $2 WHERE list_id = $1", [b.listId, g]);
    expect(await ops(b, 1)).toEqual([`unlink ${f}`, `link ${g}`]);
    expect((await feedOf(sql, b.listId, 2))[0]).toMatchObject({ faceCount: 1, removedTotal: 1 });
    expect((await db.listStates({ listIds: [a.listId] }))[0]).toMatchObject({
      faceCount: 0,
      removedTotal: 1,
    });
  });

  it("descriptor inserted, replaced and deleted, in every list of the face", async () => {
    const [f] = (await addFaces(sql, 1)) as [string];
    await link(sql, a.listId, f);
    await link(sql, b.listId, f);
    await setDescriptor(sql, f);
    await setDescriptor(sql, f);
    await sql.query("DELETE FROM faces.descriptor WHERE face_id = $1", [f]);
    for (const list of [a, b]) {
      expect(await ops(list, 1)).toEqual(Array(3).fill(`replace ${f}`));
      expect((await feedOf(sql, list.listId, 3))[0]).toMatchObject({ faceCount: 1, removedTotal: 2 });
    }
    expect(await db.countChanges({ listId: a.listId, sinceRevision: 0, toRevision: 3 })).toEqual({
      additions: 3,
      removals: 2,
    });
  });

  it("descriptors of unlinked faces append nothing; a changed version of a descriptor appends", async () => {
    const [f, g] = (await addFaces(sql, 2)) as [string, string];
    await link(sql, a.listId, f);
    await setDescriptor(sql, g);
    expect(await ops(a, 1)).toEqual([]);
    await setDescriptor(sql, f);
    await sql.query("UPDATE faces.descriptor SET descriptor_version = 7 WHERE face_id = $1", [f]);
    expect(await ops(a, 2)).toEqual([`replace ${f}`]);
  });

  it("a deleted face appends exactly one row per list", async () => {
    const [f, g, h] = (await addFaces(sql, 3)) as [string, string, string];
    for (const face of [f, g, h]) await setDescriptor(sql, face);
    await link(sql, a.listId, f, g, h);
    await link(sql, b.listId, f);
    await sql.query("DELETE FROM faces.face WHERE face_id = ANY ($1)", [[f, g]]);
    expect(await ops(a, 3)).toEqual([`unlink ${f}`, `unlink ${g}`]);
    expect(await ops(b, 1)).toEqual([`unlink ${f}`]);
    expect((await feedOf(sql, a.listId, 4))[0]).toMatchObject({ faceCount: 1, removedTotal: 2 });
  });

  it("a deleted list takes its feed with it and no other's", async () => {
    const faces = await addFaces(sql, 3);
    for (const face of faces) await setDescriptor(sql, face);
    await link(sql, a.listId, ...faces);
    await link(sql, b.listId, ...faces);
    expect(await db.deleteList({ listId: a.listId })).toBe(true);
    expect(await db.deleteList({ listId: a.listId })).toBe(false);
    expect(await ops(a)).toEqual([]);
    expect(await ops(b, 3)).toEqual([]);
  });

  it("no-op updates, conflicts that do nothing and empty statements append nothing", async () => {
    const [f] = (await addFaces(sql, 1)) as [string];
    const vector = newVector();
    await setDescriptor(sql, f, vector);
    await link(sql, a.listId, f);
    await setDescriptor(sql, f, vector);
    await sql.query("UPDATE faces.list_face SET create_time = now()");
    await sql.query("UPDATE faces.descriptor SET update_time = now()");
    await sql.query("UPDATE faces.face SET user_data = 'x'");
    await sql.query("INSERT INTO faces.list_face VALUES ($1, $2) ON CONFLICT DO NOTHING", [a.listId, f]);
    await sql.query("DELETE FROM faces.list_face WHERE false");
    await sql.query("BEGIN");
    await sql.query("DELETE FROM faces.list_face WHERE list_id = $1", [a.listId]);
    await sql.query("ROLLBACK");
    expect(await ops(a, 1)).toEqual([]);
  });

  it("refuses TRUNCATE of every table", async () => {
    for (const table of ["list", "face", "descriptor", "list_face", "list_change"])
      await expect(sql.query(`TRUNCATE faces.${table} CASCADE`)).rejects.toThrow("TRUNCATE of faces");
  });

  it("any SQL client is a correct writer: COPY, MERGE, several writes in one statement, a hostile search path", async () => {
    const hostile = await connectPlain(test.url, "evil, pg_catalog");
    try {
      await hostile.query(`CREATE SCHEMA IF NOT EXISTS evil;
        CREATE TABLE evil.list_change (x int); CREATE TABLE evil.list_face (x int);
        CREATE FUNCTION evil.pg_advisory_xact_lock(bigint) RETURNS void LANGUAGE sql AS 'SELECT';
        CREATE FUNCTION evil.unnest(uuid[]) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT NULL::uuid WHERE false';`);
      const [f, g] = (await addFaces(sql, 2)) as [string, string];
      await hostile.query(
        `WITH d AS (INSERT INTO faces.descriptor (face_id, descriptor_version, data) VALUES ($1, 1, $4)),
              l AS (INSERT INTO faces.list_face VALUES ($2, $1))
         INSERT INTO faces.list_face VALUES ($3, $1)`,
        [f, a.listId, b.listId, bytesOf(newVector())],
      );
      await hostile.query(
        `MERGE INTO faces.list_face t USING (SELECT $1::uuid AS l, $2::uuid AS f) s ON t.list_id = s.l AND t.face_id = s.f
         WHEN NOT MATCHED THEN INSERT (list_id, face_id) VALUES (s.l, s.f) WHEN MATCHED THEN DELETE`,
        [a.listId, g],
      );
      expect((await ops(a)).filter((op) => op.startsWith("link"))).toEqual([`link ${f}`, `link ${g}`]);
      expect((await ops(b)).filter((op) => op.startsWith("link"))).toEqual([`link ${f}`]);
    } finally {
      await hostile.end();
    }
  });
});

describe("packets", () => {
  const read = (sinceRevision: number, over: object = {}) =>
    db.readPacket({
      listId: a.listId,
      historyId: a.historyId,
      sinceRevision,
      descriptorVersion: version,
      dim: 8,
      ...over,
    });

  it("hold at most ten faces, go on where they ended, and cover repeated changes of their faces", async () => {
    const faces = await addFaces(sql, 12);
    for (const face of faces) await setDescriptor(sql, face);
    await link(sql, a.listId, ...faces);
    const first = await read(0);
    expect(first).toMatchObject({ kind: "changes", fromRevision: 0, toRevision: 10, headRevision: 12 });
    const second = await read(10);
    expect(second).toMatchObject({ kind: "changes", fromRevision: 10, toRevision: 12, headRevision: 12 });
    expect(await read(12)).toEqual({ kind: "up_to_date", headRevision: 12 });
    for (let i = 0; i < 30; i++) await setDescriptor(sql, faces[i % 2] as string);
    expect(await read(12)).toMatchObject({ toRevision: 42, headRevision: 42, removals: [] });
  });

  it("say the current state: unusable descriptors are removals and counted", async () => {
    const faces = (await addFaces(sql, 6)) as [string, string, string, string, string, string];
    const [good, short, nan, zero, none, gone] = faces;
    const nanVector = newVector();
    nanVector[3] = Number.NaN;
    await setDescriptor(sql, good);
    await setDescriptor(sql, short, newVector(7));
    await setDescriptor(sql, nan, nanVector);
    await setDescriptor(sql, zero, new Float32Array(8));
    await setDescriptor(sql, gone);
    await link(sql, a.listId, ...faces);
    await db.unlinkFaces({ listId: a.listId, faceIds: [gone] });
    const packet = await read(0);
    if (packet.kind !== "changes") throw new Error(packet.kind);
    expect(packet.upserts.map((u) => u.faceId)).toEqual([good]);
    expect(Math.hypot(...(packet.upserts[0]?.vector ?? []))).toBeCloseTo(1, 5);
    expect(packet.removals.sort()).toEqual([short, nan, zero, none, gone].sort());
    expect(packet.skipped).toEqual({ wrong_length: 1, not_finite: 1, zero_norm: 1 });
  });

  it("name each gap", async () => {
    await link(sql, a.listId, ...(await addFaces(sql, 5)));
    expect(await read(6)).toEqual({ kind: "gap", gap: "ahead_of_list" });
    expect(await read(0, { historyId: randomUUID() })).toEqual({ kind: "gap", gap: "other_history" });
    expect(await read(0, { listId: randomUUID() })).toEqual({ kind: "gap", gap: "list_deleted" });
    expect(await db.compactFeed({ listId: a.listId, keepMs: 60_000 })).toBe(0);
    expect(await db.compactFeed({ listId: a.listId, keepMs: 0, keepFromRevision: 2 })).toBe(2);
    expect(await read(1)).toEqual({ kind: "gap", gap: "compacted" });
    expect(await read(2)).toMatchObject({ kind: "changes", toRevision: 5 });
    expect(await db.compactFeed({ listId: a.listId, keepMs: 0 })).toBe(2);
    expect(await read(3)).toEqual({ kind: "gap", gap: "compacted" });
    expect(await read(4)).toMatchObject({ kind: "changes", toRevision: 5 });
    expect(await read(5)).toMatchObject({ kind: "up_to_date" });
    expect((await db.listStates({ listIds: [a.listId] }))[0]).toMatchObject({
      revision: 5,
      oldestKeptRevision: 5,
    });
    expect(await db.newHistory()).toBeGreaterThanOrEqual(2);
    expect(await read(5)).toEqual({ kind: "gap", gap: "other_history" });
  });
});
