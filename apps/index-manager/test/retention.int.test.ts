import { rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createRetention } from "../src/retention.ts";
import { startMasterSupport } from "./master-support.ts";
import { uuidOf } from "./test-indexer.ts";

let support: Awaited<ReturnType<typeof startMasterSupport>>;
beforeAll(async () => {
  support = await startMasterSupport();
});
beforeEach(() => support.lead());
afterEach(() => support.clear());
afterAll(() => support.close());

const live = new AbortController().signal;
const retention = (change: Partial<typeof support.deps> = {}, epoch = support.epoch) =>
  createRetention({ ...support.deps, ...change }, { epoch, signal: live });
const stored = async () =>
  (await support.deps.storage.list()).indexes.map((index) => index.indexId).toSorted();
const hourMs = 3_600_000;

/** A task that has ended; when, by Redis' clock. No other ends in the same two milliseconds. */
async function endedTask(listId: string): Promise<{ taskId: string; endMs: number }> {
  const { store, nowMs } = support.deps;
  const taskId = uuidOf(Math.floor(Math.random() * 1e9) + 1e9);
  const epoch = support.epoch;
  await store.create({ taskId, listId, mode: "rebuild", trigger: "plan", epoch });
  await store.dispatch({ taskId, indexer: "http://127.0.0.1:1", epoch });
  const endTime = new Date(Date.now() + hourMs).toISOString();
  expect(await store.finish({ taskId, attempt: 1, epoch, error: null, endTime })).toEqual({ ok: true });
  const endMs = Date.parse((await store.get(taskId))?.end_time ?? "");
  await eventually("Redis' clock moves on", async () => ((await nowMs(live)) > endMs + 2 ? true : undefined));
  return { taskId, endMs };
}
const taskIds = async () =>
  (await support.deps.store.find({}, { limit: 1_000 })).tasks.map((task) => task.task_id).toSorted();

/** Dead letters as a matcher would leave them, at these times. */
const deadLetters = async (...timesMs: number[]) => {
  for (const ms of timesMs) await support.raw.xadd("lim:dead_letters", `${ms}-1`, "rid", "r");
};

describe("indexes", () => {
  it("removes outdated versions and counts them; a label with an open task keeps all", async () => {
    const [list, busy] = [await support.list(5), await support.list(5)];
    const ids = [1, 2, 3, 4].map((revision) => support.place(list, revision));
    const kept = [1, 2, 3].map((revision) => support.place(busy, revision));
    await support.deps.store.create({
      taskId: uuidOf(1),
      listId: busy.listId,
      mode: "update",
      trigger: "request",
    });
    const before = await support.metric("lim_manager_removed_indexes_total", { reason: "outdated" });
    await retention().once();
    expect(await stored()).toEqual([...kept, ...ids.slice(2)].toSorted());
    expect(await support.metric("lim_manager_removed_indexes_total", { reason: "outdated" })).toBe(
      before + 2,
    );
  });

  it("those of a deleted list go after the grace, which another master does not begin anew", async () => {
    const [list] = [await support.list(5), await support.list(1)];
    const id = support.place(list, 5);
    await support.deps.db.deleteList({ listId: list.listId });
    await retention().once();
    expect(await stored()).toEqual([id]);
    expect(await support.metric("lim_manager_missing_lists")).toBe(1);
    const noted = (await support.deps.store.missingLists()).get(list.listId) ?? 0;
    expect(noted).toBeGreaterThan(0);
    // Time is moved, not waited for: the moment it was first missed, as any later master reads it.
    await support.raw.hset("{lim_manager_master}:missing_lists", list.listId, noted - hourMs);
    await retention().once();
    expect(await stored()).toEqual([]);
    expect(await support.metric("lim_manager_removed_indexes_total", { reason: "list deleted" })).toBe(1);
    await retention().once();
    expect(await support.deps.store.missingLists()).toEqual(new Map());
    expect(await support.metric("lim_manager_missing_lists")).toBe(0);
  });

  it("I9: a lost Redis begins the grace anew, a list that is back ends it", async () => {
    const [list] = [await support.list(5), await support.list(1)];
    const id = support.place(list, 5);
    await support.deps.db.deleteList({ listId: list.listId });
    await retention().once();
    await support.raw.hset("{lim_manager_master}:missing_lists", list.listId, 1);
    await support.raw.flushall();
    await support.lead();
    await retention().once();
    expect(await stored()).toEqual([id]);
    await support.deps.db.createList({ listId: list.listId, name: "back" });
    await retention().once();
    expect(await support.deps.store.missingLists()).toEqual(new Map());
    await support.deps.db.deleteList({ listId: list.listId });
  });

  it("I9: a database without any list costs no index, and says nothing is missing", async () => {
    const list = await support.list(5);
    const id = support.place(list, 5);
    await support.deps.db.deleteList({ listId: list.listId });
    await retention({ deletedListGraceMs: 0 }).once();
    expect(await stored()).toEqual([id]);
    expect(await support.deps.store.missingLists()).toEqual(new Map());
  });

  it.each([
    {
      what: "a successor took over",
      meanwhile: async () => void (await support.raw.set("{lim_manager_master}:epoch", support.epoch + 1)),
    },
    {
      what: "the label got an open task",
      meanwhile: async (listId: string) => {
        await support.deps.store.create({ taskId: uuidOf(2), listId, mode: "update", trigger: "request" });
      },
    },
  ])("I4: removes nothing that it chose before $what", async ({ meanwhile }) => {
    const list = await support.list(5);
    const ids = [1, 2, 3].map((revision) => support.place(list, revision));
    const { storage } = support.deps;
    let listings = 0;
    // The second listing is the last look before it removes.
    const listing: typeof storage.list = async (options) => {
      if (++listings === 2) await meanwhile(list.listId);
      return storage.list(options);
    };
    await retention({ storage: { ...storage, list: listing } }).once();
    expect(listings).toBe(2);
    expect(await stored()).toEqual(ids.toSorted());
  });

  it("I4: a replaced master removes nothing at all", async () => {
    const [list] = [await support.list(5), await support.list(1)];
    const ids = [1, 2, 3].map((revision) => support.place(list, revision));
    const { taskId } = await endedTask(list.listId);
    await deadLetters(1_000);
    await support.age(2 * hourMs);
    await retention({ keepTasks: 0 }, support.epoch - 1).once();
    expect(await stored()).toEqual(ids.toSorted());
    expect(await taskIds()).toEqual([taskId]);
    expect(await support.raw.xlen("lim:dead_letters")).toBe(1);
    expect((await support.deps.db.listStates())[0]?.oldestKeptRevision).toBe(0);
    const refused = { transition: "note_missing_lists", refusal: "stale_epoch" };
    expect(await support.metric("lim_manager_refused_transitions_total", refused)).toBe(1);
  });
});

