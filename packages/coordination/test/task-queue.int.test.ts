import { priorities } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { TaskStore } from "../src/port.ts";
import { type RedisFixture, startFixture } from "./support.ts";
import { epoch, idsOf, indexer, reason, type TaskBench, taskBench } from "./task-support.ts";

let fixture: RedisFixture;
let bench: TaskBench;
let store: TaskStore;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());
beforeEach(async () => {
  bench = await taskBench(fixture);
  store = bench.store;
});

const longDelayMs = 3_600_000;
async function requeue(taskId: string, attempt: number, delayMs: number): Promise<void> {
  const input = { taskId, attempt, epoch, reason, maxAttempts: 5, delayMs };
  expect(await store.requeue(input)).toEqual({ ok: true, status: "pending" });
}
const queued = async () => idsOf((await store.queue({ limit: 1_000 })).tasks);

describe("the queue", () => {
  it("serves by priority, then first in, first out", async () => {
    const byPriority = new Map(priorities.map((priority) => [priority, [] as string[]]));
    for (const round of [0, 1, 2])
      for (const n of [5, 0, 7, 2, 4, 1, 6, 3]) {
        const priority = priorities[(n + round) % 8] ?? "default";
        const task = await bench.create({ priority });
        expect(task.priority).toBe(priority);
        byPriority.get(priority)?.push(task.task_id);
      }
    const expected = priorities.toReversed().flatMap((priority) => byPriority.get(priority) ?? []);
    expect(await queued()).toEqual(expected);
    expect(idsOf((await store.ready({ limit: 10 })).tasks)).toEqual(expected.slice(0, 10));
  });

  it("takes a task back at the front of its own priority, not of all", async () => {
    const high = await bench.create({ priority: "high" });
    const waiting = await bench.create({ priority: "low" });
    const returned = await bench.start({ priority: "low" });
    const low = await bench.create({ priority: "lowest" });
    await requeue(returned.task_id, 1, 0);
    expect(await queued()).toEqual(idsOf([high, returned, waiting, low]));
  });

  it("keeps its order although Redis' clock went back", async () => {
    const first = await bench.create();
    const aheadUs = Date.now() * 1000 + 3_600_000_000;
    await fixture.raw.zadd(bench.keys.tasks, String(aheadUs), first.task_id);
    const second = await bench.create();
    const third = await bench.create();
    expect(await queued()).toEqual(idsOf([first, second, third]));
    expect(idsOf((await store.find({}, { limit: 9 })).tasks)).toEqual(idsOf([third, second, first]));
  });

  it("serves what an older version queued, by the clock and without a priority, before default", async () => {
    const usual = await bench.create();
    const old = await bench.create();
    await fixture.raw.hdel(bench.keys.task(old.task_id), "priority");
    await fixture.raw.zadd(bench.keys.queue, "1763683200000000", old.task_id);
    const urgent = await bench.create({ priority: "maximum" });
    expect(await queued()).toEqual(idsOf([urgent, old, usual]));
    expect(await store.get(old.task_id)).toMatchObject({ priority: "default" });
    await store.dispatch({ taskId: old.task_id, indexer, epoch });
    await requeue(old.task_id, 1, 0);
    expect(await queued()).toEqual(idsOf([urgent, old, usual]));
  });

  it("pages without repeating or hiding while it is served", async () => {
    const made = [];
    for (let n = 0; n < 7; n++) made.push(await bench.create({ priority: n < 3 ? "high" : "low" }));
    const first = await store.queue({ limit: 3 });
    expect(first).toMatchObject({ count: 7, tasks: made.slice(0, 3) });
    for (const task of made.slice(0, 4)) await store.dispatch({ taskId: task.task_id, indexer, epoch });
    await bench.create({ priority: "maximum" });
    const second = await store.queue({ limit: 3, cursor: first.nextCursor ?? "" });
    expect(second).toMatchObject({ count: 4, tasks: made.slice(4) });
    expect(second.nextCursor).toBeUndefined();
  });
});

