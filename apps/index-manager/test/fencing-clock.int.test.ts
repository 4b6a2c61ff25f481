import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { building, epochOf, leads, planNoted, untilLeads } from "./fencing-support.ts";
import { type Harness, startHarness } from "./harness.ts";

/** Long enough for a busy machine to renew it. */
const watchedLeaseTtlMs = 3_000;
let harness: Harness;

beforeAll(async () => {
  harness = await startHarness({ leaseTtlMs: watchedLeaseTtlMs });
});
afterEach(() => harness.clear());
afterAll(() => harness.close());

const shiftedClock = import.meta.resolve("@lim/testkit").replace(/index\.js$/, "shifted-clock.js");
const dayMs = 86_400_000;
/** Renewals and deadlines have had their turn by then. */
const watchedMs = 1.2 * watchedLeaseTtlMs;
/** Between a moment of this process and the same in Redis, requests and polls included. */
const toleranceMs = 60_000;

describe("a master whose wall clock jumps", () => {
  it.each([
    { jump: "a day ahead", shiftMs: dayMs },
    { jump: "a day back", shiftMs: -dayMs },
  ])(
    "I4: $jump: goes on leading, plans when it was due, and gives tasks the right times",
    async ({ shiftMs }) => {
      const listId = await harness.list();
      const indexer = await harness.indexer();
      const env = { LIM_LISTS: listId, LIM_PLANNING_PERIOD_S: "3600" };
      const manager = await harness.manager({
        ...env,
        NODE_OPTIONS: `--import=${shiftedClock}`,
        LIM_TEST_CLOCK_SHIFTS_MS: String(shiftMs),
      });
      await untilLeads(manager);
      const other = await harness.manager(env);
      const planned = await building(indexer);
      const plannedMs = await planNoted(harness);
      const epoch = await epochOf(harness);

      manager.process.kill("SIGUSR2");
      await manager.process.waitForLine(/wall clock shifted/, { timeoutMs: 60_000 });
      await indexer.succeed();
      const ended = await harness.untilStatus(manager, planned.task_id, "success");
      const asked = await manager.api("POST", "/1/tasks", { list_id: await harness.list() });
      expect(asked.status).toBe(201);
      const build = await building(indexer);
      await indexer.succeed();
      const task = await harness.untilStatus(other, build.task_id, "success");
      for (const time of [ended.end_time, task.create_time, task.start_time, task.end_time])
        expect(Math.abs(Date.parse(time ?? "") - Date.now())).toBeLessThan(toleranceMs);

      // The change makes a plan create a task, if there were one.
      await harness.db.putFaces({
        listIds: [listId],
        descriptorVersion: 1,
        faces: [
          { faceId: "00000000-0000-4000-8000-0000000fffff", vector: Float32Array.of(1, 0, 0, 0, 0, 0, 0, 0) },
        ],
      });
      const untilMs = performance.now() + watchedMs;
      await eventually(
        "it leads all the time",
        async () => {
          if (!(await leads(manager)) || (await leads(other))) throw new Error("the leadership moved");
          return performance.now() > untilMs ? true : undefined;
        },
        { timeoutMs: watchedMs + 30_000, intervalMs: 50 },
      );
      expect(await epochOf(harness)).toBe(epoch);
      expect(await harness.store.lastPlanMs()).toBe(plannedMs);
      expect(indexer.builds).toHaveLength(2);
      expect((await harness.store.queue({ limit: 10 })).count).toBe(0);
      expect(manager.process.lines.filter((line) => line.includes("Is no longer master"))).toEqual([]);
    },
  );
});
