import { randomUUID } from "node:crypto";
import type { Task, TaskStatus } from "@lim/contracts";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { TaskFilter, TaskStore, TimeRange } from "../src/port.ts";
import { type RedisFixture, startFixture } from "./support.ts";
import { expectFactsOfRecords, rewriteFacts } from "./task-facts.ts";
import { epoch, idsOf, type TaskBench, taskBench } from "./task-support.ts";

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

async function pagesOf(filter: TaskFilter, limit: number): Promise<Task[][]> {
  const pages: Task[][] = [];
  let cursor: string | undefined;
  do {
    const page = await store.find(filter, { limit, ...(cursor === undefined ? {} : { cursor }) });
    pages.push(page.tasks);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return pages;
}
const allOf = async (filter: TaskFilter, limit = 1_000) => (await pagesOf(filter, limit)).flat();

/** The filters as plain code. */
function fits(task: Task, filter: TaskFilter): boolean {
  const inside = (time: string | null, range: TimeRange | undefined) => {
    if (!range || (range.gteMs === undefined && range.ltMs === undefined)) return true;
    if (time === null) return false;
    const ms = Date.parse(time);
    return (range.gteMs === undefined || ms >= range.gteMs) && (range.ltMs === undefined || ms < range.ltMs);
  };
  return (
    (!filter.taskIds || filter.taskIds.includes(task.task_id)) &&
    (!filter.statuses || filter.statuses.includes(task.status)) &&
    (filter.listId === undefined || filter.listId === task.content.list_id) &&
    (filter.indexer === undefined || filter.indexer === task.indexer) &&
    inside(task.create_time, filter.createTime) &&
    inside(task.start_time, filter.startTime) &&
    inside(task.end_time, filter.endTime)
  );
}

const lists = [randomUUID(), randomUUID(), randomUUID()];
const indexers = ["http://10.0.0.1:5180", "http://10.0.0.10:5180"];
const statuses: readonly TaskStatus[] = ["pending", "indexing", "success", "error"];
const baseMs = 1_700_000_000_000;

/**
 * Tasks whose times were set to few milliseconds, so that bounds of ranges meet them exactly; newest first. The first
 * list has few of them.
 */
async function manyTasks(): Promise<Task[]> {
  const { keys } = bench;
  for (let n = 0; n < 60; n++) {
    const status = statuses[n % 4] ?? "pending";
    const { task_id: id } = await bench.create();
    const fields: Record<string, string> = {
      status,
      list_id: lists[n % 10 === 9 ? 0 : 1 + (n % 2)] ?? "",
      indexer: "",
    };
    const us = (ms: number) => String((baseMs + ms) * 1000 + (n % 2 === 0 ? 0 : n % 7));
    fields.create_us = us(n % 5);
    if (status === "pending") delete fields.indexer;
    else Object.assign(fields, { indexer: indexers[n % 2], start_us: us(2 + (n % 5)) });
    if (status === "success" || status === "error") fields.end_us = us(4 + (n % 5));
    if (status === "error") fields.error = '{"error_code":1,"desc":"d","detail":"x"}';
    await fixture.raw.hset(keys.task(id), fields);
    if (status === "indexing") await fixture.raw.sadd(keys.indexing, id);
    await fixture.raw.zadd(
      keys.tasksOf(fields.list_id ?? ""),
      (await fixture.raw.zscore(keys.tasks, id)) ?? 0,
      id,
    );
  }
  await rewriteFacts(fixture.raw, keys);
  return allOf({});
}

const range = fc.record(
  {
    gteMs: fc.integer({ min: -1, max: 10 }).map((ms) => baseMs + ms),
    ltMs: fc.integer({ min: -1, max: 10 }).map((ms) => baseMs + ms),
  },
  { requiredKeys: [] },
);
const filters = (all: readonly Task[]) =>
  fc.record(
    {
      taskIds: fc.array(fc.constantFrom(...idsOf(all), randomUUID()), { maxLength: 30 }),
      statuses: fc.subarray([...statuses]),
      listId: fc.constantFrom(...lists, randomUUID()),
      indexer: fc.constantFrom(...indexers, "http://10.0.0.1"),
      createTime: range,
      startTime: range,
      endTime: range,
    },
    { requiredKeys: [] },
  );

describe("finding tasks", () => {
  it.each(["of all tasks", "of some tasks only"])(
    `gives exactly what fits, newest first, whatever the filters and the size of the page, with facts %s`,
    async (which) => {
      const all = await manyTasks();
      expect(all).toHaveLength(60);
      const forgotten = "of some tasks only" === which ? 1 : 0;
      expect(await fixture.raw.zremrangebyrank(bench.keys.facts, 30, 29 + forgotten)).toBe(forgotten);
      await fc.assert(
        fc.asyncProperty(filters(all), fc.integer({ min: 1, max: 30 }), async (filter, limit) => {
          const pages = await pagesOf(filter, limit);
          const expected = all.filter((task) => fits(task, filter));
          expect(idsOf(pages.flat())).toEqual(idsOf(expected));
          expect(pages).toHaveLength(Math.max(Math.ceil(expected.length / limit), 1));
        }),
        { numRuns: 300 },
      );
    },
  );

  it("takes the first millisecond of a range in and its last out", async () => {
    const { task_id: id } = await bench.start();
    const us = String(baseMs * 1000);
    await fixture.raw.hset(bench.keys.task(id), "create_us", us, "start_us", us, "end_us", us);
    await rewriteFacts(fixture.raw, bench.keys);
    for (const field of ["createTime", "startTime", "endTime"] as const) {
      const found = async (range: TimeRange) => (await allOf({ [field]: range })).length;
      expect(await found({ gteMs: baseMs })).toBe(1);
      expect(await found({ gteMs: baseMs + 1, ltMs: baseMs + 9 })).toBe(0);
      expect(await found({ ltMs: baseMs })).toBe(0);
      expect(await found({ gteMs: baseMs, ltMs: baseMs + 1 })).toBe(1);
    }
  });

  it("finds a task by the very millisecond that gives it its place in the order of creation", async () => {
    const startTime = "2020-01-01T00:00:00.000Z";
    const build = { taskId: randomUUID(), listId: randomUUID(), mode: "rebuild", attempt: 1 } as const;
    await store.adopt({ ...build, indexer: "http://h:1", startTime, epoch });
    const ms = Date.parse(startTime);
    expect(idsOf(await allOf({ createTime: { gteMs: ms, ltMs: ms + 1 } }))).toEqual([build.taskId]);
    expect(await allOf({ createTime: { gteMs: ms + 1 } })).toEqual([]);
  });

  it("reaches what lies behind more tasks than one look may pass", async () => {
    const oldest = await bench.create();
    await bench.store.dispatch({ taskId: oldest.task_id, indexer: "http://old:1", epoch });
    const newer: Task[] = [];
    for (let n = 0; n < 24; n++)
      newer.push(...(await Promise.all(Array.from({ length: 50 }, () => bench.create()))));
    expect(idsOf(await allOf({ indexer: "http://old:1" }))).toEqual([oldest.task_id]);
    const all = await pagesOf({}, 1_000);
    expect(all.map((page) => page.length)).toEqual([1_000, 201]);
    expect(new Set(idsOf(all.flat())).size).toBe(1_201);
    expect(idsOf((await store.find({}, { limit: 1_000 })).tasks)).toEqual(idsOf(all[0] ?? []));
    expect(await store.remove(idsOf(all.flat()))).toHaveLength(1_201);
    expect(await allOf({})).toEqual([]);
  });

  it("neither repeats nor hides a task when others come and go between pages", async () => {
    const made: Task[] = [];
    for (let n = 0; n < 12; n++) made.push(await bench.create());
    const newestFirst = idsOf(made).reverse();
    const first = await store.find({}, { limit: 4 });
    await bench.create();
    // The last one of the page, the next one, and one of the page behind.
    await store.remove([newestFirst[3] ?? "", newestFirst[4] ?? "", newestFirst[9] ?? ""]);
    const second = await store.find({}, { limit: 4, cursor: first.nextCursor ?? "" });
    await bench.create();
    const third = await store.find({}, { limit: 4, cursor: second.nextCursor ?? "" });
    expect(idsOf([...first.tasks, ...second.tasks, ...third.tasks])).toEqual(
      newestFirst.filter((_, n) => n !== 4 && n !== 9),
    );
    expect(third.nextCursor).toBeUndefined();
  });

  it("pages through named and through running tasks as through all", async () => {
    const made: Task[] = [];
    for (let n = 0; n < 5; n++) made.push(await bench.start());
    const newestFirst = idsOf(made).reverse();
    const named = [...idsOf(made), ...idsOf(made), randomUUID()];
    for (const filter of [{ taskIds: named }, { statuses: ["indexing" as const] }, {}]) {
      const pages = await pagesOf(filter, 2);
      expect(pages.map(idsOf)).toEqual([
        newestFirst.slice(0, 2),
        newestFirst.slice(2, 4),
        newestFirst.slice(4),
      ]);
    }
  });

  it("refuses a cursor that it did not give out (I10)", async () => {
    await bench.create();
    await bench.create();
    const queued = await store.queue({ limit: 1 });
    const found = await store.find({}, { limit: 1 });
    const encoded = (text: string) => Buffer.from(text).toString("base64url");
    const foreign = [
      "",
      "x",
      "t5",
      `${found.nextCursor}=`,
      encoded("t"),
      encoded("t1e3"),
      encoded("t12345678901234567"),
    ];
    for (const cursor of [...foreign, queued.nextCursor ?? ""])
      await expect(store.find({}, { limit: 1, cursor })).rejects.toMatchObject({ errorName: "bad_input" });
    for (const cursor of [...foreign, found.nextCursor ?? ""])
      await expect(store.queue({ limit: 1, cursor })).rejects.toMatchObject({ errorName: "bad_input" });
  });

  it("forgets ids without a record, also where only their list names them", async () => {
    const kept = await bench.create();
    const { tasks, ended } = bench.keys;
    const ofList = bench.keys.tasksOf(kept.content.list_id);
    await fixture.raw.zadd(tasks, 1, "ghost");
    await fixture.raw.zadd(ended, 1, "ghost");
    await fixture.raw.zadd(ofList, 2, "other ghost");
    expect(idsOf(await allOf({}))).toEqual([kept.task_id]);
    expect(await fixture.raw.zrange(tasks, 0, "-1")).toEqual([kept.task_id]);
    // Of a label with few of all tasks the records are read.
    for (let n = 0; n < 8; n++) await bench.create();
    expect(idsOf(await allOf({ listId: kept.content.list_id }))).toEqual([kept.task_id]);
    expect(await fixture.raw.exists(ended)).toBe(0);
    expect(await fixture.raw.zrange(ofList, 0, "-1")).toEqual([kept.task_id]);
  });

  it("forgets a task whose record vanished, with its facts, once it fits", async () => {
    const [gone, kept] = [await bench.create(), await bench.create()];
    await fixture.raw.del(bench.keys.task(gone.task_id));
    expect(await allOf({ statuses: ["error"] })).toEqual([]);
    expect(idsOf(await allOf({ statuses: ["pending"] }))).toEqual([kept.task_id]);
    expect(await fixture.raw.zrange(bench.keys.tasks, 0, "-1")).toEqual([kept.task_id]);
    await expectFactsOfRecords(fixture.raw, bench.keys);
  });

  it("passes over what is no task, whatever the filter, and still goes by facts", async () => {
    const { keys } = bench;
    const damages = [
      { status: "paused" },
      { status: "success", list_id: "x".repeat(40) },
      { status: "success", end_us: "9".repeat(19) },
    ];
    for (const damage of damages) await fixture.raw.hset(keys.task((await bench.start()).task_id), damage);
    const task = await bench.create();
    await fixture.raw.del(keys.facts);
    await store.expired({ keep: 9, endedBeforeMs: 0 });
    expect(await fixture.raw.zcard(keys.facts)).toBe(damages.length + 1);
    for (const filter of [{ statuses: ["pending", "success"] as const }, { createTime: { gteMs: 0 } }, {}])
      expect(idsOf(await allOf(filter))).toEqual([task.task_id]);
  });

  it("does not take a record of a list that it does not belong to", async () => {
    const task = await bench.create();
    const other = randomUUID();
    await fixture.raw.zadd(bench.keys.tasksOf(other), 5, task.task_id);
    expect(await allOf({ listId: other })).toEqual([]);
  });
});
