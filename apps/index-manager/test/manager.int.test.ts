import { LimError, type Task } from "@lim/contracts";
import { metricSections } from "@lim/service-kit";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Harness, type Manager, startHarness } from "./harness.ts";
import type { TestIndexer } from "./test-indexer.ts";

let harness: Harness;

beforeAll(async () => {
  harness = await startHarness();
});
afterEach(() => harness.clear());
afterAll(() => harness.close());

const building = (indexer: TestIndexer) => eventually("the indexer has a build", () => indexer.current());

async function createTask(manager: Manager, listId: string): Promise<string> {
  const { status, body } = await manager.api("POST", "/1/tasks", { list_id: listId });
  expect(status).toBe(201);
  return (body as Task).task_id;
}

describe("one manager", () => {
  it("I1: plans a list, dispatches, follows, finishes, and plans it again only once it has changed", async () => {
    const listId = await harness.list();
    await harness.list(2);
    const indexer = await harness.indexer();
    const manager = await harness.manager({ LIM_PLANNING_PERIOD_S: "1" });
    const request = await building(indexer);
    expect(request).toMatchObject({ list_id: listId, attempt: 1, mode: "rebuild", dim: 8 });
    const progress = { phase: "build" as const, done: 3, total: 5, rate_per_s: 2, eta_s: 1 };
    indexer.progress(progress);
    await eventually("progress is recorded", async () => {
      const task = await harness.task(manager, request.task_id);
      return task.progress?.done === 3 ? task : undefined;
    });
    await indexer.succeed();
    const done = await harness.untilStatus(manager, request.task_id, "success");
    expect(done).toMatchObject({ trigger: "plan", attempt: 1, error: null, indexer: indexer.origin });
    expect(done.end_time).not.toBeNull();
    const metrics = await (await fetch(`${manager.url}/metrics`)).text();
    const sections = { ...metricSections["Every service"], ...metricSections["Index Manager"] };
    for (const name of Object.keys(sections)) expect(metrics).toContain(`# TYPE ${name} `);
    expect(metrics).toMatch(/^lim_manager_leadership_total\{event="acquired"\} 1$/m);
    const relevant = (await manager.api("GET", "/1/indexes/relevant")).body;
    expect(relevant).toMatchObject({
      count: 1,
      indexes: [{ index_id: request.task_id, label: listId, count: 5 }],
    });

    const planned = async () => (await harness.store.lastPlanMs()) ?? 0;
    const before = await planned();
    await eventually("two more plans", async () => ((await planned()) > before + 1_500 ? true : undefined));
    expect(indexer.builds).toHaveLength(1);

    await harness.db.unlinkFaces({
      listId,
      faceIds: ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"],
    });
    const again = await building(indexer);
    expect(again).toMatchObject({ list_id: listId });
    expect(again.task_id).not.toBe(request.task_id);
  });

  it("I3: requeues the build of a killed indexer to another", async () => {
    const listId = await harness.list();
    const [first, second] = [await harness.indexer(), await harness.indexer()];
    const manager = await harness.manager({ LIM_PLANNING_PERIOD_S: "3600" });
    const taskId = (await eventually("a build", () => first.current() ?? second.current())).task_id;
    const [dead, alive] = first.current() ? [first, second] : [second, first];
    await dead.close();
    const retried = await building(alive);
    expect(retried).toMatchObject({ task_id: taskId, list_id: listId, attempt: 2 });
    await alive.succeed();
    expect(await harness.untilStatus(manager, taskId, "success")).toMatchObject({
      attempt: 2,
      indexer: alive.origin,
    });
  });

  it("I10: gives up after a bounded number of attempts, and says why", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const manager = await harness.manager({ LIM_LISTS: listId });
    indexer.onBuild(() => setTimeout(() => indexer.restart(), 5));
    const { task_id: taskId } = await eventually("first build", () => indexer.builds[0]);
    const task = await harness.untilStatus(manager, taskId, "error");
    expect(task.error).toMatchObject({ error_code: 26111, detail: expect.stringContaining("26110") });
    expect(indexer.builds.map((build) => build.attempt)).toEqual([1, 2, 3]);
  });

  it("ends a task with its build's own error", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const manager = await harness.manager({ LIM_LISTS: listId });
    const { task_id: taskId } = await building(indexer);
    indexer.end(new LimError("out_of_memory", "needs more"));
    const task = await harness.untilStatus(manager, taskId, "error");
    expect(task).toMatchObject({
      attempt: 1,
      error: { error_code: 26109, detail: "needs more" },
      skipped: { wrong_length: 0, not_finite: 0, zero_norm: 7 },
    });
  });

  it("I2: a success without an index in the storage is another attempt, not a success", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const manager = await harness.manager({ LIM_LISTS: listId });
    const { task_id: taskId } = await building(indexer);
    indexer.end(null);
    const second = await eventually("second build", () => indexer.builds[1]);
    expect(second).toMatchObject({ task_id: taskId, attempt: 2 });
    await indexer.succeed();
    await harness.untilStatus(manager, taskId, "success");
  });

  it("a refusing indexer costs no attempt: another takes the task", async () => {
    const busy = await harness.indexer();
    busy.refuseWith(new LimError("indexer_busy", "a stranger's build"));
    const manager = await harness.manager({ LIM_LISTS: "00000000-0000-4000-8000-00000000ffff" });
    const taskId = await createTask(manager, await harness.list());
    await eventually("a refused dispatch", async () => {
      const task = await harness.task(manager, taskId);
      return task.attempt > 0 && task.status === "pending" ? task : undefined;
    });
    busy.refuseWith(undefined);
    const request = await building(busy);
    expect(request.task_id).toBe(taskId);
    await busy.succeed();
    await harness.untilStatus(manager, taskId, "success");
  });

  it("cancels the build of a removed task, which is neither adopted nor published", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const manager = await harness.manager({ LIM_LISTS: listId });
    const { task_id: taskId, attempt } = await building(indexer);
    const removed = await manager.api("DELETE", `/1/tasks/${taskId}`);
    expect(removed).toMatchObject({ status: 200, body: { task_id: taskId, status: "indexing" } });
    await eventually("the stop", () => indexer.stops[0]);
    expect(indexer.stops).toEqual([{ task_id: taskId, attempt }]);
    expect((await manager.api("GET", `/1/tasks/${taskId}`)).status).toBe(404);
    expect(await harness.storage.isMarkedRemoved({ indexId: taskId })).toBe(true);
  });

  it("keeps as many versions and tasks as it is told, and drops those of a deleted list", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const manager = await harness.manager({
      LIM_LISTS: "00000000-0000-4000-8000-00000000ffff",
      LIM_RETENTION_PERIOD_MS: "100",
      LIM_DELETED_LIST_GRACE_S: "0",
      LIM_KEEP_VERSIONS: "1",
      LIM_KEEP_TASKS: "1",
    });
    const published: string[] = [];
    for (let i = 0; i < 2; i++) {
      published.push(await createTask(manager, listId));
      await building(indexer);
      await indexer.succeed();
      await harness.untilStatus(manager, published[i] ?? "", "success");
    }
    const stored = async () =>
      (await harness.storage.list({ label: listId })).indexes.map((index) => index.indexId);
    await eventually("one version", async () => ((await stored()).length === 1 ? true : undefined));
    expect(await stored()).toEqual([published[1]]);
    await eventually("one task", async () =>
      (await harness.store.find({}, { limit: 10 })).tasks.length === 1 ? true : undefined,
    );
    expect((await manager.api("GET", `/1/tasks/${published[1]}`)).status).toBe(200);
    await harness.db.deleteList({ listId });
    await manager.process.waitForLine(/Postgres has no list at all/, { timeoutMs: 60_000 });
    expect(await stored(), "I9: an empty database costs no index").toEqual([published[1]]);
    await harness.list();
    await eventually("none", async () => ((await stored()).length === 0 ? true : undefined));
  });
});
