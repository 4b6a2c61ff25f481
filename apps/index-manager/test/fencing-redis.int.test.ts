import { createIndexerRegistry } from "@lim/coordination";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { building, leads, planNoted, takeoverLimitMs } from "./fencing-support.ts";
import { type Harness, leaseTtlMs, type Manager, startHarness } from "./harness.ts";

let harness: Harness;

beforeAll(async () => {
  harness = await startHarness();
});
afterEach(() => harness.clear());
afterAll(() => harness.close());

/** Longer than a lease, so that it is over before Redis is back. */
const awayMs = leaseTtlMs + 800;
const redisUnavailable = 26021;

async function redisPid(): Promise<number> {
  const pid = /process_id:(\d+)/.exec(await harness.raw.info("server"))?.[1];
  if (pid === undefined) throw new Error("Redis does not tell its process id");
  return Number(pid);
}

async function pausedProcess(): Promise<void> {
  const pid = await redisPid();
  process.kill(pid, "SIGSTOP");
  setTimeout(() => process.kill(pid, "SIGCONT"), awayMs);
}

interface Loss {
  name: string;
  /** Whether requests must have met a Redis that is away. */
  away: boolean;
  /** Whether what Redis held is gone. */
  empty: boolean;
  lose(): Promise<unknown>;
}

const losses: Loss[] = [
  { name: "FLUSHALL", away: false, empty: true, lose: () => harness.raw.flushall() },
  { name: "SCRIPT FLUSH", away: false, empty: false, lose: () => harness.raw.script("FLUSH") },
  { name: "a restart without persistence", away: false, empty: true, lose: () => harness.restartRedis() },
  {
    name: "CLIENT PAUSE for longer than a lease",
    away: true,
    empty: false,
    lose: () => harness.raw.call("CLIENT", "PAUSE", String(awayMs), "ALL"),
  },
  {
    name: "a server process paused for longer than a lease",
    away: true,
    empty: false,
    lose: pausedProcess,
  },
];

/** Asks until the answer is 200 and stays it, and notes every other. */
async function answersUntilBack(manager: Manager): Promise<{ status: number; errorCode: number }[]> {
  const refused: { status: number; errorCode: number }[] = [];
  const untilMs = performance.now() + awayMs + 1_000;
  await eventually(
    "the API works again",
    async () => {
      const { status, body } = await manager.api("GET", "/1/queue");
      if (status !== 200) refused.push({ status, errorCode: (body as { error_code: number }).error_code });
      return status === 200 && performance.now() > untilMs ? true : undefined;
    },
    { timeoutMs: 20_000 },
  );
  return refused;
}

describe("two managers with a build running, and Redis", () => {
  it.each(losses)(
    "I9: $name: the build is kept, one leads afterwards, nothing is built twice",
    async ({ away, empty, lose }) => {
      const [listId, second] = [await harness.list(), await harness.list()];
      const indexers = [await harness.indexer(), await harness.indexer()];
      const stop = new AbortController();
      const registry = createIndexerRegistry({ redis: harness.redis });
      const announced = indexers.map(({ origin }) =>
        registry.announce({ origin, ttlMs: 3_000, signal: stop.signal }),
      );
      try {
        const env = {
          LIM_LISTS: `${listId},${second}`,
          LIM_PLANNING_PERIOD_S: "1",
          LIM_PLANNING_SETTLE_MS: "1500",
          LIM_INDEXERS: "",
        };
        const managers = [await harness.manager(env), await harness.manager(env)];
        const [manager] = managers as [Manager, Manager];
        const running = await Promise.all(indexers.map(building));
        await planNoted(harness);
        const epochBefore = BigInt((await harness.raw.get("{lim_manager_master}:epoch")) ?? "0");

        await lose();
        const refused = await answersUntilBack(manager);
        if (away) expect(refused.length).toBeGreaterThan(0);
        for (const answer of refused) expect(answer).toEqual({ status: 503, errorCode: redisUnavailable });

        await eventually(
          "exactly one leads",
          async () =>
            (await Promise.all(managers.map(leads))).filter(Boolean).length === 1 ? true : undefined,
          { timeoutMs: takeoverLimitMs },
        );
        if (empty)
          expect(BigInt((await harness.raw.get("{lim_manager_master}:epoch")) ?? "0")).toBeGreaterThan(
            epochBefore,
          );
        for (const { task_id: taskId, attempt } of running)
          expect(
            await eventually(
              "the build has its record",
              async () => {
                const { status } = await manager.api("GET", `/1/tasks/${taskId}`);
                return status === 200 ? harness.task(manager, taskId) : undefined;
              },
              { timeoutMs: 15_000 },
            ),
          ).toMatchObject({ status: "indexing", attempt });
        for (const indexer of indexers) await indexer.succeed();
        for (const { task_id: taskId } of running) await harness.untilStatus(manager, taskId, "success");
        const plannedMs = await planNoted(harness);
        await eventually("one more plan", async () =>
          ((await harness.store.lastPlanMs()) ?? 0) > plannedMs ? true : undefined,
        );
        expect(indexers.map((indexer) => indexer.builds.length)).toEqual([1, 1]);
        expect(indexers.flatMap((indexer) => indexer.stops)).toEqual([]);
        expect((await harness.store.queue({ limit: 10 })).count).toBe(0);
        expect((await harness.storage.list({ label: listId })).indexes).toHaveLength(1);
      } finally {
        stop.abort();
        await Promise.all(announced);
      }
    },
  );
});
