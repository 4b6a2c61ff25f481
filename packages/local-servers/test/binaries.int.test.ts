import { execFileSync } from "node:child_process";
import { chmod, chown, cp, lstat, mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { startProcess } from "@lim/testkit";
import { describe, expect, it } from "vitest";
import { unprivilegedAccount } from "../src/account.ts";
import { startPostgres } from "../src/index.ts";
import { locateNative, postgresBinaries } from "../src/postgres-binaries.ts";
import { fixture, withFolder } from "./helpers.ts";

/** Another user than the one that root prefers. */
const nobody = 65_534;
const isRoot = process.getuid?.() === 0;

describe("programs of the embedded Postgres", () => {
  it("are used in place where they can be", () =>
    withFolder(async (dir) => {
      const { native } = await locateNative();
      const binaries = await postgresBinaries(undefined, dir);
      expect(binaries.initdb.startsWith(native)).toBe(true);
      expect(await readdir(dir)).toEqual([]);
    }));

  it.skipIf(!isRoot)("are copied out of a private home, links between libraries made anew", () =>
    withFolder(async (dir) => {
      const home = await mkdtemp(join(homedir(), ".lim-private-"));
      try {
        const installed = await locateNative();
        const native = join(home, "native");
        await cp(installed.native, native, { recursive: true, verbatimSymlinks: true });
        for (const name of await readdir(join(native, "lib"))) {
          const path = join(native, "lib", name);
          if ((await lstat(path)).isSymbolicLink()) await rm(path);
        }
        await chmod(dir, 0o711);
        const account = await unprivilegedAccount();
        if (account === undefined) throw new Error("not root");
        const binaries = await postgresBinaries(account, dir, { ...installed, native });
        expect(binaries.postgres.startsWith(dir)).toBe(true);
        const version = execFileSync(binaries.postgres, ["--version"], {
          cwd: "/",
          uid: account.uid,
          gid: account.gid,
          encoding: "utf8",
        });
        expect(version).toContain(`PostgreSQL) ${binaries.majorVersion}.`);
      } finally {
        await rm(home, { recursive: true, force: true });
      }
    }),
  );

  it.skipIf(!isRoot)("serve a user who is not root, and root on that user's folder afterwards", () =>
    withFolder(async (dir) => {
      await chmod(dir, 0o711);
      const own = join(dir, "own");
      await mkdir(own);
      await chown(own, nobody, nobody);
      const owner = startProcess({
        name: "owner",
        script: fixture("unprivileged.mjs"),
        args: [own, String(nobody), String(nobody)],
        cwd: "/",
      });
      try {
        await owner.waitForLine(/^served as \d+, stopped$/, { timeoutMs: 30_000 });
      } finally {
        await owner.stop();
      }
      const ownerOfData = (await stat(join(own, "postgres-data"))).uid;
      expect(ownerOfData).toBe(nobody);
      const asRoot = await startPostgres({ dir: own, database: "own", settings: { fsync: "off" } });
      await asRoot.stop();
    }),
  );
});
