import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { managerLimits } from "../src/limits.ts";
import { buildPlan, type PlanDecision } from "../src/plan.ts";
import { applyPlan, planIfDue, readPlanState } from "../src/planning.ts";
import { startMasterSupport } from "./master-support.ts";

let support: Awaited<ReturnType<typeof startMasterSupport>>;
beforeAll(async () => {
  support = await startMasterSupport();
});
afterEach(() => support.clear());
afterAll(() => support.close());

const live = new AbortController().signal;
const leadership = () => ({ epoch: support.epoch, signal: live, sinceMs: performance.now() });

/** Queries that a plan sends to Postgres. */
async function queriesOfAPlan(deps = support.deps): Promise<{ queries: number; plan: PlanDecision[] }> {
  const query = vi.spyOn(pg.Client.prototype, "query");
  try {
    const plan = buildPlan(await readPlanState(deps, live));
    return { queries: query.mock.calls.length, plan };
  } finally {
    query.mockRestore();
  }
}

describe("reading for a plan", () => {
  it("asks Postgres as often for 300 lists as for 3: three times, twice for explicit ones", async () => {
    const counts: number[] = [];
    for (const lists of [3, 297]) {
      for (const list of await support.manyLists(lists)) support.place(list, 3);
      // A new connection of the pool asks for nothing of its own; the first plan opens it all the same.
      await readPlanState(support.deps, live);
      const { queries, plan } = await queriesOfAPlan();
      expect(plan.filter((one) => one.reason === "stale" && one.mode === "update").length).toBe(plan.length);
      counts.push(plan.length, queries);
      const listIds = plan.map((one) => one.listId);
      const explicit = await queriesOfAPlan({ ...support.deps, wanted: { kind: "lists", listIds } });
      expect(explicit.queries).toBe(2);
      expect(explicit.plan).toEqual(plan);
    }
    expect(counts).toEqual([3, 3, 300, 3]);
  });

  it("counts removals since the newest index, those that it had absorbed included", async () => {
    const list = await support.list(5);
    support.place(list, 4, { removed_since_rebuild: 1 });
    const mode = async () => (await queriesOfAPlan()).plan[0];
    expect(await mode()).toMatchObject({
      mode: "update",
      cause: { kind: "removals within limits", removals: { removed: 1, of: 5 } },
    });
    await support.unlink(list.listId, 1);
    expect(await mode()).toMatchObject({
      mode: "rebuild",
      faceCount: 4,
      cause: { kind: "too many removals", removals: { removed: 2, of: 5 }, limit: 1 },
    });
  });
});

describe("creating the tasks of a plan", () => {
  it("queues them in the order of the list ids, however many are on their way at once", async () => {
    await support.lead();
    const listIds = Array.from({ length: managerLimits.parallelCreates * 3 }, () => String(randomUUID()));
    const plan = buildPlan({
      wantedListIds: listIds,
      minFaces: 1,
      lists: listIds.map((listId) => ({
        listId,
        historyId: "h",
        name: "",
        revision: 1,
        faceCount: 1,
        removedTotal: 0,
        oldestKeptRevision: 0,
      })),
      newest: new Map(),
      indexedLabels: new Set(),
      openTasks: new Map(),
      building: new Map(),
      pendingRemovals: new Map(),
      rules: support.deps.rules,
    });
    expect(await applyPlan(support.deps, plan, leadership())).toEqual({
      created: listIds.length,
      replaced: false,
    });
    const { tasks } = await support.deps.store.queue({ limit: 1_000 });
    expect(tasks.map((task) => task.content.list_id)).toEqual(listIds.toSorted());
    // Again: all have an open task, which is no fault and no second task (I3).
    expect(await applyPlan(support.deps, plan, leadership())).toEqual({ created: 0, replaced: false });
    expect((await support.deps.store.queue({ limit: 1_000 })).count).toBe(listIds.length);
  });

  it("I4: a replaced master creates nothing, ends early and leaves the time of the plan alone", async () => {
    await support.lead();
    await support.manyLists(100);
    const before = await support.metric("lim_manager_refused_transitions_total");
    const stale = { ...leadership(), epoch: support.epoch - 1 };
    expect(await planIfDue(support.deps, stale)).toBe(false);
    expect((await support.deps.store.queue({ limit: 1_000 })).count).toBe(0);
    expect(await support.deps.store.lastPlanMs()).toBeUndefined();
    const refused = (await support.metric("lim_manager_refused_transitions_total")) - before;
    expect(refused).toBeGreaterThan(0);
    expect(refused, "only what was on its way").toBeLessThanOrEqual(managerLimits.parallelCreates);
  });
});

describe("planning when it is due", () => {
  it("plans at start-up unless the last plan is younger than the period, whoever made it", async () => {
    await support.lead();
    const list = await support.list(2);
    const { store } = support.deps;
    const nowMs = await support.deps.nowMs(live);
    const stored = async (lastPlanMs: number) => {
      expect(await store.setLastPlanMs({ lastPlanMs, epoch: support.epoch })).toEqual({ ok: true });
    };
    await stored(nowMs - 60_000);
    expect(await planIfDue(support.deps, leadership())).toBe(false);
    await stored(nowMs - 3_600_000);
    expect(await planIfDue(support.deps, leadership())).toBe(true);
    const { tasks } = await store.queue({ limit: 10 });
    expect(tasks).toMatchObject([{ content: { list_id: list.listId }, trigger: "plan", mode: "rebuild" }]);
    expect(await planIfDue(support.deps, leadership())).toBe(false);
  });

  it("by cron: due where the last plan is older than the newest time that the string names", async () => {
    await support.lead();
    const { store } = support.deps;
    const nowMs = await support.deps.nowMs(live);
    const yearly = new Date(nowMs - 120_000);
    const expression = `${yearly.getUTCMinutes()} ${yearly.getUTCHours()} * * *`;
    const deps = { ...support.deps, schedule: { kind: "cron" as const, expression, timeZone: "UTC" } };
    await store.setLastPlanMs({ lastPlanMs: nowMs - 30_000, epoch: support.epoch });
    expect(await planIfDue(deps, leadership())).toBe(false);
    await store.setLastPlanMs({ lastPlanMs: nowMs - 600_000, epoch: support.epoch });
    expect(await planIfDue(deps, leadership())).toBe(true);
  });

  it("I9: without any last plan waits until indexers had the time to register", async () => {
    await support.lead();
    const deps = { ...support.deps, settleMs: 3_600_000 };
    expect(await planIfDue(deps, leadership())).toBe(false);
    const settled = { ...leadership(), sinceMs: performance.now() - 3_600_001 };
    expect(await planIfDue(deps, settled)).toBe(true);
  });

  it("shows by gauge what the last plan decided, and forgets what the one before did", async () => {
    await support.lead();
    const list = await support.list(2);
    await support.list(3);
    support.place(list, 2);
    const gauge = (action: string, reason: string) =>
      support.metric("lim_manager_plan_lists", { action, reason });
    expect(await planIfDue(support.deps, leadership())).toBe(true);
    expect(await gauge("create", "missing")).toBe(1);
    expect(await gauge("skip", "unchanged")).toBe(1);
    await support.raw.del("{lim_manager_master}:last_plan");
    expect(await planIfDue(support.deps, leadership())).toBe(true);
    expect(await gauge("create", "missing")).toBe(0);
    expect(await gauge("skip", "open task")).toBe(1);
  });
});
