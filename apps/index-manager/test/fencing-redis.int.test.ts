import { createIndexerRegistry } from "@lim/coordination";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { building, epochOf, leads, planNoted } from "./fencing-support.ts";
import { type Harness, leaseTtlMs, type Manager, startHarness } from "./harness.ts";

let harness: Harness;

beforeAll(async () => {
  harness = await startHarness({ leaseTtlMs });
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

/** Asks until the answer is 200, and stays it where Redis was away, and notes every other. */
async function answersUntilBack(
  manager: Manager,
  away: boolean,
): Promise<{ status: number; errorCode: number }[]> {
  const refused: { status: number; errorCode: number }[] = [];
  const untilMs = performance.now() + (away ? awayMs + 1_000 : 0);
  await eventually("the API works again", async () => {
    const { status, body } = await manager.api("GET", "/1/queue");
    if (status !== 200) refused.push({ status, errorCode: (body as { error_code: number }).error_code });
    return status === 200 && performance.now() > untilMs ? true : undefined;
  });
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
        registry.announce({ origin, ttlMs: 1_500, signal: stop.signal }),
      );
      try {
        const env = {
          LIM_LISTS: `${listId},${second}`,
          LIM_PLANNING_PERIOD_S: "1",
          // Indexers that Redis forgot are back well before the next plan.
          LIM_PLANNING_SETTLE_MS: empty ? "2500" : "100",
          LIM_INDEXERS: "",
        };
        const managers = [await harness.manager(env), await harness.manager(env)];
        const [manager] = managers as [Manager, Manager];
        const running = await Promise.all(indexers.map(building));
        await planNoted(harness);
        const epochBefore = await epochOf(harness);

        await lose();
        const refused = await answersUntilBack(manager, away);
        if (away) expect(refused.length).toBeGreaterThan(0);
        for (const answer of refused) expect(answer).toEqual({ status: 503, errorCode: redisUnavailable });

        if (empty)
          await eventually("a later epoch", async () =>
            (await epochOf(harness)) > epochBefore ? true : undefined,
          );
        await eventually("exactly one leads", async () =>
          (await Promise.all(managers.map(leads))).filter(Boolean).length === 1 ? true : undefined,
        );
        for (const { task_id: taskId, attempt } of running)
          expect(
            await eventually("the build has its record", async () => {
              const { status } = await manager.api("GET", `/1/tasks/${taskId}`);
              return status === 200 ? harness.task(manager, taskId) : undefined;
            }),
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