describe("tasks, dead letters and left-overs", () => {
  it("forgets tasks by age and by number, never an open one", async () => {
    const listIds = (await support.manyLists(4)).map((list) => list.listId) as [
      string,
      string,
      string,
      string,
    ];
    const [oldest, older, newest] = [
      await endedTask(listIds[0]),
      await endedTask(listIds[1]),
      await endedTask(listIds[2]),
    ];
    const open = uuidOf(2);
    await support.deps.store.create({
      taskId: open,
      listId: listIds[3],
      mode: "rebuild",
      trigger: "request",
    });
    const before = await support.metric("lim_manager_removed_tasks_total");
    await retention({ nowMs: async () => older.endMs + hourMs }).once();
    expect(await taskIds()).not.toContain(oldest.taskId);
    expect(await taskIds()).toEqual([older.taskId, newest.taskId, open].toSorted());
    await retention({ keepTasks: 1 }).once();
    expect(await taskIds()).toEqual([newest.taskId, open].toSorted());
    expect(await support.metric("lim_manager_removed_tasks_total")).toBe(before + 2);
  });

  it("removes old dead letters, and shows how many are left", async () => {
    const nowMs = Math.floor(await support.deps.nowMs(live));
    await deadLetters(1_000, nowMs - 2 * hourMs, nowMs - hourMs / 2);
    await retention().once();
    expect(await support.raw.xlen("lim:dead_letters")).toBe(1);
    expect(await support.metric("lim_manager_removed_dead_letters_total")).toBe(2);
    expect(await support.metric("lim_manager_dead_letters")).toBe(1);
  });

  it("counts what the storage collects", async () => {
    const mark = join(support.storageRoot, ".removed", uuidOf(3));
    await writeFile(mark, "");
    await utimes(mark, 1, 1);
    await retention().once();
    expect(await support.metric("lim_manager_collected_total", { kind: "marks" })).toBe(1);
    await rm(mark, { force: true });
  });
});

describe("change feeds", () => {
  const oldest = async (listId: string) =>
    (await support.deps.db.listStates({ listIds: [listId] }))[0]?.oldestKeptRevision;
  const packet = async (list: { listId: string; historyId: string }, sinceRevision: number) =>
    support.deps.db.readPacket({ ...list, sinceRevision, descriptorVersion: 1, dim: 8, maxFaces: 100 });

  it("I1: shortens feeds to what the kept indexes need, and refresh from each of them still works", async () => {
    const list = await support.list(20);
    for (const revision of [4, 8, 12]) support.place(list, revision);
    await support.age(2 * hourMs);
    const { listId, historyId } = list;
    await retention().once();
    expect(await oldest(listId)).toBe(9);
    for (const revision of [8, 12])
      expect(await packet({ listId, historyId }, revision)).toMatchObject({
        kind: "changes",
        fromRevision: revision,
        toRevision: 20,
        headRevision: 20,
      });
    expect(await packet({ listId, historyId }, 7)).toEqual({ kind: "gap", gap: "compacted" });
    expect(await support.metric("lim_manager_compacted_feed_rows_total")).toBe(8);
    const ranges = [{ listId, sinceRevision: 8, toRevision: 20 }];
    expect(await support.deps.db.removalsOf({ ranges })).toEqual(new Map([[listId, 0]]));
  });

  it("leaves young rows and lists with an open task alone; lists without an index go by age", async () => {
    const [young, open, bare] = [await support.list(6), await support.list(6), await support.list(6)];
    support.place(young, 6);
    support.place(open, 6);
    await support.deps.store.create({
      taskId: uuidOf(4),
      listId: open.listId,
      mode: "update",
      trigger: "request",
    });
    await support.sql.query(
      "UPDATE faces.list_change SET create_time = create_time - interval '2 hours' WHERE list_id <> $1",
      [young.listId],
    );
    await retention().once();
    expect(await oldest(young.listId)).toBe(0);
    expect(await oldest(open.listId)).toBe(0);
    expect(await oldest(bare.listId)).toBe(6);
    expect(await packet({ listId: bare.listId, historyId: bare.historyId }, 6)).toMatchObject({
      kind: "up_to_date",
    });
  });

  it("an index of another history or descriptor version holds no row back", async () => {
    const list = await support.list(6);
    support.place(list, 2, { history_id: uuidOf(5) });
    support.place(list, 3, { descriptor_version: 2 });
    support.place(list, 5);
    await support.age(2 * hourMs);
    await retention().once();
    expect(await oldest(list.listId)).toBe(6);
  });
});
