import { randomUUID } from "node:crypto";
import { defaults, errorBodySchema, type Task, taskSchema } from "@lim/contracts";
import type { TaskStore } from "@lim/coordination";
import { createLogger, Registry } from "@lim/service-kit";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { buildApp } from "../src/app.ts";
import { type Harness, startHarness } from "./harness.ts";

let harness: Harness;
let app: FastifyInstance;

beforeAll(async () => {
  harness = await startHarness();
});
async function appOn(store: TaskStore): Promise<FastifyInstance> {
  const { db, storage } = harness;
  return await buildApp({
    db,
    storage,
    store,
    descriptorVersion: 1,
    logger: createLogger({ service: "test", level: "silent" }),
    metrics: new Registry(),
    health: [],
    isReady: () => true,
    isMaster: () => false,
  });
}

beforeEach(async () => {
  app = await appOn(harness.store);
});
afterEach(async () => {
  await app.close();
  await harness.clear();
});
afterAll(() => harness.close());

type Method = "GET" | "POST" | "DELETE";

async function ask(method: Method, url: string, payload?: object) {
  const response = await app.inject({ method, url, ...(payload ? { payload } : {}) });
  return { status: response.statusCode, body: response.body === "" ? undefined : response.json() };
}

async function refusal(method: Method, url: string, payload?: object): Promise<[number, number, string]> {
  const { status, body } = await ask(method, url, payload);
  const error = errorBodySchema.parse(body);
  return [status, error.error_code, error.detail];
}

describe("tasks, on a manager that is not the master", () => {
  it("creates a one-time task once for a list, and says which is open", async () => {
    const listId = await harness.list();
    const created = await ask("POST", "/1/tasks", { list_id: listId.toUpperCase(), mode: "update" });
    expect(created.status).toBe(201);
    const task = taskSchema.parse(created.body);
    expect(task).toMatchObject({
      status: "pending",
      mode: "update",
      trigger: "request",
      attempt: 0,
      content: { list_id: listId },
    });
    const [status, code, detail] = await refusal("POST", "/1/tasks", { list_id: listId });
    expect([status, code]).toEqual([409, 26031]);
    expect(detail).toContain(task.task_id);
    expect((await ask("GET", "/1/queue")).body).toEqual({ count: 1, tasks: [task] });
    expect((await ask("GET", `/1/tasks/${task.task_id}`)).body).toEqual(task);
  });

  it("is no conflict with itself where a broken connection made the client ask Redis twice", async () => {
    const { store } = harness;
    const twice: TaskStore["create"] = async (...call) => {
      await store.create(...call);
      return store.create(...call);
    };
    const resending = new Proxy(store, {
      get: (target, name) => (name === "create" ? twice : Reflect.get(target, name).bind(target)),
    });
    await app.close();
    app = await appOn(resending);
    const { status, body } = await ask("POST", "/1/tasks", { list_id: await harness.list() });
    expect(status).toBe(201);
    expect((await store.queue()).tasks).toEqual([body]);
  });

  it("filters tasks", async () => {
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      const { body } = await ask("POST", "/1/tasks", { list_id: await harness.list() });
      ids.push((body as Task).task_id);
    }
    const found = async (query: string) =>
      ((await ask("GET", `/1/tasks?${query}`)).body as { tasks: Task[] }).tasks.map((task) => task.task_id);
    expect(await found("")).toEqual(ids.toReversed());
    expect(await found("limit=1")).toEqual([ids[2]]);
    expect(await found(`task_ids=${ids[0]},${ids[2]}`)).toEqual([ids[2], ids[0]]);
    expect(await found("statuses=success,error")).toEqual([]);
    expect(await found("statuses=pending&limit=2")).toHaveLength(2);
    const { body } = await ask("GET", `/1/tasks/${ids[1]}`);
    expect(await found(`list_id=${(body as Task).content.list_id}`)).toEqual([ids[1]]);
  });

  it("removes a pending task so that it can never be published", async () => {
    const { body } = await ask("POST", "/1/tasks", { list_id: await harness.list() });
    const { task_id: taskId } = body as Task;
    expect(await ask("DELETE", `/1/tasks/${taskId}`)).toMatchObject({
      status: 200,
      body: { task_id: taskId },
    });
    expect(await harness.storage.isMarkedRemoved({ indexId: taskId })).toBe(true);
    expect((await refusal("DELETE", `/1/tasks/${taskId}`)).slice(0, 2)).toEqual([404, 26002]);
    expect((await ask("GET", "/1/queue")).body).toEqual({ count: 0, tasks: [] });
  });

  it.each<[string, Method, string, object | undefined, number, number]>([
    ["unknown list", "POST", "/1/tasks", { list_id: randomUUID() }, 404, 26102],
    ["no list", "POST", "/1/tasks", {}, 400, 26001],
    ["bad list id", "POST", "/1/tasks", { list_id: "x" }, 400, 26001],
    ["bad mode", "POST", "/1/tasks", { list_id: randomUUID(), mode: "both" }, 400, 26001],
    ["unknown field", "POST", "/1/tasks", { list_id: randomUUID(), priority: 1 }, 400, 26001],
    ["unknown query", "GET", "/1/tasks?state=pending", undefined, 400, 26001],
    ["unknown query where none is known", "GET", "/1/master?x=1", undefined, 400, 26001],
    ["bad status", "GET", "/1/tasks?statuses=pending,lost", undefined, 400, 26001],
    ["bad ids", "GET", "/1/tasks?task_ids=1,2", undefined, 400, 26001],
    ["twice", "GET", "/1/tasks?limit=1&limit=2", undefined, 400, 26001],
    ["limit 0", "GET", "/1/tasks?limit=0", undefined, 400, 26001],
    ["limit above", "GET", "/1/tasks?limit=1001", undefined, 400, 26001],
    ["too many ids", "GET", `/1/tasks?task_ids=${Array(101).fill(randomUUID())}`, undefined, 400, 26001],
    ["unknown task", "GET", `/1/tasks/${randomUUID()}`, undefined, 404, 26002],
    ["bad task id", "GET", "/1/tasks/1", undefined, 400, 26001],
    ["bad label", "GET", "/1/indexes?label=1", undefined, 400, 26001],
    ["unknown index", "DELETE", `/1/indexes/${randomUUID()}`, undefined, 404, 26002],
    ["unversioned", "GET", "/tasks", undefined, 404, 26002],
  ])("I11: %s is refused", async (_name, method, url, payload, status, code) => {
    expect((await refusal(method, url, payload)).slice(0, 2)).toEqual([status, code]);
  });
});

