import { randomUUID } from "node:crypto";
import { type Task, taskSchema, tasksResponseSchema } from "@lim/contracts";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { managerLimits } from "../src/limits.ts";
import { type Api, ask, type Method, refusal, startApi, storeWith } from "./api-harness.ts";

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

const create = async (body: object, headers?: Record<string, string>) =>
  ask(app, "POST", "/1/tasks", body, headers);

describe("creation of one-time tasks, on a manager that is not the master", () => {
  it("creates one for a list, and says which is open", async () => {
    const listId = await api.harness.list();
    const created = await create({ list_id: listId.toUpperCase(), mode: "update", priority: "high" });
    expect(created.status).toBe(201);
    const task = taskSchema.parse(created.body);
    expect(task).toMatchObject({
      status: "pending",
      mode: "update",
      trigger: "request",
      priority: "high",
      attempt: 0,
      content: { list_id: listId },
    });
    const [status, code, detail] = await refusal(app, "POST", "/1/tasks", { list_id: listId });
    expect([status, code]).toEqual([409, 26031]);
    expect(detail).toContain(task.task_id);
    expect((await ask(app, "GET", `/1/tasks/${task.task_id}`)).body).toEqual(task);
  });

  it("rebuilds with default priority where nothing else is said", async () => {
    const { body } = await create({ list_id: await api.harness.list() });
    expect(body).toMatchObject({ mode: "rebuild", priority: "default" });
  });

  it("is no conflict with itself where a broken connection made the client ask Redis twice", async () => {
    const { store } = api.harness;
    const twice = storeWith(store, {
      async create(...call) {
        await store.create(...call);
        return store.create(...call);
      },
    });
    app = await api.app({ store: twice });
    for (const headers of [undefined, { "Idempotency-Key": "twice" }]) {
      const answer = await create({ list_id: await api.harness.list() }, headers);
      expect(answer.status).toBe(201);
      expect(answer.headers).not.toHaveProperty("idempotency-replayed");
      expect(await store.get(answer.body.task_id)).toEqual(answer.body);
    }
  });

  it("creates nothing for a repeated idempotency key, and answers with the task as it is now", async () => {
    const listId = await api.harness.list();
    const key = { "Idempotency-Key": "order-66" };
    const first = await create({ list_id: listId }, key);
    expect(first.headers).not.toHaveProperty("idempotency-replayed");
    await api.harness.raw.set("{lim_manager_master}:epoch", 1);
    await api.harness.store.dispatch({ taskId: first.body.task_id, indexer: "http://i:1", epoch: 1 });
    // Defaults that are spelled out are the same request.
    const again = await create({ list_id: listId.toUpperCase(), mode: "rebuild", priority: "default" }, key);
    expect(again).toMatchObject({
      status: 201,
      headers: { "idempotency-replayed": "true" },
      body: { task_id: first.body.task_id, status: "indexing" },
    });
    expect((await ask(app, "GET", "/1/tasks")).body.count).toBe(1);
  });

  it("refuses an idempotency key of another request, or of a task that was removed", async () => {
    const listId = await api.harness.list();
    const key = { "Idempotency-Key": "k" };
    const { body } = await create({ list_id: listId }, key);
    const other = { list_id: listId, priority: "low" };
    expect((await refusal(app, "POST", "/1/tasks", other, key)).slice(0, 2)).toEqual([422, 26032]);
    await ask(app, "DELETE", `/1/tasks/${body.task_id}`);
    const removed = await refusal(app, "POST", "/1/tasks", { list_id: listId }, key);
    expect(removed.slice(0, 2)).toEqual([422, 26032]);
  });

  it.each([
    ["empty", ""],
    ["with a space", "a b"],
    ["not ASCII", "\u00e9"],
    ["too long", "k".repeat(managerLimits.maxIdempotencyKeyChars + 1)],
  ])("I11: an idempotency key that is %s is refused", async (_name, key) => {
    const body = { list_id: await api.harness.list() };
    const refused = await refusal(app, "POST", "/1/tasks", body, { "Idempotency-Key": key });
    expect(refused.slice(0, 2)).toEqual([400, 26001]);
    expect((await ask(app, "GET", "/1/tasks")).body.count).toBe(0);
  });

  it("takes the longest idempotency key", async () => {
    const key = "k".repeat(managerLimits.maxIdempotencyKeyChars);
    const answer = await create({ list_id: await api.harness.list() }, { "Idempotency-Key": key });
    expect(answer.status).toBe(201);
  });

  it.each<[string, object, number, number]>([
    ["an unknown list", { list_id: randomUUID() }, 404, 26102],
    ["no list", {}, 400, 26001],
    ["a bad list id", { list_id: "x" }, 400, 26001],
    ["a bad mode", { list_id: randomUUID(), mode: "both" }, 400, 26001],
    ["a number for priority", { list_id: randomUUID(), priority: 1 }, 400, 26001],
    ["the priority that is LIM's own", { list_id: randomUUID(), priority: "maximum" }, 400, 26001],
    ["an unknown field", { list_id: randomUUID(), trigger: "plan" }, 400, 26001],
  ])("I11: %s is refused", async (_name, payload, status, code) => {
    expect((await refusal(app, "POST", "/1/tasks", payload)).slice(0, 2)).toEqual([status, code]);
  });
});

