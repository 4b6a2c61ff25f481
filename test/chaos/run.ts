import { setTimeout as sleep } from "node:timers/promises";
import { connectRedis, createTaskStore, defaultKeyNames, type TaskStore } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, newestOf, openIndexStorage } from "@lim/index-storage";
import { eventually, type Servers, type TestRedis } from "@lim/testkit";
import { Redis } from "ioredis";
import { chooseKind, type FailOver, type FaultKind, failOver, faultKinds } from "./faults.ts";
import { createFeeder } from "./feeder.ts";
import { evidenceOf } from "./findings.ts";
import { createFleet, type Fleet } from "./fleet.ts";
import { createLedger, type Ledger, openTasks } from "./ledger.ts";
import { type Peer, startPeer } from "./peer.ts";
import { chancesOf } from "./random.ts";

export interface ChaosOptions {
  failovers: number;
  seed: number;
  leaseTtlMs: number;
  /** A take-over may take this long beyond the lease (default 1 s). */
  takeoverSlackMs?: number;
  maxMinutes: number;
  flushEvery: number;
  restartEvery: number;
  managers: number;
  peers: number;
  lists: number;
  log?: (text: string) => void;
}

export interface Spread {
  count: number;
  median_ms: number;
  p99_ms: number;
  max_ms: number;
}

export interface ChaosReport {
  ok: boolean;
  seed: number;
  lease_ms: number;
  allowed_takeover_ms: number;
  failovers: number;
  wanted_failovers: number;
  seconds: number;
  takeover: Spread;
  takeover_by_fault: Partial<Record<FaultKind, Spread>>;
  figures: Record<string, number>;
  answers: Record<string, number>;
  violations: string[];
  /** What the managers logged of the tasks and lists that the violations name. */
  evidence: string[];
}

export const chaosDefaults: ChaosOptions = {
  failovers: 100,
  seed: 1,
  leaseTtlMs: 1_500,
  maxMinutes: 15,
  flushEvery: 7,
  restartEvery: 19,
  managers: 3,
  peers: 4,
  lists: 10,
};

const defaultTakeoverSlackMs = 1_000;
const dim = 8;
const descriptorVersion = 1;
const observeEveryMs = 100;
const restLimitMs = 90_000;

/** Runs managers, peers and a feeder, and makes the master fail until the wanted number of fail-overs has happened. */
export async function runChaos(
  world: { servers: Servers; redis: TestRedis; db: FacesDb; storageRoot: string },
  options: ChaosOptions,
): Promise<ChaosReport> {
  const startMs = performance.now();
  const { redis, db } = world;
  const storage = await openIndexStorage({ root: world.storageRoot });
  const connection = connectRedis({ url: redis.url, name: "chaos" });
  const raw = new Redis(redis.url);
  raw.on("error", () => {});
  const store = createTaskStore({ redis: connection, keys: defaultKeyNames });
  const ledger = createLedger();
  const peers: Peer[] = [];
  for (let i = 0; i < options.peers; i++)
    peers.push(await startPeer({ storage, db, chances: chancesOf(options.seed, 1, i), witness: ledger }));
  const fleet = createFleet(world.servers, options.managers, managerEnv(world.storageRoot, options, peers));
  const stop = new AbortController();
  const failOvers: FailOver[] = [];
  let answers: ReadonlyMap<string, number> = new Map();
  const background: Promise<void>[] = [];
  try {
    const chances = chancesOf(options.seed, 2);
    const feeder = await createFeeder({
      db,
      chances: chancesOf(options.seed, 3),
      ledger,
      dim,
      descriptorVersion,
      lists: options.lists,
      managers: fleet.urls,
    });
    answers = feeder.answers;
    await fleet.untilSteady();
    background.push(feeder.run(stop.signal), observe(store, ledger, stop.signal));
    const plan = {
      leaseTtlMs: options.leaseTtlMs,
      flushEvery: options.flushEvery,
      restartEvery: options.restartEvery,
    };
    const untilMs = startMs + options.maxMinutes * 60_000;
    while (failOvers.length < options.failovers && performance.now() < untilMs) {
      const kind = chooseKind(failOvers.length + 1, chances, plan);
      const done = await failOver({ fleet, redis, raw, store, ledger, chances, plan }, kind);
      failOvers.push(done);
      options.log?.(
        `${failOvers.length}/${options.failovers} ${kind}: ${done.takeoverMs.toFixed(0)} ms, ${ledger.violations.length} violations`,
      );
    }
    await fleet.untilSteady();
    stop.abort();
    await Promise.all(background);
    for (const peer of peers) peer.calm();
    await untilAtRest({ store, storage, db, ledger });
  } catch (thrown) {
    ledger.violation(
      `the run ended early: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : thrown}`,
    );
  } finally {
    stop.abort();
    await Promise.allSettled(background);
    await fleet.stop();
    await Promise.allSettled(peers.map((peer) => peer.close()));
    raw.disconnect();
    await connection.close();
  }
  const seconds = (performance.now() - startMs) / 1_000;
  return reportOf(options, { failOvers, ledger, answers, seconds, fleet });
}

