import type { Task } from "@lim/contracts";
import { LimError } from "@lim/contracts";
import type { IndexStorage } from "@lim/index-storage";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Api, ask, refusal, startApi, storeWith } from "./api-harness.ts";

let api: Api;
let app: FastifyInstance;

beforeAll(async () => {
  api = await startApi();
});
beforeEach(async () => {
  app = await api.app();
});
afterEach(() => api.clear());
afterAll(() => api.close());

const pending = async (body: object = {}): Promise<Task> =>
  (await ask(app, "POST", "/1/tasks", { list_id: await api.harness.list(), ...body })).body;
const left = async (): Promise<string[]> =>
  (await ask(app, "GET", "/1/tasks")).body.tasks.map((task: Task) => task.task_id);
const isMarked = (task: Task) => api.harness.storage.isMarkedRemoved({ indexId: task.task_id });

describe("removal of tasks", () => {
  it("removes a pending one so that it can never be published", async () => {
    const task = await pending();
    expect(await ask(app, "DELETE", `/1/tasks/${task.task_id}`)).toMatchObject({ status: 200, body: task });
    expect(await isMarked(task)).toBe(true);
    expect((await refusal(app, "DELETE", `/1/tasks/${task.task_id}`)).slice(0, 2)).toEqual([404, 26002]);
    expect((await ask(app, "GET", "/1/queue")).body).toEqual({ count: 0, tasks: [], next_cursor: null });
  });

  it("by filters removes what matches all of them, and marks only what was open", async () => {
    const listId = await api.harness.list();
    const over = await api.ended(listId);
    const open = (await ask(app, "POST", "/1/tasks", { list_id: listId })).body as Task;
    const other = await pending();
    const { body } = await ask(app, "DELETE", `/1/tasks?list_id=${listId}&statuses=pending,success`);
    expect(body).toMatchObject({ count: 2, dry_run: false, more: false });
    expect(body.tasks.map((task: Task) => task.task_id).toSorted()).toEqual(
      [over.task_id, open.task_id].toSorted(),
    );
    expect(await left()).toEqual([other.task_id]);
    expect(await Promise.all([over, open, other].map(isMarked))).toEqual([false, true, false]);
  });

  it("changes nothing in a dry run", async () => {
    const task = await pending();
    const answer = await ask(app, "DELETE", "/1/tasks?statuses=pending&dry_run=true");
    expect(answer.body).toEqual({ count: 1, dry_run: true, tasks: [task], more: false });
    expect(await left()).toEqual([task.task_id]);
    expect(await isMarked(task)).toBe(false);
  });

  it("removes a limited number, the newest first, and says that others match", async () => {
    const tasks: Task[] = [];
    for (let i = 0; i < 3; i++) tasks.unshift(await pending());
    const remove = async () => (await ask(app, "DELETE", "/1/tasks?statuses=pending&limit=2")).body;
    expect(await remove()).toMatchObject({ count: 2, more: true });
    expect(await left()).toEqual([tasks[2]?.task_id]);
    expect(await remove()).toMatchObject({ count: 1, more: false });
    expect(await remove()).toEqual({ count: 0, dry_run: false, tasks: [], more: false });
  });

  it.each(["", "?limit=5", "?dry_run=true"])(
    "I11: refuses a removal without any filter (%s)",
    async (query) => {
      const task = await pending();
      const [status, code, detail] = await refusal(app, "DELETE", `/1/tasks${query}`);
      expect([status, code]).toEqual([400, 26001]);
      expect(detail).toContain("at least one filter");
      expect(await left()).toEqual([task.task_id]);
    },
  );

  it.each(["statuses=lost", "statuses=pending&dry_run=1", "statuses=pending&cursor=x", "task_id=1"])(
    "I11: refuses %s and removes nothing",
    async (query) => {
      const task = await pending();
      expect((await refusal(app, "DELETE", `/1/tasks?${query}`)).slice(0, 2)).toEqual([400, 26001]);
      expect(await left()).toEqual([task.task_id]);
    },
  );

  it("I4: takes the record, then marks; what an earlier attempt builds is not adopted in between", async () => {
    const { store, storage } = api.harness;
    const task = await pending();
    await api.harness.raw.set("{lim_manager_master}:epoch", 1);
    const build = { taskId: task.task_id, listId: task.content.list_id, attempt: 1, epoch: 1 };
    const reported = {
      ...build,
      mode: "rebuild" as const,
      indexer: "http://i:1",
      startTime: new Date().toISOString(),
    };
    const order: string[] = [];
    const marking: IndexStorage = {
      ...storage,
      async markRemoved(options) {
        const adopted = await store.adopt(reported);
        order.push(adopted.ok ? "adopted" : adopted.refusal, "marked");
        await storage.markRemoved(options);
      },
    };
    const removing = storeWith(store, {
      async remove(...call) {
        order.push("removed");
        return store.remove(...call);
      },
    });
    app = await api.app({ store: removing, storage: marking });
    await ask(app, "DELETE", `/1/tasks?task_ids=${task.task_id}`);
    expect(order).toEqual(["removed", "unknown_task", "marked"]);
    expect(await storage.isMarkedRemoved({ indexId: task.task_id })).toBe(true);
  });

  it("leaves the index of a task that succeeded between the search and the removal", async () => {
    const { store, storage } = api.harness;
    const task = await pending();
    await api.harness.raw.set("{lim_manager_master}:epoch", 1);
    const ending = storeWith(store, {
      async remove(...call) {
        const { task_id: taskId } = task;
        await store.dispatch({ taskId, indexer: "http://i:1", epoch: 1 });
        const endTime = new Date().toISOString();
        await store.finish({ taskId, attempt: 1, epoch: 1, error: null, endTime });
        return store.remove(...call);
      },
    });
    app = await api.app({ store: ending });
    const { body } = await ask(app, "DELETE", `/1/tasks?list_id=${task.content.list_id}`);
    expect(body).toMatchObject({ count: 1, tasks: [{ task_id: task.task_id, status: "success" }] });
    expect(await left()).toEqual([]);
    expect(await storage.isMarkedRemoved({ indexId: task.task_id })).toBe(false);
  });

  it("removes nothing while the storage is away", async () => {
    const { storage } = api.harness;
    const task = await pending();
    const away: IndexStorage = {
      ...storage,
      isMarkedRemoved: () => Promise.reject(new LimError("storage_unavailable", "away")),
    };
    app = await api.app({ storage: away });
    expect((await ask(app, "DELETE", `/1/tasks/${task.task_id}`)).status).toBe(503);
    expect(await left()).toHaveLength(1);
  });
});
