import { fileURLToPath } from "node:url";
import { connectSql } from "@lim/local-servers";
import { describe, expect, it } from "vitest";
import { dropRunDatabases } from "../src/database.ts";
import { createFaceGenerator, createTestDatabase, faceIdOf, startProcess } from "../src/index.ts";

const fixture = (name: string) => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));

describe("createTestDatabase", () => {
  it("gives private, migrated databases, also to several callers at once", async () => {
    const databases = await Promise.all([createTestDatabase(), createTestDatabase(), createTestDatabase()]);
    const [first, second] = databases;
    if (!first || !second) throw new Error("no databases");
    try {
      expect(new Set(databases.map(({ url }) => url)).size).toBe(3);
      expect((await first.db.migrate()).applied).toEqual([]);
      const { listId } = await first.db.createList({ name: "one" });
      const vector = createFaceGenerator({ dim: 8, effectiveDim: 6 }).vector(0, 0);
      await first.db.putFaces({
        listIds: [listId],
        descriptorVersion: 1,
        faces: [{ faceId: faceIdOf("t", 0), vector }],
      });
      expect((await first.db.listStates()).map(({ faceCount }) => faceCount)).toEqual([1]);
      expect(await second.db.listStates()).toEqual([]);
    } finally {
      await Promise.all(databases.map(({ drop }) => drop()));
    }
    await expect(connectSql(first.url)).rejects.toMatchObject({ errorName: "postgres_unavailable" });
  });

  it("makes the template once, whatever number of processes asks first", async () => {
    // A run id of its own, so that the template is not there yet.
    const runId = `own${process.pid}`;
    const workers = Array.from({ length: 3 }, (_, w) =>
      startProcess({
        name: `worker ${w}`,
        script: fixture("database-user.mjs"),
        env: { LIM_TEST_RUN_ID: runId },
      }),
    );
    try {
      for (const worker of workers) await worker.waitForLine(/^made and dropped$/, { timeoutMs: 60_000 });
      const admin = await connectSql(process.env.LIM_TEST_POSTGRES_URL ?? "");
      const left = await admin.query("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", [
        `lim_test_${runId}_`,
      ]);
      await admin.close();
      expect(left).toEqual([{ datname: `lim_test_${runId}_template` }]);
    } finally {
      for (const worker of workers) await worker.stop();
      await dropRunDatabases(process.env.LIM_TEST_POSTGRES_URL ?? "", runId);
    }
  });

  it("drops a database although sessions are open on it", async () => {
    const database = await createTestDatabase();
    const session = await connectSql(database.url);
    await database.drop();
    await expect(session.query("SELECT 1")).rejects.toThrow();
    await session.close().catch(() => {});
  });
});
