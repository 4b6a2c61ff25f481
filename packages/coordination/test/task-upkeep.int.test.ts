import { randomUUID } from "node:crypto";
import { limits } from "@lim/contracts";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createDeadLetters } from "../src/dead-letters.ts";
import { fixedKeys } from "../src/keys.ts";
import type { TaskStore } from "../src/port.ts";
import { type RedisFixture, startFixture } from "./support.ts";
import { expectFactsOfRecords } from "./task-facts.ts";
import { epoch, idsOf, indexer, type TaskBench, taskBench } from "./task-support.ts";

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

describe("an idempotency key", () => {
  const request = (key: string, fingerprint = "body") => ({
    taskId: randomUUID(),
    listId: randomUUID(),
    mode: "rebuild" as const,
    trigger: "request" as const,
    idempotency: { key, fingerprint },
  });

  it("gives the first request's task as it is now, although it is open or has ended", async () => {
    const first = request("once");
    const created = await store.create(first);
    expect(created).toMatchObject({ created: { task_id: first.taskId } });
    const again = { ...first, taskId: randomUUID() };
    expect(await store.create(again)).toEqual({ replayed: await store.get(first.taskId) });
    await store.dispatch({ taskId: first.taskId, indexer, epoch });
    expect(await store.create(again)).toMatchObject({ replayed: { status: "indexing", attempt: 1 } });
    const endTime = new Date().toISOString();
    await store.finish({ taskId: first.taskId, attempt: 1, epoch, error: null, endTime });
    expect(await store.create(again)).toMatchObject({ replayed: { status: "success" } });
    expect(idsOf((await store.find({}, { limit: 5 })).tasks)).toEqual([first.taskId]);
  });

  it("is taken for another request, and once its task was removed", async () => {
    const first = request("taken");
    await store.create(first);
    expect(await store.create(request("taken", "other body"))).toEqual({ keyTaken: first.taskId });
    await store.remove([first.taskId]);
    expect(await store.create({ ...first, taskId: randomUUID() })).toEqual({ keyTaken: first.taskId });
    expect((await store.find({}, { limit: 5 })).tasks).toEqual([]);
  });

  it("is not remembered of a request that met an open task or a stale epoch", async () => {
    const open = await bench.create();
    const refused = { ...request("free"), listId: open.content.list_id };
    expect(await store.create(refused)).toEqual({ conflict: open.task_id });
    expect(await store.create({ ...refused, epoch: epoch - 1 })).toEqual({ refusal: "stale_epoch" });
    const next = request("free", "other body");
    expect(await store.create(next)).toMatchObject({ created: { task_id: next.taskId } });
  });

  it("is one for many that use it together, and is forgotten in time", async () => {
    const wish = request("{a} key with braces");
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => store.create({ ...wish, taskId: randomUUID() })),
    );
    expect(answers.filter((answer) => "created" in answer)).toHaveLength(1);
    expect(answers.filter((answer) => "replayed" in answer)).toHaveLength(9);
    const ttlMs = await fixture.raw.pttl(bench.keys.idempotency(wish.idempotency.key));
    expect(ttlMs).toBeGreaterThan(limits.idempotencyKeyTtlMs - 60_000);
    expect(ttlMs).toBeLessThanOrEqual(limits.idempotencyKeyTtlMs);
  });
});

