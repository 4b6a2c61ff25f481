import { randomUUID } from "node:crypto";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { Keys } from "../src/keys.ts";
import type { KeyNames, RedisConnection, TaskStore } from "../src/port.ts";
import { createTaskStore } from "../src/task-store.ts";
import { freshKeyNames, type RedisFixture, startFixture } from "./support.ts";

const epoch = 1_763_683_200_000_001;
const indexer = "http://127.0.0.1:5180";
const reason = { error_code: 26110, desc: "Indexer vanished or lost the build", detail: "no answer" };
const endTime = "2026-11-21T10:20:30.456Z";

let fixture: RedisFixture;
let redis: RedisConnection;
let names: KeyNames;
let keys: Keys;
let store: TaskStore;
beforeAll(async () => {
  fixture = await startFixture();
  redis = fixture.connect();
});
afterAll(() => fixture.close());
beforeEach(async () => {
  names = freshKeyNames();
  keys = new Keys(names);
  store = createTaskStore({ redis, keys: names });
  await fixture.raw.set(keys.epoch, String(epoch));
});

async function create(listId: string = randomUUID()): Promise<{ taskId: string; listId: string }> {
  const taskId = randomUUID();
  const made = await store.create({ taskId, listId, mode: "rebuild", trigger: "request" });
  if (!("created" in made)) throw new Error(`not created: ${JSON.stringify(made)}`);
  return { taskId, listId };
}

/** A task in status indexing, attempt 1. */
async function start(): Promise<{ taskId: string; listId: string; attempt: number; epoch: number }> {
  const made = await create();
  expect(await store.dispatch({ taskId: made.taskId, indexer, epoch })).toEqual({ ok: true, attempt: 1 });
  return { ...made, attempt: 1, epoch };
}

async function adopt(taskId: string, listId: string) {
  return store.adopt({ taskId, listId, mode: "rebuild", attempt: 1, indexer, startTime: endTime, epoch });
}

describe("a task's life", () => {
  it("keeps its fields and times from creation to success", async () => {
    const before = Date.now();
    const listId = randomUUID();
    const taskId = randomUUID();
    const made = await store.create({ taskId, listId, mode: "update", trigger: "plan", epoch });
    const pending = {
      task_id: taskId,
      status: "pending",
      create_time: expect.any(String),
      start_time: null,
      end_time: null,
      indexer: null,
      error: null,
      content: { list_id: listId },
      mode: "update",
      trigger: "plan",
      priority: "default",
      not_before: null,
      attempt: 0,
      progress: null,
      skipped: null,
    };
    expect(made).toEqual({ created: pending });
    expect(await store.get(taskId)).toEqual(pending);
    await store.dispatch({ taskId, indexer, epoch });
    const progress = { phase: "build", done: 5, total: 9, rate_per_s: 2.5, eta_s: 1.6 } as const;
    expect(await store.progress({ taskId, attempt: 1, epoch, progress })).toEqual({ ok: true });
    const running = await store.get(taskId);
    expect(running).toMatchObject({ status: "indexing", indexer, attempt: 1, progress });
    for (const time of [running?.create_time, running?.start_time]) {
      const ms = Date.parse(time ?? "");
      expect(ms).toBeGreaterThan(before - 100);
      expect(ms).toBeLessThan(Date.now() + 100);
    }
    const now = new Date().toISOString();
    expect(await store.finish({ taskId, attempt: 1, epoch, error: null, endTime: now })).toEqual({
      ok: true,
    });
    expect(await store.get(taskId)).toMatchObject({
      status: "success",
      end_time: now,
      error: null,
      progress: null,
    });
    expect(await store.openTasks([listId])).toEqual(new Map());
  });

  it("keeps of a failed build how far it got", async () => {
    const { taskId, attempt } = await start();
    const progress = { phase: "verify", done: 1, total: 3, rate_per_s: null, eta_s: null } as const;
    await store.progress({ taskId, attempt, epoch, progress });
    await store.finish({ taskId, attempt, epoch, error: reason, endTime });
    expect(await store.get(taskId)).toMatchObject({ status: "error", progress });
  });

  it("goes to the front when requeued, and ends with the reason after the last attempt", async () => {
    const first = await start();
    const others = [await create(), await create()];
    expect(await store.requeue({ ...first, reason, maxAttempts: 2, delayMs: 0 })).toEqual({
      ok: true,
      status: "pending",
    });
    expect((await store.queue({ limit: 1_000 })).tasks.map((task) => task.task_id)).toEqual([
      first.taskId,
      ...others.map((other) => other.taskId),
    ]);
    expect(await store.get(first.taskId)).toMatchObject({
      status: "pending",
      attempt: 1,
      indexer: null,
      start_time: null,
      error: null,
    });
    await store.dispatch({ taskId: first.taskId, indexer, epoch });
    const last = await store.requeue({ ...first, attempt: 2, reason, maxAttempts: 2, delayMs: 0 });
    expect(last).toEqual({ ok: true, status: "error" });
    const ended = await store.get(first.taskId);
    expect(ended?.error).toMatchObject({ error_code: 26111, detail: expect.stringContaining("26110") });
    expect(ended?.end_time).not.toBeNull();
    expect(await store.openTasks([first.listId])).toEqual(new Map());
  });

  it("is dispatched once when many ask together (I3)", async () => {
    const stores = [store, createTaskStore({ redis: fixture.connect(), keys: names })];
    for (let round = 0; round < 20; round++) {
      const { taskId } = await create();
      const answers = await Promise.all(
        [0, 1, 0, 1].map((n) => stores[n]?.dispatch({ taskId, indexer: `http://h:${n + 1}`, epoch })),
      );
      expect(answers.filter((answer) => answer?.ok)).toEqual([{ ok: true, attempt: 1 }]);
      for (const answer of answers)
        if (!answer?.ok) expect(answer).toEqual({ ok: false, refusal: "wrong_status" });
    }
  });

  it("is one per label when many create together, and the refusal names it (I3)", async () => {
    const stores = [store, createTaskStore({ redis: fixture.connect(), keys: names })];
    const listId = randomUUID();
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        stores[n % 2]?.create({ taskId: randomUUID(), listId, mode: "rebuild", trigger: "request" }),
      ),
    );
    const created = answers.flatMap((answer) =>
      answer && "created" in answer ? [answer.created.task_id] : [],
    );
    expect(created).toHaveLength(1);
    for (const answer of answers)
      if (answer && !("created" in answer)) expect(answer).toEqual({ conflict: created[0] });
  });

  it("is refused a malformed end, and its error's detail is bounded (I10, I11)", async () => {
    const task = await start();
    await expect(store.finish({ ...task, error: null, endTime: "soon" })).rejects.toMatchObject({
      errorName: "bad_input",
    });
    expect(await store.get(task.taskId)).toMatchObject({ status: "indexing" });
    await store.finish({ ...task, error: { ...reason, detail: "x".repeat(100_000) }, endTime });
    expect((await store.get(task.taskId))?.error?.detail).toHaveLength(2_000);
  });

  it("is created in order although Redis' clock went back", async () => {
    const { taskId } = await create();
    const future = Date.now() * 1000 + 3_600_000_000;
    await fixture.raw.zadd(keys.tasks, String(future), taskId);
    await fixture.raw.zadd(keys.queue, String(future), taskId);
    const later = [(await create()).taskId, (await create()).taskId];
    expect((await store.queue({ limit: 1_000 })).tasks.map((task) => task.task_id)).toEqual([
      taskId,
      ...later,
    ]);
  });
});

