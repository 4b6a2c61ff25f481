import { mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectSql, freePort, startRedis } from "@lim/local-servers";
import { createTestDatabase, eventually, startProcess } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Harness, startHarness } from "./harness.ts";

let harness: Harness;

beforeAll(async () => {
  harness = await startHarness();
});
afterEach(() => harness.clear());
afterAll(() => harness.close());

const script = new URL("../dist/main.js", import.meta.url).pathname;

describe("a manager's life", () => {
  it("ends cleanly on SIGTERM, and frees the lock for another at once", async () => {
    const manager = await harness.manager({ LIM_MANAGER_LEASE_TTL_MS: "60000" });
    await eventually("leads", async () =>
      ((await manager.api("GET", "/1/master")).body as { is_master: boolean }).is_master ? true : undefined,
    );
    manager.process.kill("SIGTERM");
    // One that is forced to end has another code.
    expect(await manager.process.exited).toBe(0);
    // Released: the lease of a master that was killed lasts longer than this took.
    expect(await harness.raw.exists("lim_manager_master")).toBe(0);
  });

  it("refuses bad settings with exit code 2, every fault by its variable, no secret", async () => {
    const manager = startProcess({
      name: "misconfigured",
      script,
      env: {
        REDIS_URL: "redis://h",
        DATABASE_URL: "hunter2",
        LIM_STORAGE_ROOT: "",
        LIM_PLANNING_SCHEDULE: "x",
      },
    });
    expect(await manager.exited).toBe(2);
    await manager.waitForLine(/LIM_PLANNING_SCHEDULE: /, { timeoutMs: 60_000 });
    await manager.waitForLine(/LIM_STORAGE_ROOT: is required/, { timeoutMs: 60_000 });
    expect(manager.lines.join("\n")).not.toContain("hunter2");
  });

  it("applies migrations to an empty database, several managers at once", async () => {
    const { db, drop, url } = await createTestDatabase();
    try {
      const sql = await connectSql(url);
      await sql.query("DROP SCHEMA faces CASCADE").finally(() => sql.close());
      const managers = await Promise.all([1, 2].map(() => harness.manager({ DATABASE_URL: url })));
      expect(await db.listStates()).toEqual([]);
      const said = managers.map((one) =>
        one.process.lines.filter((line) => line.includes("migrations applied")),
      );
      expect(said.flat()).toHaveLength(1);
    } finally {
      await harness.clear();
      await drop();
    }
  });

  it("waits for a Redis that starts later, and tells what it waits for", async () => {
    const dir = await mkdtemp(join(tmpdir(), "lim-late-redis-"));
    const [redisPort, port] = [await freePort(), await freePort()];
    const manager = startProcess({
      name: "early",
      script,
      env: {
        REDIS_URL: `redis://127.0.0.1:${redisPort}`,
        DATABASE_URL: harness.databaseUrl,
        LIM_STORAGE_ROOT: harness.storageRoot,
        LIM_MANAGER_HOST: "127.0.0.1",
        LIM_MANAGER_PORT: `${port}`,
      },
    });
    try {
      const health = await eventually(
        "health",
        async () => {
          const response = await fetch(`http://127.0.0.1:${port}/healthcheck`);
          return { status: response.status, body: (await response.json()) as object };
        },
        { timeoutMs: 60_000 },
      );
      expect(health).toMatchObject({ status: 503, body: { components: { postgres: "ok", storage: "ok" } } });
      expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(503);
      expect((await fetch(`http://127.0.0.1:${port}/1/tasks`)).status).toBe(503);
      const redis = await startRedis({ dir, port: redisPort });
      try {
        await manager.waitForLine(/index-manager listening/, { timeoutMs: 60_000 });
        expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200);
        expect((await fetch(`http://127.0.0.1:${port}/1/tasks`)).status).toBe(200);
      } finally {
        await manager.stop();
        await redis.stop();
      }
    } finally {
      await manager.stop();
      await rm(dir, { recursive: true, force: true });
    }
  });

  it("plans nothing while the storage is away, tells so, and goes on once it is back", async () => {
    const root = await mkdtemp(join(tmpdir(), "lim-away-"));
    try {
      const manager = await harness.manager({
        LIM_STORAGE_ROOT: join(root, "storage"),
        LIM_PLANNING_PERIOD_S: "1",
      });
      await rename(join(root, "storage"), join(root, "away"));
      await harness.list();
      await manager.process.waitForLine(/planning failed/, { timeoutMs: 60_000 });
      expect(await manager.api("GET", "/healthcheck")).toMatchObject({
        status: 503,
        body: { components: { redis: "ok", postgres: "ok", storage: expect.stringContaining("ENOENT") } },
      });
      expect((await harness.store.queue({ limit: 10 })).count).toBe(0);
      await rename(join(root, "away"), join(root, "storage"));
      await eventually(
        "task planned",
        async () => ((await harness.store.queue({ limit: 10 })).count === 1 ? true : undefined),
        { timeoutMs: 60_000 },
      );
    } finally {
      await harness.clear();
      await rm(root, { recursive: true, force: true });
    }
  });
});
