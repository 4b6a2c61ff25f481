import { eventually } from "@lim/testkit";
import pg from "pg";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Harness, startHarness } from "./harness.ts";
import type { TestIndexer } from "./test-indexer.ts";

let harness: Harness;

beforeAll(async () => {
  harness = await startHarness();
});
afterEach(() => harness.clear());
afterAll(() => harness.close());

const building = (indexer: TestIndexer) => eventually("the indexer has a build", () => indexer.current());

/** As a backup from before the last changes would be: fewer revisions, and a history of its own. */
async function restoreBackup(listId: string, revision: number): Promise<void> {
  const sql = new pg.Client({ connectionString: harness.databaseUrl });
  await sql.connect();
  try {
    await sql.query("DELETE FROM faces.list_change WHERE list_id = $1 AND revision > $2", [listId, revision]);
  } finally {
    await sql.end();
  }
  await harness.db.newHistory();
}

it.each([1, 5])(
  "I1: after a restore a list is rebuilt once, and its index outlives the old history's (%i kept)",
  async (keepVersions) => {
    const listId = await harness.list(5);
    const indexer = await harness.indexer();
    const manager = await harness.manager({
      LIM_PLANNING_PERIOD_S: "1",
      LIM_RETENTION_PERIOD_MS: "100",
      LIM_KEEP_VERSIONS: String(keepVersions),
    });
    const before = await building(indexer);
    await indexer.succeed();
    await harness.untilStatus(manager, before.task_id, "success");

    await restoreBackup(listId, 3);
    const after = await building(indexer);
    expect(after).toMatchObject({ list_id: listId, mode: "rebuild" });
    await indexer.succeed();
    await harness.untilStatus(manager, after.task_id, "success");

    const kept = keepVersions === 1 ? [after.task_id] : [after.task_id, before.task_id];
    await eventually("retention has removed what is past it, never the new index", async () => {
      const { indexes } = await harness.storage.list({ label: listId });
      return indexes
        .map((index) => index.indexId)
        .toSorted()
        .join() === kept.toSorted().join()
        ? true
        : undefined;
    });
    const planned = async () => (await harness.store.lastPlanMs()) ?? 0;
    const from = await planned();
    await eventually("two more plans", async () => ((await planned()) > from + 1_500 ? true : undefined));
    expect(indexer.builds).toHaveLength(2);
  },
);
