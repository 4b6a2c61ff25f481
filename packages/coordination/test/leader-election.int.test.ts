import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { eventually, type ManagedProcess, startProcess } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { commandClient } from "../src/connection.ts";
import { Keys } from "../src/keys.ts";
import { createLeaderElection } from "../src/leader-election.ts";
import { loadScript, runScript } from "../src/lua.ts";
import type { KeyNames, LeaderElection, Leadership } from "../src/port.ts";
import { createTaskStore } from "../src/task-store.ts";
import { freshKeyNames, type RedisFixture, startFixture } from "./support.ts";

const leaseTtlMs = 800;
/** For those that must not lose it on a busy machine, where a renewal may come late. */
const steadyLeaseTtlMs = 2_000;

let fixture: RedisFixture;
const cleanUps: (() => Promise<void>)[] = [];
beforeAll(async () => {
  fixture = await startFixture();
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});
afterAll(() => fixture.close());

interface Candidate {
  election: LeaderElection;
  /** Of every term so far. */
  terms: Leadership[];
  stop(): Promise<void>;
}

/** A candidate whose work waits for its signal. */
function stand(
  keys: KeyNames,
  work?: (leadership: Leadership) => Promise<void>,
  ttlMs = leaseTtlMs,
): Candidate {
  const election = createLeaderElection({ redis: fixture.connect(), keys, leaseTtlMs: ttlMs });
  const terms: Leadership[] = [];
  const end = new AbortController();
  const running = election.run(
    async (leadership) => {
      terms.push(leadership);
      if (work) return work(leadership);
      await new Promise((resolve) => leadership.signal.addEventListener("abort", resolve));
    },
    { signal: end.signal },
  );
  const stop = async () => {
    end.abort();
    await running;
  };
  cleanUps.push(stop);
  return { election, terms, stop };
}

const standSteadily = (keys: KeyNames) => stand(keys, undefined, steadyLeaseTtlMs);

function startCandidate(keys: KeyNames, mark: number): ManagedProcess {
  const child = startProcess({
    name: "candidate",
    script: fileURLToPath(new URL("./fixtures/candidate.ts", import.meta.url)),
    args: [JSON.stringify({ url: fixture.url, keys, leaseTtlMs, mark })],
  });
  cleanUps.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  return child;
}

const leading = (candidate: Candidate, terms = 1) =>
  eventually("it leads", () =>
    candidate.terms.length >= terms && candidate.election.isLeader() ? candidate.terms.at(-1) : undefined,
  );

function numberIn(line: string): number {
  return Number(line.split(" ")[1]);
}

