import { LimError } from "@lim/contracts";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { managerLimits } from "../src/limits.ts";
import { clearMasterGauges } from "../src/lookup.ts";
import { type Harness, startHarness } from "./harness.ts";
import { type LookupRunner, startLookup } from "./lookup-runner.ts";
import type { Misbehaviour, TestIndexer } from "./test-indexer.ts";

let harness: Harness;
let lookup: LookupRunner | undefined;

beforeAll(async () => {
  harness = await startHarness();
});
afterEach(async () => {
  await lookup?.end();
  lookup = undefined;
  await harness.clear();
});
afterAll(() => harness.close());

async function lookingAt(...origins: string[]): Promise<LookupRunner> {
  lookup = await startLookup(harness, origins);
  return lookup;
}

const html = "<html><body>It works</body></html>";
const wrongs: [string, Misbehaviour][] = [
  ["hangs", { kind: "hang" }],
  ["trickles its answer", { kind: "trickle", intervalMs: 200 }],
  ["closes the socket", { kind: "close" }],
  ["tells HTML", { kind: "answer", status: 200, body: html }],
  ["tells a broken state", { kind: "answer", status: 200, body: '{"state":"idle","task_id":7}' }],
  ["tells 10 MB", { kind: "answer", status: 200, body: `"${"x".repeat(10_000_000)}"` }],
  ["redirects", { kind: "answer", status: 302, body: "", headers: { location: "/state" } }],
  ["fails", { kind: "answer", status: 500, body: '{"error_code":26000,"desc":"","detail":""}' }],
];

describe("an indexer that does not tell its state", () => {
  it.each(wrongs)("I11: that %s holds up no other, and has work again once it answers", async (_, how) => {
    const [bad, good] = [await harness.indexer(), await harness.indexer()];
    const runner = await lookingAt(bad.origin, good.origin);
    bad.misbehave("/state", how);
    const taskId = await runner.newTask();
    await runner.once();
    await runner.until("the other builds", () => good.current());
    expect(good.builds).toMatchObject([{ task_id: taskId, attempt: 1 }]);
    expect(bad.builds).toHaveLength(0);
    bad.misbehave("/state", undefined);
    const second = await runner.newTask();
    await runner.until("it builds", () => bad.current());
    expect(bad.builds).toMatchObject([{ task_id: second, attempt: 1 }]);
    expect(bad.mostOpen()).toBe(1);
    await Promise.all([good.succeed(), bad.succeed()]);
    await runner.untilStatus(taskId, "success");
    await runner.untilStatus(second, "success");
  });

  it("I10: questions to one that hangs do not pile up, and end with the leadership", async () => {
    const indexer = await harness.indexer();
    indexer.misbehave("/state", { kind: "hang" });
    const runner = await lookingAt(indexer.origin);
    for (let i = 0; i < 4; i++) await runner.once();
    expect(indexer.asked["/state"]).toBe(1);
    expect(await runner.sample('lim_manager_indexers{state="late"}')).toBe(1);
    await runner.until("it counts as silent", async () =>
      (await runner.sample('lim_manager_indexers{state="silent"}')) === 1 ? true : undefined,
    );
    expect(indexer.mostOpen()).toBe(1);
    await runner.end();
    await expect(runner.once()).rejects.toThrow();
  });

  it("is followed to the end, in one attempt, where its answers come too late for each lookup", async () => {
    const indexer = await harness.indexer();
    indexer.misbehave("/state", { kind: "slow", delayMs: 2 * managerLimits.lookupWaitMs });
    const runner = await lookingAt(indexer.origin);
    const taskId = await runner.newTask();
    await runner.until("it builds", () => indexer.current());
    indexer.progress({ phase: "build", done: 1, total: 2, rate_per_s: null, eta_s: null });
    await runner.until("progress", async () =>
      (await harness.store.get(taskId))?.progress?.done === 1 ? true : undefined,
    );
    await indexer.succeed();
    expect(await runner.untilStatus(taskId, "success")).toMatchObject({ attempt: 1 });
    expect(indexer.builds).toHaveLength(1);
  });
});

