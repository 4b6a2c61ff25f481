import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { createTestDatabase, eventually } from "@lim/testkit";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Database } from "../src/database.ts";
import { type FacesDb, openFacesDb } from "../src/index.ts";
import { migrate } from "../src/migrate.ts";
import { addFaces, connectPlain, link, newVector, version } from "./helpers.ts";

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

const folderOf = async (files: Record<string, string>) => {
  const folder = await mkdtemp(join(tmpdir(), "lim-migrations-"));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return pathToFileURL(`${folder}/`);
};

describe("migrations", () => {
  it("several starters at once apply each migration once; a changed one is refused; a failing one leaves nothing", async () => {
    await sql.query("DROP SCHEMA faces CASCADE");
    const starters = Array.from({ length: 4 }, () => openFacesDb({ connectionString: test.url }));
    await expect(starters[0]?.listStates()).rejects.toMatchObject({ errorName: "postgres_unavailable" });
    const results = await Promise.all(starters.map((starter) => starter.migrate()));
    expect(results.flatMap((result) => result.applied).sort()).toEqual([
      "0001_tables.sql",
      "0002_feed.sql",
      "0003_trigger_functions.sql",
    ]);
    await Promise.all(starters.map((starter) => starter.close()));

    const database = new Database({ connectionString: test.url });
    const changed = await folderOf({ "0001_tables.sql": "SELECT 1" });
    const failing = await folderOf({ "0003_a.sql": "CREATE TABLE faces.a ()", "0004_b.sql": "nonsense" });
    try {
      await expect(migrate(database, {}, changed)).rejects.toThrow("0001_tables.sql was changed");
      await expect(migrate(database, {}, failing)).rejects.toThrow("syntax error");
      const { rows } = await sql.query("SELECT to_regclass('faces.a') AS name");
      expect(rows[0].name).toBeNull();
    } finally {
      await database.close();
      for (const folder of [changed, failing]) await rm(folder, { recursive: true });
    }
  });
});

describe("lists and faces", () => {
  it("creates, finds, filters and refuses", async () => {
    const listId = randomUUID();
    const list = await db.createList({ listId: listId.toUpperCase(), name: "found" });
    expect(list.listId).toBe(listId);
    await expect(db.createList({ listId, name: "again" })).rejects.toMatchObject({ errorName: "bad_input" });
    await expect(db.createList({ name: "" })).rejects.toMatchObject({ errorName: "bad_input" });
    await expect(db.listStates({ listIds: ["x'; --"] })).rejects.toMatchObject({ errorName: "bad_input" });
    expect(await db.findListByName({ name: "found" })).toEqual(list);
    expect(await db.findListByName({ name: "missing" })).toBeUndefined();
    await link(sql, listId, ...(await addFaces(sql, 3)));
    expect(await db.listStates({ minFaceCount: 4, listIds: [listId] })).toEqual([]);
    const [state] = await db.listStates({ minFaceCount: 3, listIds: [listId, randomUUID()] });
    expect(state).toMatchObject({ listId, faceCount: 3, revision: 3 });
  });

  it("puts, links, unlinks, deletes and reads faces", async () => {
    const list = await db.createList({ name: "faces" });
    const [f, g] = [randomUUID(), randomUUID()];
    const vector = newVector(16);
    const faces = [
      { faceId: f, vector: newVector(16) },
      { faceId: g, vector, externalId: "g" },
      { faceId: f, vector, externalId: "f" },
    ];
    await db.putFaces({ listIds: [list.listId], descriptorVersion: version, faces });
    await db.putFaces({ listIds: [list.listId], descriptorVersion: version, faces: faces.slice(1) });
    expect((await db.listStates({ listIds: [list.listId] }))[0]).toMatchObject({ revision: 2, faceCount: 2 });
    const found = await db.descriptorsOf({ faceIds: [f, g, randomUUID()], descriptorVersion: version });
    expect([...found.keys()].sort()).toEqual([f, g].sort());
    expect(Math.hypot(...(found.get(f) ?? []))).toBeCloseTo(1, 5);
    expect(await db.externalIdsOf({ faceIds: [f, g] })).toEqual(
      new Map([
        [f, "f"],
        [g, "g"],
      ]),
    );
    expect(await db.unlinkFaces({ listId: list.listId, faceIds: [f, f, randomUUID()] })).toBe(1);
    expect(await db.linkFaces({ listId: list.listId, faceIds: [f, g] })).toBe(1);
    expect(await db.deleteFaces({ faceIds: [f, randomUUID()] })).toBe(1);
    expect((await db.listStates({ listIds: [list.listId] }))[0]).toMatchObject({ revision: 5, faceCount: 1 });
  });

  it("I11 wrong input changes nothing and says what is wrong", async () => {
    const list = await db.createList({ name: "strict" });
    const face = { faceId: randomUUID(), vector: newVector(16) };
    const put = (
      faces: { faceId: string; vector: Float32Array; externalId?: string }[],
      listIds = [list.listId],
    ) => db.putFaces({ listIds, descriptorVersion: version, faces });
    const bad = { errorName: "bad_input" };
    await expect(put([face, { faceId: randomUUID(), vector: new Float32Array(16) }])).rejects.toMatchObject(
      bad,
    );
    await expect(put([{ faceId: "no", vector: face.vector }])).rejects.toMatchObject(bad);
    await expect(put([{ ...face, externalId: "" }])).rejects.toMatchObject(bad);
    await expect(
      put([
        { ...face, externalId: "same" },
        { faceId: randomUUID(), vector: face.vector, externalId: "same" },
      ]),
    ).rejects.toMatchObject(bad);
    const missing = { errorName: "list_not_found" };
    await expect(put([face], [list.listId, randomUUID()])).rejects.toMatchObject(missing);
    await expect(
      db.linkFaces({ listId: randomUUID(), faceIds: await addFaces(sql, 1) }),
    ).rejects.toMatchObject(missing);
    await expect(db.unlinkFaces({ listId: randomUUID(), faceIds: [face.faceId] })).rejects.toMatchObject(
      missing,
    );
    await expect(db.linkFaces({ listId: list.listId, faceIds: [randomUUID()] })).rejects.toMatchObject(bad);
    expect((await db.listStates({ listIds: [list.listId] }))[0]).toMatchObject({ revision: 0 });
    expect(await db.descriptorsOf({ faceIds: [face.faceId], descriptorVersion: version })).toEqual(new Map());
  });
});