describe("what Redis lost or others left behind", () => {
  it("refuses the old epoch after a flush; builds are adopted under the new one (I4, I9)", async () => {
    const running = await start();
    await fixture.raw.flushall();
    const refused = { ok: false, refusal: "stale_epoch" };
    expect(await store.finish({ ...running, error: null, endTime })).toEqual(refused);
    expect(await adopt(running.taskId, running.listId)).toEqual(refused);
    const planned = { taskId: randomUUID(), listId: randomUUID(), mode: "rebuild", trigger: "plan" } as const;
    expect(await store.create({ ...planned, epoch })).toEqual({ refusal: "stale_epoch" });
    expect(await store.setLastPlanMs({ lastPlanMs: 5, epoch })).toEqual(refused);

    await fixture.raw.set(keys.epoch, String(epoch + 1));
    const report = { ...running, mode: "rebuild", indexer, startTime: endTime, epoch: epoch + 1 } as const;
    expect(await store.adopt(report)).toEqual({ ok: true });
    expect(await store.adopt(report)).toEqual({ ok: false, refusal: "wrong_status" });
    expect(await store.get(running.taskId)).toMatchObject({
      status: "indexing",
      start_time: endTime,
      attempt: 1,
      indexer,
    });
    expect(await store.openTasks([running.listId])).toEqual(new Map([[running.listId, running.taskId]]));
    expect(await store.finish({ ...running, epoch: epoch + 1, error: null, endTime })).toEqual({ ok: true });
  });

  it("does not order a task last that an indexer with a fast clock reports", async () => {
    const adopted = randomUUID();
    await store.adopt({
      taskId: adopted,
      listId: randomUUID(),
      mode: "rebuild",
      attempt: 1,
      indexer,
      startTime: "9999-12-31T23:59:59.000Z",
      epoch,
    });
    const { taskId } = await create();
    expect((await store.find({}, { limit: 1_000 })).tasks.map((task) => task.task_id)).toEqual([
      taskId,
      adopted,
    ]);
  });

  it("does not adopt what was removed while it ran", async () => {
    const { taskId, listId } = await start();
    expect((await store.remove([taskId, randomUUID()])).map((task) => task.status)).toEqual(["indexing"]);
    expect(await adopt(taskId, listId)).toEqual({ ok: false, refusal: "unknown_task" });
    expect(await fixture.raw.pttl(keys.removed(taskId))).toBeGreaterThan(0);
    await create(listId);
  });

  it("creates in spite of a label key that points to a missing or an ended task", async () => {
    const listId = randomUUID();
    await fixture.raw.set(keys.labelTask(listId), randomUUID());
    expect(await store.openTasks([listId])).toEqual(new Map());
    const { taskId } = await create(listId);
    await store.dispatch({ taskId, indexer, epoch });
    await store.finish({ taskId, attempt: 1, epoch, error: null, endTime });
    await fixture.raw.set(keys.labelTask(listId), taskId);
    expect(await store.openTasks([listId])).toEqual(new Map());
    const next = await create(listId);
    expect(await store.openTasks([listId])).toEqual(new Map([[listId, next.taskId]]));
  });

  it("leaves the label to another task that holds it", async () => {
    const running = await start();
    await fixture.raw.set(keys.labelTask(running.listId), "another");
    await store.finish({ ...running, error: null, endTime });
    await store.remove([running.taskId]);
    expect(await fixture.raw.get(keys.labelTask(running.listId))).toBe("another");
  });

  it("forgets ids whose record vanished, wherever it meets them", async () => {
    const kept = await create();
    const ghosts = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
    const [listed = "", queued = "", running = "", offered = ""] = ghosts;
    await fixture.raw.zadd(keys.tasks, 1, listed);
    await fixture.raw.zadd(keys.queue, 1, queued, 2, offered);
    await fixture.raw.sadd(keys.indexing, running);
    expect(await store.dispatch({ taskId: offered, indexer, epoch })).toEqual({
      ok: false,
      refusal: "unknown_task",
    });
    expect(await fixture.raw.zrange(keys.queue, 0, "-1")).toEqual([queued, kept.taskId]);
    expect((await store.find({}, { limit: 1_000 })).tasks.map((task) => task.task_id)).toEqual([kept.taskId]);
    expect(await store.queue({ limit: 1_000 })).toMatchObject({
      count: 1,
      tasks: [{ task_id: kept.taskId }],
    });
    expect(await store.indexing()).toEqual([]);
    expect(await fixture.raw.zrange(keys.tasks, 0, "-1")).toEqual([kept.taskId]);
    expect(await fixture.raw.zrange(keys.queue, 0, "-1")).toEqual([kept.taskId]);
    expect(await fixture.raw.scard(keys.indexing)).toBe(0);
  });

  it("reads a running task whose progress another release wrote", async () => {
    const { taskId, attempt } = await start();
    await fixture.raw.hset(keys.task(taskId), "progress", '{"phase":"polish"}');
    expect(await store.indexing()).toMatchObject([{ task_id: taskId, attempt, progress: null }]);
  });

  it("tells of an unreadable record once, however often it is read", async () => {
    const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
    const { taskId } = await create();
    await fixture.raw.hset(keys.task(taskId), "create_us", "yesterday");
    const logging = createTaskStore({ redis, keys: names, log });
    for (let n = 0; n < 3; n++) await logging.queue({ limit: 10 });
    expect(log.warn).toHaveBeenCalledOnce();
  });

  it("leaves out a record that is no task, and lists the others (I11)", async () => {
    const good = await create();
    const bad = await create();
    await fixture.raw.hset(keys.task(bad.taskId), "progress", "{", "create_us", "yesterday");
    expect((await store.find({}, { limit: 1_000 })).tasks.map((task) => task.task_id)).toEqual([good.taskId]);
    expect(await store.get(bad.taskId)).toBeUndefined();
    await store.remove([bad.taskId]);
    expect(await fixture.raw.exists(keys.task(bad.taskId))).toBe(0);
    expect(await store.openTasks([bad.listId])).toEqual(new Map());
  });
});