describe("a dispatch", () => {
  const lostWord: [string, Misbehaviour][] = [
    ["answered by nobody", { kind: "close", carriesOut: true }],
    ["answered late", { kind: "slow", delayMs: 1_000, carriesOut: true }],
    ["answered by a proxy's error", { kind: "answer", status: 502, body: html, carriesOut: true }],
  ];
  it.each(lostWord)("I3: that was taken and %s is seen and built once", async (_, how) => {
    const indexer = await harness.indexer();
    indexer.misbehave("/index_list", how);
    const runner = await lookingAt(indexer.origin);
    const taskId = await runner.newTask();
    await runner.until("it builds", () => indexer.current());
    for (let i = 0; i < 4; i++) await runner.once();
    await indexer.succeed();
    expect(await runner.untilStatus(taskId, "success")).toMatchObject({ attempt: 1 });
    expect(indexer.builds).toHaveLength(1);
    expect(indexer.stops).toHaveLength(0);
  });

  it("that was lost is another attempt, after its pause", async () => {
    const indexer = await harness.indexer();
    indexer.misbehave("/index_list", { kind: "close" });
    const runner = await lookingAt(indexer.origin);
    const taskId = await runner.newTask();
    const waiting = await runner.untilStatus(taskId, "pending");
    expect(waiting).toMatchObject({ attempt: 1 });
    expect(waiting.not_before).not.toBeNull();
    indexer.misbehave("/index_list", undefined);
    await runner.until("it builds", () => indexer.current());
    await indexer.succeed();
    expect(await runner.untilStatus(taskId, "success")).toMatchObject({ attempt: 2 });
  });

  it("I3: that is taken after it was given up is stopped, and the index is built once", async () => {
    const [slow, other] = [await harness.indexer(), await harness.indexer()];
    const runner = await lookingAt(slow.origin, other.origin);
    other.drain();
    slow.misbehave("/index_list", { kind: "hang" });
    const taskId = await runner.newTask();
    await runner.until("the dispatch", () => (slow.asked["/index_list"] > 0 ? true : undefined));
    other.restart();
    const second = await runner.until("the other builds", () => other.current());
    expect(second).toMatchObject({ task_id: taskId, attempt: 2 });
    slow.misbehave("/index_list", undefined);
    await runner.until("the first attempt is stopped", () => slow.stops[0]);
    expect(slow.stops[0]).toEqual({ task_id: taskId, attempt: 1 });
    expect(slow.current()).toBeUndefined();
    await other.succeed();
    expect(await runner.untilStatus(taskId, "success")).toMatchObject({ attempt: 2 });
  });

  it("that is refused costs the task nothing, waits for nothing and goes to another", async () => {
    const [busy, free] = [await harness.indexer(), await harness.indexer()];
    busy.refuseWith(new LimError("indexer_busy", "a stranger's build"));
    const runner = await lookingAt(busy.origin);
    const taskId = await runner.newTask();
    const refused = await runner.until("a refusal", async () => {
      const task = await harness.store.get(taskId);
      return task?.status === "pending" && task.attempt > 0 ? task : undefined;
    });
    expect((await harness.store.ready({ limit: 1 })).tasks).toMatchObject([{ task_id: refused.task_id }]);
    await runner.end();
    const next = await lookingAt(busy.origin, free.origin);
    await next.until("the other builds", () => free.current());
    expect(free.builds).toMatchObject([{ task_id: taskId }]);
  });
});