describe("reads of tasks", () => {
  const found = async (query: string): Promise<string[]> =>
    (await ask(app, "GET", `/1/tasks?${query}`)).body.tasks.map((task: Task) => task.task_id);

  it("filters by ids, statuses, list, indexer and times, which narrow each other down", async () => {
    const lists = await Promise.all([0, 1, 2].map(() => api.harness.list()));
    const [first, second, third] = lists as [string, string, string];
    const over = await api.ended(first);
    const failed = await api.ended(second, { error_code: 26105, desc: "Empty", detail: "no face" });
    const open = (await create({ list_id: third })).body as Task;
    const ids = [over, failed, open].map((task) => task.task_id);
    expect(await found("")).toEqual(ids.toReversed());
    expect(await found(`task_ids=${ids[0]},${ids[2]?.toUpperCase()}`)).toEqual([ids[2], ids[0]]);
    expect(await found("statuses=success,pending")).toEqual([ids[2], ids[0]]);
    expect(await found(`list_id=${second}`)).toEqual([ids[1]]);
    expect(await found("indexer=http://indexer:5180")).toEqual([ids[1], ids[0]]);
    expect(await found("indexer=http://indexer:5181")).toEqual([]);
    expect(await found(`indexer=http://indexer:5180&statuses=error&list_id=${second}`)).toEqual([ids[1]]);
    expect(await found(`statuses=error&list_id=${first}`)).toEqual([]);
    // Times as they are in answers, half-open; the last has neither a start nor an end.
    const time = (of: string | null) => encodeURIComponent(of ?? "none");
    expect(await found(`create_time__gte=${time(open.create_time)}`)).toContain(ids[2]);
    expect(await found(`create_time__lt=${time(over.create_time)}`)).toEqual([]);
    expect(await found(`start_time__gte=${time(over.start_time)}`)).toEqual([ids[1], ids[0]]);
    expect(await found(`end_time__lt=${time(over.end_time)}`)).toEqual([]);
    expect(await found("end_time__gte=2000-01-01T00:00:00%2B02:00")).toEqual([ids[1], ids[0]]);
    expect(await found("start_time__lt=2000-01-01T00:00:00Z")).toEqual([]);
  });

  it("pages through all of them, whatever is created and removed in between", async () => {
    const ids: string[] = [];
    for (let i = 0; i < 5; i++)
      ids.unshift((await create({ list_id: await api.harness.list() })).body.task_id);
    const page = async (query: string) =>
      tasksResponseSchema.parse((await ask(app, "GET", `/1/tasks?limit=2${query}`)).body);
    const first = await page("");
    expect(first).toMatchObject({ count: 2, tasks: [{ task_id: ids[0] }, { task_id: ids[1] }] });
    await create({ list_id: await api.harness.list() });
    await ask(app, "DELETE", `/1/tasks/${ids[1]}`);
    const second = await page(`&cursor=${first.next_cursor}`);
    expect(second.tasks.map((task) => task.task_id)).toEqual([ids[2], ids[3]]);
    const last = await page(`&cursor=${second.next_cursor}`);
    expect(last).toMatchObject({ count: 1, tasks: [{ task_id: ids[4] }], next_cursor: null });
  });

  it("shows the queue by priority in pages, with the count of all of it", async () => {
    const ids: string[] = [];
    for (const priority of ["low", "default", "highest"])
      ids.unshift((await create({ list_id: await api.harness.list(), priority })).body.task_id);
    const first = (await ask(app, "GET", "/1/queue?limit=2")).body;
    expect(first).toMatchObject({ count: 3, tasks: [{ task_id: ids[0] }, { task_id: ids[1] }] });
    const second = (await ask(app, "GET", `/1/queue?limit=2&cursor=${first.next_cursor}`)).body;
    expect(second).toMatchObject({ count: 3, tasks: [{ task_id: ids[2] }], next_cursor: null });
  });

  it.each<[string, Method, string]>([
    ["an unknown parameter", "GET", "/1/tasks?state=pending"],
    ["an unknown parameter of the queue", "GET", "/1/queue?list_id=x"],
    ["a parameter where none is known", "GET", "/1/master?x=1"],
    ["a parameter of one task", "GET", `/1/tasks/${randomUUID()}?limit=1`],
    ["a parameter of a stream", "GET", `/1/tasks/${randomUUID()}/progress?limit=1`],
    ["a parameter given twice", "GET", "/1/tasks?limit=1&limit=2"],
    ["a bad status", "GET", "/1/tasks?statuses=pending,lost"],
    ["bad ids", "GET", "/1/tasks?task_ids=1,2"],
    ["too many ids", "GET", `/1/tasks?task_ids=${Array(101).fill(randomUUID())}`],
    [
      "a reversed range",
      "GET",
      "/1/tasks?end_time__gte=2026-01-02T00:00:00Z&end_time__lt=2026-01-01T00:00:00Z",
    ],
    ["a time with a bare +", "GET", "/1/tasks?end_time__gte=2026-01-02T00:00:00+01:00"],
    ["limit 0", "GET", "/1/tasks?limit=0"],
    ["a limit above", "GET", "/1/tasks?limit=1001"],
    ["no number", "GET", "/1/tasks?limit=0x10"],
    ["a cursor of nothing", "GET", "/1/tasks?cursor=AAAA"],
    ["an empty cursor", "GET", "/1/tasks?cursor="],
    ["a bad cursor of the queue", "GET", "/1/queue?cursor=AAAA"],
    ["a bad task id", "GET", "/1/tasks/1"],
  ])("I11: %s is bad input", async (_name, method, url) => {
    const [status, code, detail] = await refusal(app, method, url);
    expect([status, code]).toEqual([400, 26001]);
    expect(detail).not.toBe("");
  });

  it.each(["", "/progress"])("an unknown task is not found (%s)", async (more) => {
    expect((await refusal(app, "GET", `/1/tasks/${randomUUID()}${more}`)).slice(0, 2)).toEqual([404, 26002]);
  });

  it("a cursor of one list is none of another", async () => {
    for (let i = 0; i < 2; i++) await create({ list_id: await api.harness.list() });
    const { next_cursor } = (await ask(app, "GET", "/1/queue?limit=1")).body;
    expect((await refusal(app, "GET", `/1/tasks?cursor=${next_cursor}`))[0]).toBe(400);
    expect((await refusal(app, "GET", `/1/indexes?cursor=${next_cursor}`))[0]).toBe(400);
  });
});
