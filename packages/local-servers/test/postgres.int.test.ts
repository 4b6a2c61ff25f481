import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { connectSql, type LocalServer, startPostgres, withDatabase } from "../src/index.ts";
import { isAlive, withFolder } from "./helpers.ts";

const settings = { fsync: "off" };

async function ask(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = await connectSql(url);
  try {
    return await client.query(text);
  } finally {
    await client.close();
  }
}

/** Runs `work` with a server on `dir` and stops it. */
async function withPostgres(dir: string, work: (server: LocalServer) => Promise<void>): Promise<void> {
  const server = await startPostgres({ dir, database: "faces", settings });
  try {
    await work(server);
  } finally {
    await server.stop();
  }
}

describe("startPostgres", () => {
  it("keeps its data over stops, kill -9 and a process id that now is somebody else's", () =>
    withFolder(async (dir) => {
      await withPostgres(dir, async (server) => {
        await ask(server.url, "CREATE TABLE kept AS SELECT 1 AS n");
        expect(await ask(server.url, "SHOW unix_socket_directories")).toEqual([
          { unix_socket_directories: "" },
        ]);
        process.kill(server.pids[0] ?? 0, "SIGKILL");
      });
      await withPostgres(dir, async (server) => {
        expect(await ask(server.url, "SELECT n FROM kept")).toEqual([{ n: 1 }]);
        await server.stop();
        expect(server.pids.some(isAlive)).toBe(false);
      });
      // Postgres itself believes a pid file whose process is alive and of its own user.
      const { uid, gid } = await stat(join(dir, "postgres-data"));
      const stranger = spawn("sleep", ["60"], { cwd: "/", uid, gid });
      await once(stranger, "spawn");
      try {
        await writeFile(join(dir, "postgres-data", "postmaster.pid"), `${stranger.pid}\n`);
        await withPostgres(dir, async (server) => {
          expect(await ask(server.url, "SELECT n FROM kept")).toEqual([{ n: 1 }]);
        });
        expect(isAlive(stranger.pid ?? 0)).toBe(true);
      } finally {
        stranger.kill();
      }
    }));

  it("asks for a generated password that only the owner can read and that no log or process list shows", () =>
    withFolder(async (dir) => {
      await withPostgres(dir, async (server) => {
        const password = decodeURIComponent(new URL(server.url).password);
        expect(password.length).toBeGreaterThan(20);
        expect(await readFile(join(dir, "postgres-password"), "utf8")).toBe(password);
        expect((await stat(join(dir, "postgres-password"))).mode & 0o777).toBe(0o600);
        const wrong = server.url.replace(password, "guess");
        await expect(ask(wrong, "SELECT 1")).rejects.toMatchObject({ errorName: "postgres_unavailable" });
        await expect(ask(wrong, "SELECT 1")).rejects.not.toThrow(/guess/);
        const log = await readFile(join(dir, "postgres.log"), "utf8");
        expect(log).toMatch(/password authentication failed/);
        expect(log).not.toContain(password);
        expect(execFileSync("ps", ["-eo", "args"], { encoding: "utf8" })).not.toContain(password);
      });
    }));

  it("uses the server of a URL and creates the database that is missing", () =>
    withFolder(async (dir) => {
      await withPostgres(dir, async (server) => {
        const named = await startPostgres({ dir, database: "ignored", url: withDatabase(server.url, "a b") });
        expect(named.pids).toEqual([]);
        expect(await ask(named.url, "SELECT current_database() AS d")).toEqual([{ d: "a b" }]);
        const unnamed = await startPostgres({ dir, database: "lim", url: withDatabase(server.url, "") });
        expect(await ask(unnamed.url, "SELECT current_database() AS d")).toEqual([{ d: "lim" }]);
        await unnamed.stop();
        expect(server.pids.every(isAlive)).toBe(true);
      });
      const gone = startPostgres({ dir, database: "x", url: "postgres://u:s3cret@127.0.0.1:1/x" });
      await expect(gone).rejects.toMatchObject({ errorName: "postgres_unavailable" });
      await expect(gone).rejects.not.toThrow(/s3cret/);
    }));

  it("refuses a folder that another run's server is using", () =>
    withFolder(async (dir) => {
      await withPostgres(dir, async (server) => {
        await expect(startPostgres({ dir, database: "faces" })).rejects.toMatchObject({
          errorName: "bad_settings",
          detail: expect.stringContaining(`process ${server.pids[0]}`),
        });
        expect(await ask(server.url, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
      });
    }));

  it("shows the end of the log when the server dies at its start, and removes what a broken initdb left", () =>
    withFolder(async (dir) => {
      await mkdir(join(dir, "postgres-init-99999999", "data"), { recursive: true });
      await writeFile(join(dir, "postgres-init-99999999", "password"), "left behind");
      await expect(
        startPostgres({ dir, database: "faces", settings: { ...settings, no_such_setting: "1" } }),
      ).rejects.toMatchObject({
        errorName: "bad_settings",
        detail: expect.stringMatching(/no_such_setting/),
      });
      expect(existsSync(join(dir, "postgres-init-99999999"))).toBe(false);
      await withPostgres(dir, async () => {});
    }));

  it("says what to do with a folder of another Postgres version, or without its password", () =>
    withFolder(async (dir) => {
      await withPostgres(dir, async () => {});
      const versionPath = join(dir, "postgres-data", "PG_VERSION");
      const version = await readFile(versionPath, "utf8");
      await writeFile(versionPath, "17\n");
      await expect(startPostgres({ dir, database: "faces" })).rejects.toThrow(/made by Postgres 17/);
      await writeFile(versionPath, version);
      await rm(join(dir, "postgres-password"));
      await expect(startPostgres({ dir, database: "faces" })).rejects.toThrow(/postgres-password is missing/);
    }));

  it("can be cancelled while it makes or starts the server, and leaves nothing that a later start minds", () =>
    withFolder(async (dir) => {
      const inInit = startPostgres({ dir, database: "faces", settings, signal: AbortSignal.timeout(150) });
      await expect(inInit).rejects.toMatchObject({ errorName: "aborted" });
      expect((await readdir(dir)).filter((name) => name.startsWith("postgres-init"))).toEqual([]);
      await withPostgres(dir, async () => {});
      const inStart = startPostgres({ dir, database: "faces", settings, signal: AbortSignal.abort() });
      await expect(inStart).rejects.toMatchObject({ errorName: "aborted" });
      await withPostgres(dir, async () => {});
    }));

  const isRoot = process.getuid?.() === 0;
  it.skipIf(!isRoot).each([
    ["home", homedir()],
    ["temporary folder", tmpdir()],
  ])("as root, works below a private %s, and begins anew when its folder was deleted", async (_, parent) => {
    const home = await mkdtemp(join(parent, ".lim-private-"));
    const dir = join(home, "state");
    let standIn: string | undefined;
    try {
      await withPostgres(dir, async (server) => {
        standIn = await readlink(join(dir, "postgres"));
        expect(await ask(server.url, "CREATE TABLE kept AS SELECT 1 AS n")).toEqual([]);
      });
      await withPostgres(dir, async (server) => {
        expect(await ask(server.url, "SELECT n FROM kept")).toEqual([{ n: 1 }]);
      });
      expect((await stat(home)).mode & 0o777).toBe(0o700);
      await rm(dir, { recursive: true });
      await withPostgres(dir, async (server) => {
        await expect(ask(server.url, "SELECT n FROM kept")).rejects.toThrow(/does not exist/);
      });
    } finally {
      await rm(home, { recursive: true, force: true });
      if (standIn !== undefined) {
        await rm(standIn, { recursive: true, force: true });
        // The parent goes too unless it holds another's.
        if (parent === homedir()) await rmdir(dirname(standIn)).catch(() => {});
      }
    }
  });
});