function managerEnv(
  storageRoot: string,
  options: ChaosOptions,
  peers: readonly Peer[],
): Readonly<Record<string, string>> {
  return {
    LIM_STORAGE_ROOT: storageRoot,
    LIM_MANAGER_LEASE_TTL_MS: String(options.leaseTtlMs),
    LIM_LOOKUP_PERIOD_MS: "100",
    LIM_PLANNING_PERIOD_S: "1",
    // Longer than a dispatch is on its way to a slow peer: after a loss of Redis nothing else tells of it.
    LIM_PLANNING_SETTLE_MS: "1500",
    LIM_RETRY_BACKOFF_MS: "200",
    LIM_RETENTION_PERIOD_MS: "1000",
    LIM_KEEP_VERSIONS: "2",
    LIM_MIN_INDEXING_LIST_SIZE: "1",
    LIM_DESCRIPTOR_DIM: String(dim),
    LIM_DESCRIPTOR_VERSION: String(descriptorVersion),
    LIM_INDEXERS: peers.map((peer) => peer.origin).join(","),
  };
}

async function observe(store: TaskStore, ledger: Ledger, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    // Redis may be away: the next look sees what came of it.
    await ledger.observe(store).catch(() => undefined);
    await sleep(observeEveryMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Faults and changes are over: every task ends, and every list gets an index of its newest revision. */
async function untilAtRest(deps: {
  store: TaskStore;
  storage: IndexStorage;
  db: FacesDb;
  ledger: Ledger;
}): Promise<void> {
  const { store, storage, db, ledger } = deps;
  const behind = async () => {
    const lists = await db.listStates();
    const listing = await storage.list();
    return lists.filter(
      (list) => newestOf(listing, list.listId, descriptorVersion, list)?.meta.revision !== list.revision,
    );
  };
  await eventually(
    "no task is open and every list has an index of its newest revision",
    async () => {
      await ledger.observe(store);
      const open = await openTasks(store);
      const late = open.length > 0 ? [] : await behind();
      if (open.length > 0 || late.length > 0)
        throw new Error(`${open.length} open tasks, ${late.length} lists behind`);
      return true;
    },
    { timeoutMs: restLimitMs, intervalMs: 200 },
  ).catch((error: unknown) => ledger.violation((error as Error).message));
  await ledger.judge(store);
  const { indexes, refused } = await storage.list();
  for (const { indexId, reason } of refused) ledger.violation(`index ${indexId} is not readable: ${reason}`);
  const ids = new Set(indexes.map((index) => index.indexId));
  if (ids.size !== indexes.length) ledger.violation("two indexes of one task are in the storage");
}

function reportOf(
  options: ChaosOptions,
  run: {
    failOvers: readonly FailOver[];
    ledger: Ledger;
    answers: ReadonlyMap<string, number>;
    seconds: number;
    fleet: Fleet;
  },
): ChaosReport {
  const { failOvers, ledger } = run;
  const allowedMs = options.leaseTtlMs + (options.takeoverSlackMs ?? defaultTakeoverSlackMs);
  for (const { kind, takeoverMs } of failOvers)
    if (takeoverMs > allowedMs)
      ledger.violation(
        `a take-over after ${kind} took ${takeoverMs.toFixed(0)} ms, more than ${allowedMs} ms`,
      );
  if (failOvers.length < options.failovers)
    ledger.violation(
      `${failOvers.length} of ${options.failovers} fail-overs within ${options.maxMinutes} minutes`,
    );
  const byFault: Partial<Record<FaultKind, Spread>> = {};
  for (const kind of faultKinds) {
    const of = failOvers.filter((one) => one.kind === kind);
    if (of.length > 0) byFault[kind] = spreadOf(of);
  }
  return {
    ok: ledger.violations.length === 0,
    seed: options.seed,
    lease_ms: options.leaseTtlMs,
    allowed_takeover_ms: allowedMs,
    failovers: failOvers.length,
    wanted_failovers: options.failovers,
    seconds: Math.round(run.seconds * 10) / 10,
    takeover: spreadOf(failOvers),
    takeover_by_fault: byFault,
    figures: ledger.figures(),
    answers: Object.fromEntries([...run.answers].toSorted(([a], [b]) => a.localeCompare(b))),
    violations: ledger.violations,
    evidence: evidenceOf(run.fleet.everyone, ledger.violations),
  };
}

function spreadOf(failOvers: readonly FailOver[]): Spread {
  const sorted = failOvers.map((one) => one.takeoverMs).toSorted((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.ceil(share * sorted.length) - 1] ?? 0);
  return { count: sorted.length, median_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1) };
}