describe("one store for all", () => {
  it("remembers the last plan", async () => {
    expect(await store.lastPlanMs()).toBeUndefined();
    expect(await store.setLastPlanMs({ lastPlanMs: 1_763_683_200_123, epoch })).toEqual({ ok: true });
    expect(await store.lastPlanMs()).toBe(1_763_683_200_123);
    expect(await store.setLastPlanMs({ lastPlanMs: 1, epoch: epoch - 1 })).toEqual({
      ok: false,
      refusal: "stale_epoch",
    });
    expect(await store.lastPlanMs()).toBe(1_763_683_200_123);
  });

  it("is cancelled, and works again after Redis restarted", async () => {
    const cancelled = AbortSignal.abort();
    await expect(store.find({}, { limit: 1, signal: cancelled })).rejects.toMatchObject({
      errorName: "aborted",
    });
    await expect(
      store.create(
        { taskId: randomUUID(), listId: randomUUID(), mode: "rebuild", trigger: "request" },
        { signal: cancelled },
      ),
    ).rejects.toMatchObject({ errorName: "aborted" });
    expect((await store.find({}, { limit: 1 })).tasks).toEqual([]);
    await fixture.restart();
    await eventually("the store answers", async () => (await store.queue({ limit: 1_000 })).count + 1);
    await create();
  });
});
