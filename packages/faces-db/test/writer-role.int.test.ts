import { randomBytes, randomUUID } from "node:crypto";
import { createTestDatabase } from "@lim/testkit";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type FacesDb, type ListState, openFacesDb } from "../src/index.ts";
import { bytesOf, connectPlain, currentContent, Follower, feedOf, newVector } from "./helpers.ts";

const role = `lim_writer_${randomBytes(4).toString("hex")}`;
const password = randomBytes(12).toString("hex");
let test: Awaited<ReturnType<typeof createTestDatabase>>;
let db: FacesDb;
let owner: pg.Client;
/** May write what a platform writes, and nothing of the feed. */
let writer: pg.Client;
let lists: ListState[];

beforeAll(async () => {
  test = await createTestDatabase();
  db = openFacesDb({ connectionString: test.url });
  owner = await connectPlain(test.url);
  await owner.query(`
    CREATE ROLE ${role} LOGIN PASSWORD '${password}';
    GRANT USAGE ON SCHEMA faces TO ${role};
    GRANT SELECT, INSERT, UPDATE, DELETE ON faces.list, faces.face, faces.descriptor, faces.list_face TO ${role};`);
  const url = new URL(test.url);
  url.username = role;
  url.password = password;
  writer = await connectPlain(url.href);
  lists = [await db.createList({ name: "a" }), await db.createList({ name: "b" })];
});
afterAll(async () => {
  await writer?.end();
  await owner?.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  await owner?.end();
  await db?.close();
  await test?.drop();
});

async function follow(list: ListState) {
  const follower = new Follower(db, list);
  await follower.drain();
  return follower;
}

describe("a writer that is not the owner", () => {
  it("I1 links, describes, moves, unlinks and deletes, and the feed is exact at every isolation level", async () => {
    const [a, b] = lists as [ListState, ListState];
    for (const level of ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]) {
      const faces = Array.from({ length: 4 }, () => randomUUID()).sort();
      await writer.query(`BEGIN ISOLATION LEVEL ${level}`);
      await writer.query("INSERT INTO faces.face (face_id) SELECT unnest($1::uuid[])", [faces]);
      await writer.query("INSERT INTO faces.list_face SELECT $1, unnest($2::uuid[])", [a.listId, faces]);
      for (const face of faces)
        await writer.query("INSERT INTO faces.descriptor VALUES ($1, 1, $2)", [face, bytesOf(newVector())]);
      await writer.query("COMMIT");
      await writer.query(`BEGIN ISOLATION LEVEL ${level}`);
      await writer.query("SAVEPOINT undone");
      await writer.query("DELETE FROM faces.list_face WHERE list_id = $1", [a.listId]);
      await writer.query("UPDATE faces.descriptor SET data = $2 WHERE face_id = $1", [
        faces[0],
        bytesOf(newVector()),
      ]);
      await writer.query("ROLLBACK TO undone");
      await writer.query("UPDATE faces.list_face SET list_id = $1 WHERE face_id = $2", [b.listId, faces[1]]);
      await writer.query("UPDATE faces.descriptor SET data = $2 WHERE face_id = $1", [
        faces[1],
        bytesOf(newVector()),
      ]);
      await writer.query("DELETE FROM faces.face WHERE face_id = $1", [faces[2]]);
      await writer.query("COMMIT");
      for (const list of [a, b]) {
        const feed = await feedOf(owner, list.listId);
        expect(feed.map((row) => row.revision)).toEqual(feed.map((_, i) => i + 1));
        const follower = await follow(list);
        expect(follower.content).toEqual(await currentContent(owner, list.listId));
        expect(feed.at(-1)?.faceCount).toBe(follower.content.size);
      }
    }
  });

  it("deletes a list", async () => {
    const doomed = await db.createList({ name: "doomed" });
    await writer.query("INSERT INTO faces.list_face SELECT $1, face_id FROM faces.face", [doomed.listId]);
    await writer.query("DELETE FROM faces.list WHERE list_id = $1", [doomed.listId]);
    expect(await feedOf(owner, doomed.listId)).toEqual([]);
  });

  it("can write no feed past its tables: neither the rows, nor the functions, nor by triggers of its own", async () => {
    const [a] = lists as [ListState];
    await expect(
      writer.query("INSERT INTO faces.list_change SELECT * FROM faces.list_change"),
    ).rejects.toThrow("permission denied");
    await expect(
      writer.query("SELECT faces.append_changes($1, $1, $1, '{link}', '{0}')", [[a.listId]]),
    ).rejects.toThrow("permission denied");
    await writer.query("CREATE TEMPORARY TABLE forged (list_id uuid, face_id uuid)");
    await expect(
      writer.query(`CREATE TRIGGER forged AFTER INSERT ON forged REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION faces.on_list_face_change()`),
    ).rejects.toThrow("permission denied");
  });
});