describe("failures", () => {
  it("a server that is away is postgres_unavailable, and no password is told anywhere", async () => {
    const url = new URL(test.url);
    url.password = "s3cret%2Fpass";
    url.port = "1";
    const away = openFacesDb({ connectionString: url.href });
    const error = await away.ping().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ errorName: "postgres_unavailable" });
    expect((error as Error).cause).toMatchObject({ code: "ECONNREFUSED" });
    expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/s3cret/);
    await away.close();
    const wrong = () => openFacesDb({ connectionString: "postgres://user:s3cret@host:notaport/x" });
    expect(wrong).toThrow(expect.objectContaining({ errorName: "bad_settings" }));
    try {
      wrong();
    } catch (thrown) {
      expect(inspect(thrown, { depth: 9, showHidden: true })).not.toMatch(/s3cret/);
    }
  });

  it("an abort ends a statement that waits for a lock, in Postgres as well", async () => {
    const list = await db.createList({ name: "locked" });
    const [f, g] = (await addFaces(sql, 2)) as [string, string];
    const blocker = await connectPlain(test.url);
    await blocker.query("BEGIN");
    await link(blocker, list.listId, f);
    const controller = new AbortController();
    const linked = db.linkFaces({ listId: list.listId, faceIds: [g], signal: controller.signal });
    linked.catch(() => {});
    const waiting = async () => {
      const { rows } = await sql.query(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
      );
      return rows.length;
    };
    await eventually("the link waits", async () => ((await waiting()) === 1 ? true : undefined));
    controller.abort();
    await expect(linked).rejects.toMatchObject({ errorName: "aborted" });
    await eventually("nothing waits", async () => ((await waiting()) === 0 ? true : undefined));
    await blocker.query("COMMIT");
    await blocker.end();
    expect((await db.listStates({ listIds: [list.listId] }))[0]?.revision).toBe(1);
  });

  it("a transaction that never gets through ends as retry_transaction; connections that died are replaced", async () => {
    const database = new Database({ connectionString: test.url });
    let tries = 0;
    await expect(
      database.transaction({}, async (session) => {
        tries++;
        await session.query("DO $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$");
      }),
    ).rejects.toMatchObject({ errorName: "retry_transaction" });
    expect(tries).toBe(6);
    await database.close();
    await db.ping();
    await sql.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    await eventually("the pool works again", async () => {
      await db.ping();
      return true;
    });
  });
});