describe("indexes", () => {
  it("lists, tells the relevant one and removes by id", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const published: string[] = [];
    for (let i = 0; i < 2; i++) {
      const taskId = randomUUID();
      published.push(taskId);
      await fetch(`${indexer.origin}/index_list`, {
        method: "POST",
        body: JSON.stringify({
          task_id: taskId,
          list_id: listId,
          attempt: 1,
          epoch: 1,
          mode: "rebuild",
          engine: defaults.engine,
          params: { m: 16, ef_construction: 200 },
          descriptor_version: 1,
          dim: 8,
        }),
      });
      await indexer.succeed();
    }
    const all = await ask("GET", `/1/indexes?label=${listId}`);
    expect(all.body).toMatchObject({
      count: 2,
      indexes: [{ index_id: published[1] }, { index_id: published[0] }],
    });
    expect(all.body.indexes[0]).toMatchObject({ index_type: "list", count: 5, size: expect.any(Number) });
    const relevant = await ask("GET", `/1/indexes/relevant?label=${listId}`);
    expect(relevant.body).toMatchObject({ count: 1, indexes: [{ index_id: published[1] }] });
    expect(await ask("DELETE", `/1/indexes/${published[1]}`)).toEqual({ status: 204, body: undefined });
    expect((await ask("GET", `/1/indexes/relevant?label=${listId}`)).body).toMatchObject({
      indexes: [{ index_id: published[0] }],
    });
    expect((await refusal("DELETE", `/1/indexes/${published[1]}`))[0]).toBe(404);
  });
});