describe("a pause between attempts", () => {
  it("keeps a task from being ready until it is over by Redis' clock, and shows until when", async () => {
    const task = await bench.start();
    const other = await bench.create();
    const before = (await fixture.raw.time()).map(Number);
    await requeue(task.task_id, 1, longDelayMs);
    const notBeforeMs = Date.parse((await store.get(task.task_id))?.not_before ?? "");
    const redisMs = (before[0] ?? 0) * 1000;
    expect(notBeforeMs).toBeGreaterThanOrEqual(redisMs + longDelayMs);
    expect(notBeforeMs).toBeLessThan(redisMs + longDelayMs + 60_000);
    expect(await queued()).toEqual(idsOf([task, other]));
    expect(await store.ready({ limit: 9 })).toMatchObject({ queued: 2, waiting: 1, tasks: [other] });

    await fixture.raw.hset(bench.keys.task(task.task_id), "not_before_us", String((redisMs - 1) * 1000));
    expect(idsOf((await store.ready({ limit: 9 })).tasks)).toEqual(idsOf([task, other]));
    expect(await store.ready({ limit: 1 })).toMatchObject({ queued: 2, waiting: 0 });
    await store.dispatch({ taskId: task.task_id, indexer, epoch });
    expect(await store.get(task.task_id)).toMatchObject({ status: "indexing", attempt: 2, not_before: null });
  });

  it("ends by itself", async () => {
    const task = await bench.start();
    await requeue(task.task_id, 1, 300);
    const ready = await eventually("the task is ready", async () => {
      const found = await store.ready({ limit: 1 });
      return found.tasks.length > 0 ? found : undefined;
    });
    expect(ready.oldestWaitMs).toBeGreaterThanOrEqual(300);
    expect(ready.oldestWaitMs).toBeLessThan(60_000);
  });

  it("of many tasks does not hide the ready ones behind them", async () => {
    // More than one look at the queue may pass.
    const pipeline = fixture.raw.pipeline();
    for (let n = 0; n < 21; n++)
      for (const task of await Promise.all(
        Array.from({ length: 50 }, () => bench.create({ priority: "highest" })),
      ))
        pipeline.hset(
          bench.keys.task(task.task_id),
          "not_before_us",
          String((Date.now() + longDelayMs) * 1000),
        );
    await pipeline.exec();
    const ready = [];
    for (let n = 0; n < 210; n++) ready.push(await bench.create());
    const found = await store.ready({ limit: 205 });
    expect(idsOf(found.tasks)).toEqual(idsOf(ready.slice(0, 205)));
    expect(found).toMatchObject({ queued: 1_260, waiting: 1_050 });
    expect(await store.ready({ limit: 0 })).toMatchObject({ queued: 1_260, tasks: [] });
  });

  it("of more tasks than one search looks at hides what is behind them until some are over", async () => {
    const ids = Array.from({ length: 10_000 }, (_, n) => `waiting-${n}`);
    const notBeforeUs = String((Date.now() + longDelayMs) * 1000);
    const pipeline = fixture.raw.pipeline();
    ids.forEach((id, n) => {
      pipeline.hset(bench.keys.task(id), "not_before_us", notBeforeUs);
      pipeline.zadd(bench.keys.queue, n, id);
    });
    await pipeline.exec();
    const behind = await bench.create();
    expect(await store.ready({ limit: 9 })).toMatchObject({ tasks: [], waiting: 10_000, queued: 10_001 });
    await fixture.raw.zrem(bench.keys.queue, ids[5_000] ?? "");
    expect(await store.ready({ limit: 9 })).toMatchObject({ tasks: [behind], waiting: 9_999 });
  });

  it("does not count into how long others have waited, nor does the time before an attempt", async () => {
    expect(await store.ready({ limit: 5 })).toEqual({ tasks: [], queued: 0, waiting: 0, oldestWaitMs: 0 });
    const task = await bench.start();
    const agedUs = Date.now() * 1000 - 3_600_000_000;
    await fixture.raw.hset(bench.keys.task(task.task_id), "create_us", String(agedUs));
    await requeue(task.task_id, 1, longDelayMs);
    const returned = await bench.start();
    await fixture.raw.hset(bench.keys.task(returned.task_id), "create_us", String(agedUs));
    await requeue(returned.task_id, 1, 0);
    await bench.create();
    expect((await store.ready({ limit: 5 })).oldestWaitMs).toBeLessThan(60_000);
    const aged = await bench.create();
    await fixture.raw.hset(bench.keys.task(aged.task_id), "create_us", String(agedUs));
    const { oldestWaitMs } = await store.ready({ limit: 5 });
    expect(oldestWaitMs).toBeGreaterThan(3_590_000);
    expect(oldestWaitMs).toBeLessThan(3_700_000);
  });
});
