import { eventually, type HttpGate, startHttpGate } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  building,
  createCast,
  type GatedManager,
  type Halt,
  haltAt,
  leads,
  longLease,
  noPlans,
  planNoted,
  requestTask,
  untilLeads,
} from "./fencing-support.ts";
import { type Harness, leaseTtlMs, type Manager, startHarness } from "./harness.ts";

let harness: Harness;
const cast = createCast(() => harness);
const httpGates: HttpGate[] = [];

beforeAll(async () => {
  harness = await startHarness({ leaseTtlMs });
});
afterEach(async () => {
  await cast.clear();
  await Promise.all(httpGates.splice(0).map((gate) => gate.close()));
});
afterAll(() => harness.close());

async function pair(env: Record<string, string>): Promise<{ first: GatedManager; second: Manager }> {
  return { first: await cast.first(env), second: await harness.manager({ ...longLease, ...env }) };
}

/** From the death of the first, which `reached` tells, to the second's leadership. */
async function takesOver(second: Manager, reached: Promise<void>): Promise<void> {
  await reached;
  await untilLeads(second);
}

describe("a master that is killed", () => {
  it("I3: after it created tasks and before it noted the plan: each list is built once", async () => {
    const lists = [await harness.list(), await harness.list(), await harness.list()];
    const indexer = await harness.indexer();
    const armed = Promise.withResolvers<Halt>();
    await cast.gated({}, (early) =>
      armed.resolve(haltAt(early, "plan_note", { signal: "SIGKILL", fate: "drop" })),
    );
    const halt = await armed.promise;
    const second = await harness.manager(longLease);
    await takesOver(second, halt.reached);
    await planNoted(harness);
    for (const _ of lists) {
      const { task_id: taskId } = await building(indexer);
      await indexer.succeed();
      await harness.untilStatus(second, taskId, "success");
    }
    expect(indexer.builds.map((build) => build.list_id).toSorted()).toEqual(lists.toSorted());
    expect((await harness.store.queue({ limit: 10 })).count).toBe(0);
  });

  it("I3: after a dispatch was recorded and before its indexer got it: another attempt builds it", async () => {
    const indexer = await harness.indexer();
    const { first, second } = await pair(noPlans);
    const halt = haltAt(first, "task_dispatch", { signal: "SIGKILL", fate: "forward" });
    const taskId = await requestTask(second, await harness.list());
    await takesOver(second, halt.reached);
    await building(indexer);
    expect(indexer.builds).toMatchObject([{ task_id: taskId, attempt: 2 }]);
    await indexer.succeed();
    await harness.untilStatus(second, taskId, "success");
    expect(indexer.builds).toHaveLength(1);
  });

  it("I3: after its indexer took the build and before it heard so: the build goes on", async () => {
    const indexer = await harness.indexer();
    const gate = await startHttpGate(indexer.origin);
    httpGates.push(gate);
    const { first, second } = await pair({ ...noPlans, LIM_INDEXERS: gate.origin });
    const reached = Promise.withResolvers<void>();
    gate.hooks({
      async onAnswer(_method, path) {
        if (path !== "/index_list") return;
        first.process.kill("SIGKILL");
        await first.process.exited;
        reached.resolve();
      },
    });
    const taskId = await requestTask(second, await harness.list());
    await takesOver(second, reached.promise);
    indexer.progress({ phase: "verify", done: 1, total: 2, rate_per_s: null, eta_s: null });
    await eventually("its successor follows", async () =>
      (await harness.task(second, taskId)).progress?.phase === "verify" ? true : undefined,
    );
    await indexer.succeed();
    expect(await harness.untilStatus(second, taskId, "success")).toMatchObject({ attempt: 1 });
    expect(indexer.builds).toHaveLength(1);
    expect(indexer.stops).toEqual([]);
  });

  it("I3: after the build ended and before that was recorded: it ends once, as it ended", async () => {
    const indexer = await harness.indexer();
    const { first, second } = await pair(noPlans);
    const taskId = await requestTask(second, await harness.list());
    await building(indexer);
    const halt = haltAt(first, "task_finish", { signal: "SIGKILL", fate: "drop" });
    await indexer.succeed();
    await takesOver(second, halt.reached);
    expect(await harness.untilStatus(second, taskId, "success")).toMatchObject({ attempt: 1 });
    expect(indexer.builds).toHaveLength(1);
  });

  it("I3 I4: before a running task's record is removed: it goes on as if nobody had asked", async () => {
    const indexer = await harness.indexer();
    const { first, second } = await pair(noPlans);
    const listId = await harness.list();
    const taskId = await requestTask(second, listId);
    await building(indexer);
    const halt = haltAt(first, "task_remove", { signal: "SIGKILL", fate: "drop" });
    await first.api("DELETE", `/1/tasks/${taskId}`).catch(() => undefined);
    await takesOver(second, halt.reached);
    await indexer.succeed();
    expect(await harness.untilStatus(second, taskId, "success")).toMatchObject({ attempt: 1 });
    const { indexes } = await harness.storage.list({ label: listId });
    expect(indexes.map((index) => index.indexId)).toEqual([taskId]);
    expect(indexer.stops).toEqual([]);
  });

  it("I3 I4: after a running task's record is removed, before its id is marked: its build is stopped", async () => {
    const indexer = await harness.indexer();
    const { first, second } = await pair(noPlans);
    const listId = await harness.list();
    const taskId = await requestTask(second, listId);
    await building(indexer);
    const halt = haltAt(first, "task_remove", { signal: "SIGKILL", fate: "forward" });
    await first.api("DELETE", `/1/tasks/${taskId}`).catch(() => undefined);
    await takesOver(second, halt.reached);
    await eventually("the build is stopped", () => (indexer.stops.length > 0 ? true : undefined));
    expect((await second.api("GET", `/1/tasks/${taskId}`)).status).toBe(404);
    const other = await eventually("the list may be asked for again", () => requestTask(second, listId));
    await eventually("and is built", () => (indexer.current()?.task_id === other ? true : undefined));
    await indexer.succeed();
    await harness.untilStatus(second, other, "success");
    const { indexes } = await harness.storage.list({ label: listId });
    expect(indexes.map((index) => index.indexId)).toEqual([other]);
    expect(await leads(second)).toBe(true);
  });
});
