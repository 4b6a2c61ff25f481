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
  harness = await startHarness();
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

const building = (indexer: TestIndexer) =>
  eventually("the indexer has a build", () => indexer.current(), { timeoutMs: 15_000, intervalMs: 20 });

describe("two managers", () => {
  it("I4 I9: the survivor of a killed master takes over within the lease and a second and goes on with its build", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const managers = [
      await harness.manager({ LIM_LISTS: listId }),
      await harness.manager({ LIM_LISTS: listId }),
    ];
    const { task_id: taskId } = await building(indexer);
    const { master, other } = await masterOf(managers);
    const killedMs = performance.now();
    master.process.kill("SIGKILL");
    await eventually("the other leads", async () => ((await leads(other)) ? true : undefined), {
      timeoutMs: leaseTtlMs + 5_000,
      intervalMs: 10,
    });
    const takeoverMs = performance.now() - killedMs;
    expect(takeoverMs).toBeLessThan(leaseTtlMs + 1_000);
    indexer.progress({ phase: "verify", done: 1, total: 2, rate_per_s: null, eta_s: null });
    await eventually("the new master follows", async () =>
      (await harness.task(other, taskId)).progress?.phase === "verify" ? true : undefined,
    );
    await indexer.succeed();
    expect(await harness.untilStatus(other, taskId, "success")).toMatchObject({ attempt: 1 });
    expect(indexer.builds).toHaveLength(1);
  });

  it("I4: a master that was paused past its lease changes nothing when it wakes", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const managers = [
      await harness.manager({ LIM_LISTS: listId }),
      await harness.manager({ LIM_LISTS: listId }),
    ];
    const { task_id: taskId } = await building(indexer);
    const { master, other } = await masterOf(managers);
    master.process.kill("SIGSTOP");
    try {
      await eventually("the other leads", async () => ((await leads(other)) ? true : undefined));
    } finally {
      master.process.kill("SIGCONT");
    }
    await master.process.waitForLine(/Is no longer master/, { timeoutMs: 10_000 });
    await indexer.succeed();
    expect(await harness.untilStatus(other, taskId, "success")).toMatchObject({ attempt: 1 });
    expect(indexer.builds).toHaveLength(1);
    expect(indexer.stops).toHaveLength(0);
    expect(await leads(other)).toBe(true);
  });

  it("I9: after FLUSHALL a running build is adopted and finished, and its list is not built twice", async () => {
    const listId = await harness.list();
    const indexer = await harness.indexer();
    const stop = new AbortController();
    const announced = createIndexerRegistry({ redis: harness.redis }).announce({
      origin: indexer.origin,
      ttlMs: 3_000,
      signal: stop.signal,
    });
    try {
      const env = {
        LIM_INDEXERS: "",
        LIM_PLANNING_SETTLE_MS: "1500",
        LIM_PLANNING_PERIOD_S: "1",
        LIM_LISTS: listId,
      };
      const managers = [await harness.manager(env), await harness.manager(env)];
      const { task_id: taskId, attempt } = await building(indexer);
      await harness.raw.flushall();
      const [manager] = managers as [Manager, Manager];
      const adopted = await eventually(
        "the build is adopted",
        async () => {
          const { status } = await manager.api("GET", `/1/tasks/${taskId}`);
          return status === 200 ? harness.task(manager, taskId) : undefined;
        },
        { timeoutMs: 15_000 },
      );
      expect(adopted).toMatchObject({ status: "indexing", attempt, content: { list_id: listId } });
      await eventually("a plan after the loss", async () => (await harness.store.lastPlanMs()) ?? undefined, {
        timeoutMs: 15_000,
      });
      await indexer.succeed();
      await harness.untilStatus(manager, taskId, "success");
      const before = (await harness.store.lastPlanMs()) ?? 0;
      await eventually("one more plan", async () =>
        ((await harness.store.lastPlanMs()) ?? 0) > before ? true : undefined,
      );
      expect((await harness.store.find({}, { limit: 10 })).tasks).toHaveLength(1);
      expect(indexer.builds).toHaveLength(1);
    } finally {
      stop.abort();
      await announced;
    }
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
