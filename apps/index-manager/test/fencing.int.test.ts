import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  building,
  coordinationState,
  createCast,
  epochOf,
  type Halt,
  haltAt,
  leads,
  noPlans,
  planNoted,
  requestTask,
  wake,
} from "./fencing-support.ts";
import { type Harness, leaseTtlMs, type Manager, startHarness } from "./harness.ts";

let harness: Harness;
const { gated, first: firstMaster, successor, clear } = createCast(() => harness);
const request = requestTask;

beforeAll(async () => {
  harness = await startHarness({ leaseTtlMs });
});
afterEach(clear);
afterAll(() => harness.close());

describe("a paused master that wakes beside its successor", () => {
  it.each([
    { flush: false, lease: "1500", text: "past its lease" },
    { flush: true, lease: "1500", text: "past its lease, Redis emptied meanwhile" },
    { flush: true, lease: "15000", text: "within its lease, which Redis has forgotten with everything else" },
  ])("I4: $text: changes nothing and steps down", async ({ flush, lease }) => {
    const [atWork, kept] = [await harness.list(), await harness.list()];
    const first = await harness.indexer();
    const second = await harness.indexer();
    const old = await firstMaster({
      LIM_LISTS: atWork,
      LIM_KEEP_VERSIONS: "1",
      LIM_RETENTION_PERIOD_MS: "100",
      LIM_MANAGER_LEASE_TTL_MS: lease,
    });
    const holder = await firstBusy(first, second);
    const { task_id: running } = await building(holder);
    const free = holder === first ? second : first;
    await planNoted(harness);
    const epochBefore = await epochOf(harness);

    old.process.kill("SIGSTOP");
    if (flush) await harness.raw.flushall();
    const next = await successor({ LIM_LISTS: atWork, LIM_KEEP_VERSIONS: "9" });
    await planNoted(harness);
    const epoch = await epochOf(harness);
    expect(epoch).toBeGreaterThan(epochBefore);
    // What the old one would do if it still could: remove an index, dispatch, finish, plan.
    for (let version = 1; version <= 2; version++) {
      const taskId = await request(next, kept);
      await building(free);
      await free.succeed();
      await harness.untilStatus(next, taskId, "success");
    }
    await request(next, await harness.list());
    await building(free);
    await request(next, await harness.list());
    await eventually("the running build is on record", async () =>
      (await next.api("GET", `/1/tasks/${running}`)).status === 200 ? true : undefined,
    );
    const before = await coordinationState(harness);

    await wake(old);
    expect(await coordinationState(harness)).toEqual(before);
    expect(await epochOf(harness)).toBe(epoch);
    expect(await leads(next)).toBe(true);
    expect(await leads(old)).toBe(false);
    expect([...holder.stops, ...free.stops]).toEqual([]);
    expect(holder.builds).toHaveLength(1);
    expect(free.builds).toHaveLength(3);
    expect((await harness.storage.list({ label: kept })).indexes).toHaveLength(2);
  });

  it("I3 I4: in the middle of a plan's creates: every list has one task, and the plan of its successor counts", async () => {
    const lists = new Set<string>();
    for (let i = 0; i < 20; i++) lists.add(await harness.list());
    const armed = Promise.withResolvers<Halt>();
    const old = await gated({}, (early) =>
      armed.resolve(haltAt(early, "task_create", { signal: "SIGSTOP", fate: "hold", nth: 8 })),
    );
    const halt = await armed.promise;
    await halt.reached;
    const next = await successor();
    const planMs = await planNoted(harness);
    const before = await coordinationState(harness);
    halt.release();
    await wake(old);
    expect(await coordinationState(harness)).toEqual(before);
    expect(await harness.store.lastPlanMs()).toBe(planMs);
    const { tasks, count } = await harness.store.queue({ limit: 100 });
    expect(count).toBe(20);
    expect(new Set(tasks.map((task) => task.content.list_id))).toEqual(lists);
    expect(await leads(next)).toBe(true);
  });

  it("I3 I4: between recording a dispatch and sending it: no second build of the task begins", async () => {
    const [never, at] = [await harness.indexer(), await harness.indexer()];
    const listId = await harness.list();
    const old = await firstMaster({ ...noPlans, LIM_INDEXERS: never.origin });
    const halt = haltAt(old, "task_dispatch", { signal: "SIGSTOP", fate: "forward" });
    const taskId = await request(old, listId).catch(() => "");
    await halt.reached;
    const next = await successor({ ...noPlans, LIM_INDEXERS: at.origin });
    expect(await building(at)).toMatchObject({ list_id: listId, attempt: 2 });
    const before = await coordinationState(harness);
    await wake(old);
    expect(never.builds).toEqual([]);
    expect(await coordinationState(harness)).toEqual(before);
    await at.succeed();
    const { task_id } = at.builds[0] ?? { task_id: taskId };
    expect(await harness.untilStatus(next, task_id, "success")).toMatchObject({ attempt: 2 });
    expect(at.builds).toHaveLength(1);
  });

  it("I4: in the middle of retention, past its lease: the index that a new task builds upon stays", async () => {
    const indexer = await harness.indexer();
    const listId = await harness.list();
    const old = await firstMaster({
      ...noPlans,
      LIM_KEEP_VERSIONS: "1",
      LIM_RETENTION_PERIOD_MS: "300",
    });
    const made = await request(old, listId);
    await building(indexer);
    await indexer.succeed();
    await harness.untilStatus(old, made, "success");
    await planNoted(harness);
    await haltAt(old, "task_open_of_labels", { signal: "SIGSTOP", fate: "forward", nth: 2 }).reached;
    const next = await successor({ ...noPlans, LIM_KEEP_VERSIONS: "9" });
    const second = await request(next, listId);
    await building(indexer);
    await indexer.succeed();
    await harness.untilStatus(next, second, "success");
    await request(next, listId);
    await building(indexer);
    await wake(old);
    const { indexes } = await harness.storage.list({ label: listId });
    expect(indexes.map((index) => index.indexId).toSorted()).toEqual([made, second].toSorted());
  });
});

