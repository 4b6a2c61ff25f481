import { mkdir, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { planResponseSchema, retentionResponseSchema } from "@lim/contracts";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { planIfDue } from "../src/planning.ts";
import { createPreviews } from "../src/previews.ts";
import { createRetention } from "../src/retention.ts";
import { startMasterSupport } from "./master-support.ts";
import { uuidOf } from "./test-indexer.ts";

let support: Awaited<ReturnType<typeof startMasterSupport>>;
beforeAll(async () => {
  support = await startMasterSupport();
});
afterEach(async () => {
  await support.clear();
  for (const [folder, name] of leftOvers)
    await rm(join(support.storageRoot, folder, name), { recursive: true, force: true });
});
afterAll(() => support.close());

const live = new AbortController().signal;
const hourMs = 3_600_000;
const planAnswer = planResponseSchema.omit({ count: true, creates: true, skips: true, next_cursor: true });

/** Every key with its value, and every file and folder with its state. */
async function everything() {
  const { raw, sql, storageRoot } = support;
  const keys: Record<string, string> = {};
  for (const key of (await raw.keys("*")).toSorted())
    keys[key] = (await raw.dumpBuffer(key))?.toString("hex") ?? "gone";
  const files: Record<string, string> = {};
  for (const name of (await readdir(storageRoot, { recursive: true })).toSorted()) {
    const { ino, size, mtimeNs } = await stat(join(storageRoot, name), { bigint: true });
    files[name] = `${ino} ${size} ${mtimeNs}`;
  }
  const { rows } = await sql.query(
    "SELECT list_id, compacted_revision, (SELECT count(*) FROM faces.list_change c WHERE c.list_id = l.list_id) AS kept FROM faces.list l ORDER BY list_id",
  );
  return { keys, files, rows };
}

/** Silent staging, and trash and a mark past their times. */
const leftOvers = [
  [".staging", `${uuidOf(1)}.1`],
  [".trash", `${uuidOf(2)}.old`],
  [".removed", uuidOf(3)],
] as const;

/** Something of every kind that planning or retention would act on. */
async function surroundings() {
  await support.lead();
  const [stale, gone, fresh] = [await support.list(8), await support.list(3), await support.list(2)];
  const versions = [2, 4, 6].map((revision) => support.place(stale, revision));
  support.place(gone, 3);
  await support.deps.db.deleteList({ listId: gone.listId });
  const { store } = support.deps;
  const epoch = support.epoch;
  await store.noteMissingLists({ labels: [gone.listId], epoch });
  const taskId = uuidOf(900_000 + versions.length);
  await store.create({ taskId, listId: gone.listId, mode: "rebuild", trigger: "plan", epoch });
  await store.dispatch({ taskId, indexer: "http://127.0.0.1:1", epoch });
  await store.finish({ taskId, attempt: 1, epoch, error: null, endTime: new Date().toISOString() });
  await support.raw.xadd("lim:dead_letters", "1000-1", "rid", "r");
  for (const [folder, name] of leftOvers) {
    const path = join(support.storageRoot, folder, name);
    if (folder === ".removed") await writeFile(path, "");
    else await mkdir(path, { recursive: true });
    await utimes(path, 1, 1);
  }
  await support.age(2 * hourMs);
  return { stale, gone, fresh, versions };
}
const deps = () => ({ ...support.deps, keepTasks: 0, deletedListGraceMs: 0 });

describe("previews", () => {
  it("say what planning will do and when, then planning does it", async () => {
    const { stale, fresh, versions } = await surroundings();
    const plan = planAnswer.parse(await createPreviews(deps()).plan(live));
    expect(plan).toMatchObject({ due: true, last_plan_time: null });
    expect(plan.decisions.map((one) => one.list_id)).toEqual([stale.listId, fresh.listId].toSorted());
    expect(plan.decisions).toContainEqual({
      list_id: stale.listId,
      action: "create",
      mode: "update",
      reason: "stale",
      detail: expect.stringContaining("2 changes behind the list; 0 of 4 faces were removed"),
      task_id: null,
      face_count: 8,
      list_revision: 8,
      newest_index_id: versions[2],
      newest_revision: 6,
    });
    await planIfDue(deps(), { epoch: support.epoch, signal: live, sinceMs: performance.now() });
    const { tasks } = await support.deps.store.queue({ limit: 10 });
    expect(tasks.map((task) => [task.content.list_id, task.mode])).toEqual(
      plan.decisions.map((one) => [one.list_id, one.mode]),
    );
    const after = planAnswer.parse(await createPreviews(deps()).plan(live));
    expect(after).toMatchObject({ due: false, last_plan_time: expect.any(String) });
    expect(Date.parse(after.next_plan_time ?? "")).toBe(Date.parse(after.last_plan_time ?? "") + hourMs);
    expect(new Set(after.decisions.map((one) => one.reason))).toEqual(new Set(["open task"]));
    expect(after.decisions.map((one) => one.task_id)).toEqual(tasks.map((task) => task.task_id));
  });

  it("say what retention will remove, then retention does it and the next preview is empty", async () => {
    const { stale, gone, versions } = await surroundings();
    const before = retentionResponseSchema.parse(await createPreviews(deps()).retention(live));
    expect(before).toMatchObject({
      tasks: { count: 1, remove: 1, keep: 0, retention_s: 3_600 },
      missing_lists: [{ label: gone.listId, missing_since: expect.any(String) }],
      dead_letters: { count: 1, remove: 1, retention_s: 3_600 },
      garbage: { staging: 1, trash: 1, marks: 1 },
    });
    expect(before.indexes.remove).toContainEqual({
      index_id: versions[0],
      label: stale.listId,
      reason: "outdated",
    });
    expect(before.indexes.remove.map((one) => one.reason).toSorted()).toEqual(["list deleted", "outdated"]);
    expect(before.feeds.compact).toContainEqual({ list_id: stale.listId, up_to_revision: 4 });
    await createRetention(deps(), { epoch: support.epoch, signal: live }).once();
    const left = (await support.deps.storage.list()).indexes.map((index) => index.indexId);
    expect(left.toSorted()).toEqual(versions.slice(1).toSorted());
    const after = retentionResponseSchema.parse(await createPreviews(deps()).retention(live));
    expect(after).toMatchObject({
      tasks: { count: 0, remove: 0 },
      indexes: { remove: [] },
      missing_lists: [],
      dead_letters: { count: 0, remove: 0 },
      feeds: { compact: [] },
      garbage: { staging: 0, trash: 0, marks: 0 },
    });
  });

  it("change nothing, on a manager that does not lead", async () => {
    await surroundings();
    const before = await everything();
    await support.raw.set("{lim_manager_master}:epoch", support.epoch + 1);
    const led = await everything();
    expect(led).not.toEqual(before);
    const previews = createPreviews(deps());
    await previews.plan(live);
    await previews.retention(live);
    expect(await everything()).toEqual(led);
  });

  it("a label whose list is missing and not noted yet has no time yet", async () => {
    const [list] = [await support.list(2), await support.list(2)];
    support.place(list, 2);
    await support.deps.db.deleteList({ listId: list.listId });
    const { missing_lists, indexes } = await createPreviews(deps()).retention(live);
    expect(missing_lists).toEqual([{ label: list.listId, missing_since: null, remove_time: null }]);
    expect(indexes.remove).toEqual([]);
  });

  it("I10: run once for all who ask at the same time, one of each kind", async () => {
    await surroundings();
    const listStates = vi.spyOn(support.deps.db, "listStates");
    try {
      const previews = createPreviews(deps());
      const plans = await Promise.all(Array.from({ length: 20 }, () => previews.plan(live)));
      expect(listStates).toHaveBeenCalledTimes(2);
      for (const plan of plans) expect(plan).toBe(plans[0]);
      await previews.plan(live);
      expect(listStates).toHaveBeenCalledTimes(4);
    } finally {
      listStates.mockRestore();
    }
  });
});