describe("a running task", () => {
  async function running(): Promise<{ runner: LookupRunner; indexer: TestIndexer; taskId: string }> {
    const indexer = await harness.indexer();
    const runner = await lookingAt(indexer.origin);
    const taskId = await runner.newTask();
    await runner.until("a build", () => indexer.current());
    return { runner, indexer, taskId };
  }

  it("is built anew where its indexer restarted at the same origin", async () => {
    const { runner, indexer, taskId } = await running();
    indexer.restart();
    await runner.until("a second build", () => indexer.builds[1]);
    await indexer.succeed();
    expect(await runner.untilStatus(taskId, "success")).toMatchObject({ attempt: 2 });
    expect(await runner.sample('lim_manager_builds_total{mode="rebuild",result="lost"}')).toBe(1);
    expect(await runner.sample('lim_manager_builds_total{mode="rebuild",result="success"}')).toBe(1);
    expect(
      await runner.sample('lim_manager_build_duration_seconds_count{mode="rebuild",result="success"}'),
    ).toBe(1);
    expect(await runner.sample("lim_manager_queue_wait_seconds_count")).toBe(1);
    expect(await runner.sample('lim_manager_ended_tasks_total{status="success"}')).toBe(1);
  });

  it("ends in success where its index is published, though its indexer claims a failure", async () => {
    const { runner, indexer, taskId } = await running();
    await indexer.publishOnly();
    indexer.end(new LimError("build_crashed", "killed after the rename"));
    expect(await runner.untilStatus(taskId, "success")).toMatchObject({
      attempt: 1,
      error: null,
      skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
    });
  });

  it("I2: is tried again where its indexer claims a success that the storage does not know", async () => {
    const { runner, indexer, taskId } = await running();
    indexer.end(null);
    await runner.until("a second build", () => indexer.builds[1]);
    await indexer.succeed();
    await runner.untilStatus(taskId, "success");
  });

  it("I4: an outcome of another attempt decides nothing", async () => {
    const { runner, indexer, taskId } = await running();
    const outcome = {
      task_id: taskId,
      list_id: (await harness.store.get(taskId))?.content.list_id ?? "",
      attempt: 7,
      status: "error" as const,
      error: new LimError("empty_list", "old").toBody(),
      end_time: new Date().toISOString(),
      skipped: null,
    };
    indexer.claim({ outcomes: [outcome] });
    for (let i = 0; i < 4; i++) await runner.once();
    expect(await harness.store.get(taskId)).toMatchObject({ status: "indexing", attempt: 1 });
  });

  it("is not what its indexer builds for another list: that build is stopped and the task tried again", async () => {
    const { runner, indexer, taskId } = await running();
    indexer.claim({ list_id: "00000000-0000-4000-8000-00000000abcd" });
    await runner.until("the stop", () => indexer.stops[0]);
    expect(indexer.stops[0]).toEqual({ task_id: taskId, attempt: 1 });
    await runner.until("another attempt", async () =>
      ((await harness.store.get(taskId))?.attempt ?? 0) > 1 ? true : undefined,
    );
  });

  it("is handed back by a draining indexer without a pause and without a cost", async () => {
    const { runner, indexer, taskId } = await running();
    indexer.drain();
    indexer.end(new LimError("build_cancelled", "shutting down"));
    const back = await runner.untilStatus(taskId, "pending");
    expect((await harness.store.ready({ limit: 1 })).tasks).toMatchObject([{ task_id: back.task_id }]);
  });

  it("a stop that is lost or refused is told again until the build is gone", async () => {
    const { runner, indexer, taskId } = await running();
    indexer.misbehave("/stop", { kind: "close" });
    await harness.storage.remove({ indexId: taskId });
    await harness.store.remove([taskId]);
    await runner.until("two lost stops", () => (indexer.asked["/stop"] >= 2 ? true : undefined));
    indexer.misbehave("/stop", { kind: "answer", status: 503, body: html });
    const asked = indexer.asked["/stop"];
    await runner.until("a refused stop", () => (indexer.asked["/stop"] > asked ? true : undefined));
    expect(indexer.current()).toBeDefined();
    indexer.misbehave("/stop", undefined);
    await runner.until("the stop", () => indexer.stops[0]);
    expect(indexer.current()).toBeUndefined();
  });

  it("I3: one indexer under two names takes one build, and is stopped by neither", async () => {
    const indexer = await harness.indexer();
    const alias = indexer.origin.replace("127.0.0.1", "localhost");
    const runner = await lookingAt(alias, indexer.origin);
    const [first, second] = [await runner.newTask(), await runner.newTask()];
    await runner.until("a build", () => indexer.current());
    for (let i = 0; i < 5; i++) await runner.once();
    expect(indexer.asked["/index_list"]).toBe(1);
    expect(indexer.stops).toHaveLength(0);
    await indexer.succeed();
    await runner.untilStatus(first, "success");
    await runner.until("the next build", () => indexer.current());
    await indexer.succeed();
    expect(await runner.untilStatus(second, "success")).toMatchObject({ attempt: 1 });
  });
});

describe("gauges of the master", () => {
  it("tell the queue and each state of indexers, and nothing once cleared", async () => {
    const indexer = await harness.indexer();
    const runner = await lookingAt(indexer.origin, "http://127.0.0.1:9");
    await runner.newTask();
    await runner.newTask();
    await runner.once();
    await runner.until("a build", () => indexer.current());
    await runner.once();
    const states = ["idle", "building", "draining", "late", "silent"];
    const samples = () =>
      Promise.all(states.map((name) => runner.sample(`lim_manager_indexers{state="${name}"}`)));
    expect(await samples()).toEqual([0, 1, 0, 0, 1]);
    const inPhase = (phase: string) => runner.sample(`lim_manager_indexing_phase_tasks{phase="${phase}"}`);
    expect(await Promise.all(["unknown", "build"].map(inPhase))).toEqual([1, 0]);
    indexer.progress({ phase: "build", done: 1, total: 2, rate_per_s: null, eta_s: null });
    await runner.until("the phase", async () => ((await inPhase("build")) === 1 ? true : undefined));
    expect(await inPhase("unknown")).toBe(0);
    expect(await runner.sample("lim_manager_queued_tasks")).toBe(1);
    expect(await runner.sample("lim_manager_indexing_tasks")).toBe(1);
    expect(await runner.sample("lim_manager_waiting_tasks")).toBe(0);
    expect(await runner.sample("lim_manager_lookup_duration_seconds_count")).toBeGreaterThan(1);
    clearMasterGauges(runner.metrics);
    expect(await samples()).toEqual(states.map(() => undefined));
    expect(await runner.sample("lim_manager_queued_tasks")).toBe(0);
    expect(await runner.sample("lim_manager_oldest_queued_seconds")).toBe(0);
  });
});