describe("ended tasks past their retention", () => {
  it("are all but those that ended last, and all that ended too long ago, oldest first", async () => {
    const ended = [];
    for (let n = 0; n < 5; n++) {
      const task = await bench.start();
      await bench.end(task);
      await fixture.raw.zadd(bench.keys.ended, String(n * 1_000_000), task.task_id);
      ended.push(task.task_id);
    }
    await bench.start();
    await bench.create();
    const all = { ended: 5, expired: 0, taskIds: [] };
    expect(await store.expired({ keep: 5, endedBeforeMs: 0 })).toEqual(all);
    const two = { ended: 5, expired: 2, taskIds: ended.slice(0, 2) };
    expect(await store.expired({ keep: 3, endedBeforeMs: 1_000 })).toEqual(two);
    expect(await store.expired({ keep: 4, endedBeforeMs: 2_000 })).toEqual(two);
    expect(await store.expired({ keep: 0, endedBeforeMs: 0 })).toMatchObject({ expired: 5 });
    await store.remove(ended.slice(0, 2));
    expect(await store.expired({ keep: 3, endedBeforeMs: 2_000 })).toEqual({ ...all, ended: 3 });
  });

  it("are counted in full, named up to a thousand, and gone once removed, record or not", async () => {
    const ghosts = Array.from({ length: 1_003 }, (_, n) => [n, `ghost-${n}`] as const).flat();
    await fixture.raw.zadd(bench.keys.ended, ...ghosts);
    const first = await store.expired({ keep: 1, endedBeforeMs: 0 });
    expect(first).toMatchObject({ ended: 1_003, expired: 1_002 });
    expect(first.taskIds).toHaveLength(1_000);
    await store.remove(first.taskIds);
    const rest = await store.expired({ keep: 1, endedBeforeMs: 0 });
    expect(rest).toEqual({ ended: 3, expired: 2, taskIds: ["ghost-1000", "ghost-1001"] });
  });

  it("hold those that an older version ended, whose lists then find them", async () => {
    const { keys } = bench;
    const old = await bench.start();
    await bench.end(old);
    await fixture.raw.del(keys.ended, keys.tasksOf(old.content.list_id));
    await fixture.raw.zadd(keys.tasks, 1, "ghost");
    const running = await bench.start();
    const pending = await bench.create();
    const before = (await store.get(old.task_id))?.end_time;
    const all = { ended: 1, expired: 1, taskIds: [old.task_id] };
    expect(await store.expired({ keep: 0, endedBeforeMs: 0 })).toEqual(all);
    expect(Math.floor(Number(await fixture.raw.zscore(keys.ended, old.task_id)) / 1000)).toBe(
      Date.parse(before ?? ""),
    );
    for (const task of [old, running, pending]) {
      const { tasks } = await store.find({ listId: task.content.list_id }, { limit: 5 });
      expect(idsOf(tasks)).toEqual([task.task_id]);
    }
    expect(await fixture.raw.zrange(keys.tasks, 0, "-1")).toEqual(idsOf([old, running, pending]));
  });

  it("are looked for only once the facts are those of all tasks and of no other", async () => {
    const { keys } = bench;
    const [kept, unknown, removed] = [await bench.create(), await bench.start(), await bench.create()];
    const taken = await fixture.raw.zrange(keys.facts, 1, "1");
    await fixture.raw.zrem(keys.facts, taken[0] ?? "");
    await store.expired({ keep: 0, endedBeforeMs: 0 });
    await expectFactsOfRecords(fixture.raw, keys);
    // As a version does that knows of no facts.
    await fixture.raw.del(keys.task(removed.task_id));
    await fixture.raw.zrem(keys.tasks, removed.task_id);
    await fixture.raw.zrem(keys.queue, removed.task_id);
    expect(idsOf((await store.find({ statuses: ["pending"] }, { limit: 5 })).tasks)).toEqual(idsOf([kept]));
    await store.expired({ keep: 0, endedBeforeMs: 0 });
    await expectFactsOfRecords(fixture.raw, keys);
    expect(idsOf((await store.find({ indexer }, { limit: 5 })).tasks)).toEqual(idsOf([unknown]));
  });

  it("cannot be put off, nor hastened, by an indexer's clock", async () => {
    const ends = ["2999-01-01T00:00:00.000Z", "2001-01-01T00:00:00.000Z"];
    for (const endTime of ends) {
      const { task_id: taskId } = await bench.start();
      await store.finish({ taskId, attempt: 1, epoch, error: null, endTime });
      const task = await store.get(taskId);
      const endMs = Date.parse(task?.end_time ?? "");
      expect(endMs).toBeGreaterThanOrEqual(Date.parse(task?.start_time ?? ""));
      expect(endMs).toBeLessThan(Date.now() + 1_000);
    }
    expect(await store.expired({ keep: 9, endedBeforeMs: Date.now() + 1_000 })).toMatchObject({ expired: 2 });
    expect(await store.expired({ keep: 9, endedBeforeMs: Date.now() - 60_000 })).toMatchObject({
      expired: 0,
    });
  });
});

describe("missing lists", () => {
  it("are remembered since they were first missed, and forgotten once they are not", async () => {
    const [a, b] = [randomUUID(), randomUUID()];
    expect(await store.missingLists()).toEqual(new Map());
    const first = await store.noteMissingLists({ labels: [a, a], epoch });
    expect(first).toEqual({ ok: true, sinceMs: new Map([[a, expect.any(Number)]]) });
    const since = (await store.missingLists()).get(a) ?? 0;
    expect(Math.abs(since - Date.now())).toBeLessThan(60_000);
    await fixture.raw.hset(bench.keys.missingLists, a, "1000");
    const both = await store.noteMissingLists({ labels: [b, a], epoch });
    expect(both.ok && both.sinceMs.get(a)).toBe(1_000);
    expect(both.ok && both.sinceMs.get(b)).toBeGreaterThan(1_000);
    expect([...(await store.missingLists()).keys()].sort()).toEqual([a, b].sort());
    expect(await store.noteMissingLists({ labels: [], epoch })).toEqual({ ok: true, sinceMs: new Map() });
    expect(await store.missingLists()).toEqual(new Map());
  });

  it("I4: are not noted by a master that was replaced", async () => {
    const refused = { ok: false, refusal: "stale_epoch" };
    expect(await store.noteMissingLists({ labels: [randomUUID()], epoch: epoch - 1 })).toEqual(refused);
    expect(await store.missingLists()).toEqual(new Map());
  });
});

describe("dead letters", () => {
  it("are counted and removed by age, by Redis' clock", async () => {
    const letters = createDeadLetters({ redis: fixture.connect() });
    expect(await letters.count({ olderThanMs: 0 })).toEqual({ all: 0, old: 0 });
    expect(await letters.trim({ olderThanMs: 0 })).toBe(0);
    const now = Number((await fixture.raw.time())[0]) * 1000;
    for (const ageMs of [900_000, 600_000, 600_000, 300_000])
      await fixture.raw.xadd(fixedKeys.deadLetters, `${now - ageMs}-*`, "label", "x");
    const fresh = await fixture.raw.xadd(fixedKeys.deadLetters, "*", "label", "x");
    expect(await letters.count({ olderThanMs: 450_000 })).toEqual({ all: 5, old: 3 });
    expect(await letters.count({ olderThanMs: Number.MAX_SAFE_INTEGER })).toEqual({ all: 5, old: 0 });
    expect(await letters.trim({ olderThanMs: 450_000 })).toBe(3);
    expect(await letters.trim({ olderThanMs: 200_000 })).toBe(1);
    const left = await fixture.raw.xrange(fixedKeys.deadLetters, "-", "+");
    expect(left.map(([id]) => id)).toEqual([fresh]);
  });
});
