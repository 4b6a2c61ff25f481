import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import {
  createCast,
  type GatedManager,
  haltAt,
  leads,
  noPlans,
  requestTask,
  untilLeads,
  wake,
} from "./fencing-support.ts";
import { type Harness, leaseTtlMs, startHarness } from "./harness.ts";
import type { TestIndexer } from "./test-indexer.ts";

let harness: Harness;
const cast = createCast(() => harness);

beforeAll(async () => {
  harness = await startHarness({ leaseTtlMs });
});
afterEach(cast.clear);
afterAll(() => harness.close());

const listsPerRound = 6;
const buildMs = 40;

/** Publishes each build a moment after it was taken; the ids of those that it published. */
function buildsByItself(indexer: TestIndexer, faults: string[]): string[] {
  const published: string[] = [];
  indexer.onBuild(() => {
    const build = indexer.current();
    setTimeout(async () => {
      // Stopped meanwhile, or given another build.
      if (!build || indexer.current() !== build) return;
      await indexer.succeed().then(
        () => published.push(build.task_id),
        (error: unknown) => faults.push(String(error)),
      );
    }, buildMs);
  });
  return published;
}

it("I3 I4: two masters in turn, each paused at a step and woken later: every task is built once", async () => {
  const faults: string[] = [];
  const published = [await harness.indexer(), await harness.indexer()].map((indexer) =>
    buildsByItself(indexer, faults),
  );
  const managers = [await cast.gated(noPlans), await cast.gated(noPlans)];
  const tasks: string[] = [];
  for (const script of ["task_dispatch", "task_finish"]) {
    const master = await eventually("one leads", async () => {
      const flags = await Promise.all(managers.map(leads));
      return flags.filter(Boolean).length === 1 ? managers[flags.indexOf(true)] : undefined;
    });
    const other = managers.find((manager) => manager !== master) as GatedManager;
    const halt = haltAt(master, script, { signal: "SIGSTOP", fate: "hold", nth: 2 });
    for (let i = 0; i < listsPerRound; i++) tasks.push(await requestTask(other, await harness.list()));
    await halt.reached;
    await untilLeads(other);
    halt.release();
    await wake(master);
    master.gate.onCommand(undefined);
  }
  const [manager] = managers as [GatedManager, GatedManager];
  for (const taskId of tasks) await harness.untilStatus(manager, taskId, "success");
  expect(faults).toEqual([]);
  expect(published.flat().toSorted()).toEqual(tasks.toSorted());
});
