import { defaults } from "@lim/contracts";
import { createIndexerRegistry } from "@lim/coordination";
import { Registry } from "@lim/service-kit";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createIndexerClient } from "../src/indexer-client.ts";
import { createLookup } from "../src/lookup.ts";
import { createManagerMetrics } from "../src/metrics.ts";
import { type Harness, leaseTtlMs, type Manager, startHarness } from "./harness.ts";
import type { TestIndexer } from "./test-indexer.ts";

let harness: Harness;

beforeAll(async () => {
  harness = await startHarness({ leaseTtlMs });
});
afterEach(() => harness.clear());
afterAll(() => harness.close());

async function leads(manager: Manager): Promise<boolean> {
  return ((await manager.api("GET", "/1/master")).body as { is_master: boolean }).is_master;
}

async function masterOf(managers: Manager[]): Promise<{ master: Manager; other: Manager }> {
  return eventually("one master", async () => {
    const flags = await Promise.all(managers.map(leads));
    if (flags.filter(Boolean).length !== 1) return undefined;
    const [master, other] = flags[0] ? managers : managers.toReversed();
    return master && other ? { master, other } : undefined;
  });
}

const building = (indexer: TestIndexer) => eventually("the indexer has a build", () => indexer.current());

describe("two managers", () => {
  it("I4 I9: the survivor of a killed master takes over and goes on with its build", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const managers = [
      await harness.manager({ LIM_LISTS: listId }),
      await harness.manager({ LIM_LISTS: listId }),
    ];
    const { task_id: taskId } = await building(indexer);
    const { master, other } = await masterOf(managers);
    master.process.kill("SIGKILL");
    await eventually("the other leads", async () => ((await leads(other)) ? true : undefined));
    indexer.progress({ phase: "verify", done: 1, total: 2, rate_per_s: null, eta_s: null });
    await eventually("the new master follows", async () =>
      (await harness.task(other, taskId)).progress?.phase === "verify" ? true : undefined,
    );
    await indexer.succeed();
    expect(await harness.untilStatus(other, taskId, "success")).toMatchObject({ attempt: 1 });
    expect(indexer.builds).toHaveLength(1);
  });
});

describe("a lookup of a replaced master", () => {
  it("I4: dispatches nothing, finishes nothing, stops at nothing", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const manager = await harness.manager({ LIM_LISTS: listId });
    const { task_id: taskId } = await building(indexer);
    const other = await harness.indexer();
    const created = await manager.api("POST", "/1/tasks", { list_id: await harness.list() });
    expect(created.status).toBe(201);
    const registry = new Registry();
    const warned: string[] = [];
    const stale = createLookup(
      {
        store: harness.store,
        storage: harness.storage,
        registry: createIndexerRegistry({ redis: harness.redis }),
        client: createIndexerClient(quiet()),
        metrics: createManagerMetrics(registry),
        log: { ...quiet(), warn: (_fields, message) => warned.push(message) },
        staticOrigins: [indexer.origin, other.origin],
        retryBackoffMs: 0,
        nowMs: async () => Date.now(),
        build: {
          engine: defaults.engine,
          params: { m: 16, ef_construction: 200 },
          descriptor_version: 1,
          dim: 8,
        },
      },
      { epoch: 1, signal: new AbortController().signal },
    );
    indexer.progress({ phase: "build", done: 1, total: 2, rate_per_s: null, eta_s: null });
    await stale.once();
    expect(other.builds).toHaveLength(0);
    expect(warned).toContain("a stale word was refused");
    expect(await registry.getSingleMetricAsString("lim_manager_refused_transitions_total")).toMatch(
      /transition="dispatch",refusal="stale_epoch"\} 1/,
    );
    expect(await harness.task(manager, taskId)).toMatchObject({ status: "indexing", attempt: 1 });
  });
});

function quiet() {
  return { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
}