describe("a word of the old master that reaches Redis after its successor's", () => {
  interface Scene {
    script: string;
    /** Brings the master to the script; the list has a build at the indexer. */
    provoke(): Promise<void>;
    /** The successor has done the same. */
    done(next: Manager): Promise<void>;
  }
  it.each(["task_finish", "task_requeue", "task_progress", "plan_note", "task_dispatch"])(
    "I4: %s is refused and changes nothing",
    async (script) => {
      const indexer = await harness.indexer();
      const listId = await harness.list();
      const old = await firstMaster(noPlans);
      const scenes: Record<string, Omit<Scene, "script">> = {
        task_finish: {
          provoke: () => indexer.succeed(),
          done: async (next) => void (await harness.untilStatus(next, taskId, "success")),
        },
        task_requeue: {
          provoke: async () => indexer.restart(),
          done: async () =>
            void (await eventually("a second attempt", () =>
              indexer.current()?.attempt === 2 ? true : undefined,
            )),
        },
        task_progress: {
          provoke: async () =>
            indexer.progress({ phase: "build", done: 1, total: 3, rate_per_s: null, eta_s: null }),
          done: async (next) => {
            await eventually("followed", async () =>
              (await harness.task(next, taskId)).progress?.done === 1 ? true : undefined,
            );
            indexer.progress({ phase: "build", done: 2, total: 3, rate_per_s: null, eta_s: null });
            await eventually("followed on", async () =>
              (await harness.task(next, taskId)).progress?.done === 2 ? true : undefined,
            );
          },
        },
        plan_note: {
          provoke: async () => void (await harness.raw.del("{lim_manager_master}:last_plan")),
          done: async () => void (await planNoted(harness)),
        },
        task_dispatch: {
          provoke: async () => {},
          done: async () => void (await building(indexer)),
        },
      };
      const scene = scenes[script];
      if (!scene) throw new Error(`no scene for ${script}`);
      await planNoted(harness);
      let taskId = "";
      if (script !== "task_dispatch") {
        taskId = await request(old, listId);
        await building(indexer);
      }
      const halt = haltAt(old, script, { signal: "SIGSTOP", fate: "hold" });
      if (script === "task_dispatch") void request(old, listId).catch(() => undefined);
      await scene.provoke();
      await halt.reached;
      const next = await successor(noPlans);
      await scene.done(next);
      const builds = indexer.builds.length;
      await eventually("every record has settled", async () => {
        const one = JSON.stringify(await coordinationState(harness));
        return one === JSON.stringify(await coordinationState(harness)) ? true : undefined;
      });
      const before = await coordinationState(harness);
      halt.release();
      await wake(old);
      expect(await coordinationState(harness)).toEqual(before);
      expect(indexer.builds).toHaveLength(builds);
      expect(indexer.stops).toEqual([]);
      expect(await leads(next)).toBe(true);
    },
  );
});

async function firstBusy<T extends { current(): unknown }>(first: T, second: T): Promise<T> {
  return eventually("an indexer is building", () =>
    first.current() ? first : second.current() ? second : undefined,
  );
}
