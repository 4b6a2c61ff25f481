import { planResponseSchema, retentionResponseSchema } from "@lim/contracts";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Api, startApi } from "./api-harness.ts";
import type { Manager } from "./harness.ts";

let api: Api;

beforeAll(async () => {
  api = await startApi();
});
afterEach(() => api.clear());
afterAll(() => api.close());

/** A manager process that never becomes the master: somebody else holds the lock for good. */
async function standby(env: Record<string, string> = {}): Promise<Manager> {
  await api.harness.raw.set("lim_manager_master", "someone else");
  return api.harness.manager(env);
}
const stateOf = async (listId: string) => {
  const [list] = await api.harness.db.listStates({ listIds: [listId] });
  if (!list) throw new Error("the list is gone");
  return list;
};

describe("dry runs of a manager that is not the master", () => {
  it("shows what the next plan would do with every list, and does none of it", async () => {
    const [missing, open] = [await api.harness.list(), await api.harness.list()];
    const manager = await standby();
    const created = await manager.api("POST", "/1/tasks", { list_id: open });
    const { task_id } = created.body as { task_id: string };
    const plan = planResponseSchema.parse((await manager.api("GET", "/1/plan")).body);
    expect(plan).toMatchObject({ due: true, last_plan_time: null, count: 2, creates: 1, skips: 1 });
    const of = (listId: string) => plan.decisions.find((decision) => decision.list_id === listId);
    expect(of(missing)).toMatchObject({
      action: "create",
      mode: "rebuild",
      reason: "missing",
      face_count: 5,
    });
    expect(of(open)).toMatchObject({ action: "skip", mode: null, reason: "open task", task_id });
    const tasks = await manager.api("GET", `/1/tasks?list_id=${missing}`);
    expect(tasks.body).toMatchObject({ count: 0 });
  });

  it("shows what the next retention would remove, and removes nothing", async () => {
    const label = await api.harness.list();
    const { historyId, revision } = await stateOf(label);
    const old = await api.publish({ label, revision: revision - 1, historyId });
    await api.publish({ label, revision, historyId });
    await api.ended(label);
    const manager = await standby({ LIM_KEEP_VERSIONS: "1", LIM_KEEP_TASKS: "5" });
    const retention = retentionResponseSchema.parse((await manager.api("GET", "/1/retention")).body);
    expect(retention).toMatchObject({
      tasks: { count: 1, remove: 0, keep: 5 },
      indexes: { keep_versions: 1, remove: [{ index_id: old, label, reason: "outdated" }] },
      missing_lists: [],
      dead_letters: { count: 0, remove: 0 },
    });
    expect((await manager.api("GET", "/1/indexes")).body).toMatchObject({ count: 2 });
  });
});