describe("leader election", () => {
  it("makes one of three the master, and another when it retires", async () => {
    const keys = freshKeyNames();
    const all = [standSteadily(keys), standSteadily(keys), standSteadily(keys)];
    const first = await eventually("one leads", () => all.find((one) => one.election.isLeader()));
    const lock = await fixture.raw.get(new Keys(keys).masterLock);
    // Past the end of a lease that nobody renewed, with many candidacies.
    for (const until = performance.now() + 1.2 * steadyLeaseTtlMs; performance.now() < until; await sleep(20))
      expect(all.filter((one) => one.election.isLeader())).toEqual([first]);
    expect(all.flatMap((one) => one.terms)).toHaveLength(1);
    await first.stop();
    // It was released, so nobody waits for the lease.
    expect(await fixture.raw.get(new Keys(keys).masterLock)).not.toBe(lock);
    expect(first.terms[0]?.signal.aborted).toBe(true);
    expect(first.election.isLeader()).toBe(false);
    const second = await eventually("another leads", () => all.find((one) => one.election.isLeader()));
    expect(second).not.toBe(first);
    expect(second.terms[0]?.epoch).toBeGreaterThan(first.terms[0]?.epoch ?? Number.POSITIVE_INFINITY);
  });

  it.each([
    ["its lock is deleted", async (keys: Keys) => void (await fixture.raw.del(keys.masterLock))],
    [
      "its lock is another's",
      async (keys: Keys) => void (await fixture.raw.set(keys.masterLock, "x", "PX", 200)),
    ],
    ["the epoch counter is lost", async (keys: Keys) => void (await fixture.raw.del(keys.epoch))],
    ["Redis is flushed", async () => void (await fixture.raw.flushall())],
    ["Redis restarts empty", () => fixture.restart()],
  ])("ends the term when %s; the next epoch is strictly higher (I4, I9)", async (_, damage) => {
    const keys = freshKeyNames();
    const candidate = stand(keys);
    const first = await leading(candidate);
    const store = createTaskStore({ redis: fixture.connect(), keys });
    await damage(new Keys(keys));
    await eventually("the signal fires", () => first.signal.aborted || undefined);
    const next = await leading(candidate, 2);
    expect(next.epoch).toBeGreaterThan(first.epoch);
    expect(await store.setLastPlanMs({ lastPlanMs: 1, epoch: first.epoch })).toEqual({
      ok: false,
      refusal: "stale_epoch",
    });
    expect(await store.setLastPlanMs({ lastPlanMs: 2, epoch: next.epoch })).toEqual({ ok: true });
  });

  it("counts on from an epoch that is ahead of Redis' clock, digit by digit (I4)", async () => {
    const keys = freshKeyNames();
    const ahead = 8_999_999_999_999_990;
    await fixture.raw.set(new Keys(keys).epoch, String(ahead));
    expect((await leading(stand(keys))).epoch).toBe(ahead + 1);
    expect(await fixture.raw.get(new Keys(keys).epoch)).toBe(String(ahead + 1));
  });

  it("gives no epoch to who lost the lock before claiming it (I4)", async () => {
    const keys = new Keys(freshKeyNames());
    await fixture.raw.set(keys.masterLock, "another", "PX", 5_000);
    await fixture.raw.set(keys.epoch, "7");
    const claim = loadScript("epoch_claim", String);
    const client = commandClient(fixture.connect());
    expect(await runScript(client, claim, { keys: [keys.masterLock, keys.epoch], args: ["late"] })).toBe("");
    expect(await fixture.raw.get(keys.epoch)).toBe("7");
  });

  it("hands over once the lease has ended when the master's process is killed", async () => {
    const keys = freshKeyNames();
    const child = startCandidate(keys, 1);
    const epoch = numberIn(await child.waitForLine(/^leading/, { timeoutMs: 30_000 }));
    const heir = stand(keys);
    await sleep(leaseTtlMs / 2);
    expect(heir.terms).toEqual([]);
    child.kill("SIGKILL");
    await child.exited;
    // Nobody but Redis' clock ends it now. (How soon it is noticed is measured by the campaign of fail-overs.)
    expect(await fixture.raw.pttl(new Keys(keys).masterLock)).toBeLessThanOrEqual(leaseTtlMs);
    const term = await leading(heir);
    expect(term.epoch).toBeGreaterThan(epoch);
  });

  it("refuses what a master says that was stopped past its lease (I4)", async () => {
    const keys = freshKeyNames();
    const child = startCandidate(keys, 1);
    const epoch = numberIn(await child.waitForLine(/^leading/, { timeoutMs: 30_000 }));
    const heir = standSteadily(keys);
    child.kill("SIGSTOP");
    const term = await leading(heir);
    const store = createTaskStore({ redis: fixture.connect(), keys });
    expect(await store.setLastPlanMs({ lastPlanMs: 2, epoch: term.epoch })).toEqual({ ok: true });
    child.kill("SIGCONT");
    expect(await child.waitForLine(/^lost/, { timeoutMs: 30_000 })).toBe(`lost ${epoch} stale_epoch`);
    expect(await store.lastPlanMs()).toBe(2);
    expect(heir.election.isLeader()).toBe(true);
    expect(term.signal.aborted).toBe(false);
  });

  it("knows after a blocked event loop that its lease is over, before any timer ran (I4)", async () => {
    const keys = freshKeyNames();
    const seen: { isLeader: boolean; aborted: boolean }[] = [];
    const candidate: Candidate = stand(keys, async ({ signal }) => {
      if (seen.length > 0) return;
      // The candidate's own variable is set by now: leading begins after an await.
      expect(candidate.election.isLeader()).toBe(true);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, leaseTtlMs + 100);
      seen.push({ isLeader: candidate.election.isLeader(), aborted: signal.aborted });
    });
    await eventually("it was blocked", () => seen[0]);
    expect(seen[0]).toEqual({ isLeader: false, aborted: true });
  });

  it("goes on standing while Redis is away, and ends its term there by its own clock", async () => {
    const keys = freshKeyNames();
    const candidate = stand(keys);
    const first = await leading(candidate);
    // Stopped, not ended: connections stay open and nothing answers.
    for (const pid of fixture.pids) process.kill(pid, "SIGSTOP");
    try {
      await eventually("the signal fires", () => first.signal.aborted || undefined);
      expect(candidate.election.isLeader()).toBe(false);
    } finally {
      for (const pid of fixture.pids) process.kill(pid, "SIGCONT");
    }
    expect((await leading(candidate, 2)).epoch).toBeGreaterThan(first.epoch);
  });

  it("keeps its term when the wall clock is set", async () => {
    const candidate = standSteadily(freshKeyNames());
    await leading(candidate);
    const trueNow = Date.now;
    const clock = vi.spyOn(Date, "now");
    try {
      for (const shiftMs of [3_600_000, -3_600_000]) {
        clock.mockImplementation(() => trueNow() + shiftMs);
        // Two renewals under each clock, and past the lease with both.
        await sleep(0.7 * steadyLeaseTtlMs);
      }
    } finally {
      clock.mockRestore();
    }
    expect(candidate.election.isLeader()).toBe(true);
    expect(candidate.terms).toHaveLength(1);
  });

  it("stops waiting for the lock on abort", async () => {
    const keys = freshKeyNames();
    const leader = standSteadily(keys);
    await leading(leader);
    const waiting = stand(keys);
    await sleep(100);
    // One that waited for the lock would wait for as long as the leader renews it.
    await waiting.stop();
    expect(leader.election.isLeader()).toBe(true);
    expect(waiting.terms).toEqual([]);
  });

  it("stands again after its work failed", async () => {
    const keys = freshKeyNames();
    let failed = false;
    const candidate = stand(keys, async ({ signal }) => {
      if (!failed) {
        failed = true;
        throw new Error("the work broke");
      }
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    });
    const second = await leading(candidate, 2);
    expect(second.epoch).toBeGreaterThan(candidate.terms[0]?.epoch ?? Number.POSITIVE_INFINITY);
    expect(candidate.terms[0]?.signal.aborted).toBe(true);
  });
});
