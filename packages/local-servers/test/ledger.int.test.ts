import { chmod, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { eventually, type ManagedProcess, startProcess } from "@lim/testkit";
import { afterEach, describe, expect, it } from "vitest";
import { isProcessRunning, openProcessLedger, reapLeftovers, startPostgres } from "../src/index.ts";
import { fixture, isAlive, withFolder } from "./helpers.ts";

const started: ManagedProcess[] = [];
afterEach(async () => {
  for (const child of started.splice(0)) await child.stop({ graceMs: 0 });
});

async function startOwner(dir: string, what: string): Promise<{ owner: ManagedProcess; pids: number[] }> {
  const owner = startProcess({ name: "owner", script: fixture("owner.mjs"), args: [dir, what] });
  started.push(owner);
  const line = await owner.waitForLine(/^pids/, { timeoutMs: 60_000 });
  return { owner, pids: line.split(" ").slice(1).map(Number) };
}

async function killOwner(owner: ManagedProcess): Promise<void> {
  owner.kill("SIGKILL");
  await owner.exited;
}

const gone = (pids: number[]) =>
  eventually("the processes are gone", async () => {
    for (const pid of pids) if (await isProcessRunning(pid)) return undefined;
    return true;
  });

describe("process ledger", () => {
  it("ends the Redis and the Postgres of a run that was killed; the data serves the next run", () =>
    withFolder(async (dir) => {
      const { owner, pids } = await startOwner(dir, "servers");
      expect(pids).toHaveLength(2);
      expect(await reapLeftovers(dir)).toEqual([]);
      await killOwner(owner);
      expect(pids.every(isAlive)).toBe(true);
      const reaped = await reapLeftovers(dir);
      expect(reaped.map(({ name }) => name)).toEqual(["postgres", "redis"]);
      await gone(pids);
      expect(await readdir(join(dir, "processes"))).toEqual([]);
      const again = await startPostgres({ dir, database: "kept" });
      await again.stop();
    }));

  it("is not needed where the owner ends by itself: its servers go along", () =>
    withFolder(async (dir) => {
      await chmod(dir, 0o711);
      for (const how of ["servers-exit", "servers-throw"]) {
        const { owner, pids } = await startOwner(join(dir, how), how);
        await owner.exited;
        expect(pids).toHaveLength(2);
        await gone(pids);
      }
    }));

  it("lets a new start take over the folder of a killed run by itself", () =>
    withFolder(async (dir) => {
      const { owner, pids } = await startOwner(dir, "servers");
      await killOwner(owner);
      const again = await startPostgres({ dir, database: "kept" });
      await gone(pids);
      await again.stop();
    }));

  it(
    "kills what ignores SIGTERM, newest first, and leaves a live owner's processes alone",
    () =>
      withFolder(async (dir) => {
        const dead = await startOwner(dir, "stubborn");
        const live = await startOwner(dir, "stubborn");
        await killOwner(dead.owner);
        const reaped = await reapLeftovers(dir, { graceMs: 200 });
        expect(reaped.map(({ name }) => name)).toEqual(["newer", "older"]);
        await gone(dead.pids);
        expect(live.pids.every(isAlive)).toBe(true);
        await killOwner(live.owner);
        expect(await reapLeftovers(dir, { graceMs: 200 })).toHaveLength(2);
        await gone(live.pids);
      }),
    60_000,
  );

  it("never hits a reused process id, and passes over entries that were torn or are foreign", () =>
    withFolder(async (dir) => {
      const bystander = startProcess({ name: "bystander", script: fixture("stubborn.mjs") });
      started.push(bystander);
      await bystander.waitForLine(/ready/, { timeoutMs: 60_000 });
      const ledger = await openProcessLedger(dir);
      await ledger.record({ pid: bystander.pid, name: "bystander" });
      const path = join(dir, "processes", `${bystander.pid}.json`);
      const entry = JSON.parse(await readFile(path, "utf8"));
      const reused = { ...entry, identity: `${entry.identity}0`, ownerIdentity: "dead" };
      await writeFile(path, JSON.stringify(reused));
      await writeFile(join(dir, "processes", "1.json"), '{"pid": 1, "na');
      await writeFile(join(dir, "processes", "2.json"), JSON.stringify({ ...reused, pid: -1 }));
      expect(await reapLeftovers(dir)).toEqual([]);
      expect(isAlive(bystander.pid)).toBe(true);
    }));

  it("forgets, records nothing for a process that is gone, and has nothing to do in a new folder", () =>
    withFolder(async (dir) => {
      expect(await reapLeftovers(join(dir, "missing"))).toEqual([]);
      await mkdir(join(dir, "l"));
      const ledger = await openProcessLedger(join(dir, "l"));
      await ledger.record({ pid: process.pid, name: "self" });
      await ledger.forget(process.pid);
      await ledger.forget(process.pid);
      const child = startProcess({ name: "short", script: fixture("stubborn.mjs") });
      await child.stop({ graceMs: 0 });
      await ledger.record({ pid: child.pid, name: "short" });
      expect(await readdir(join(dir, "l", "processes"))).toEqual([]);
    }));
});
