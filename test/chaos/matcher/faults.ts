import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { eventually, type TestRedis } from "@lim/testkit";
import type { Redis } from "ioredis";
import { type Findings, textOf } from "../findings.ts";
import type { Chances } from "../random.ts";
import { askTogether, type CallerDeps } from "./callers.ts";
import type { Fleet, Member } from "./fleet.ts";
import { poison } from "./poisoning.ts";
import { damages, type Publisher } from "./publishers.ts";
import type { RawCaller } from "./raw.ts";
import type { ServedWatch } from "./served.ts";
import type { Troubles } from "./trouble.ts";
import type { Writer } from "./writers.ts";

/** Weights of the faults. */
const kinds = {
  "SIGKILL matcher": 20,
  "SIGKILL all but one": 5,
  "SIGSTOP matcher": 14,
  "SIGTERM matcher": 10,
  FLUSHALL: 8,
  "Redis restarted, empty": 5,
  "Redis restarted, kept": 5,
  "Redis killed": 4,
  "Redis stalled": 5,
  "Postgres restarted": 5,
  "Postgres cut": 8,
  "Postgres stalled": 5,
  "index damaged": 10,
  "index vanishes": 7,
  "label folder away": 3,
  "storage away": 3,
  poison: 6,
  "burst of requests": 10,
  "burst of changes": 6,
} as const;
export type FaultKind = keyof typeof kinds;
export const faultKinds = Object.keys(kinds) as readonly FaultKind[];

/** Entries idle for 2.5 s are claimed by others: most pauses are longer than that. */
const stopMs = { least: 500, most: 6_500 } as const;
const outageMs = { least: 100, most: 4_000 } as const;
const awayMs = { least: 200, most: 2_500 } as const;
const calmMs = { least: 0, most: 800 } as const;
/** Others of a fault that goes on in the background, e.g. a paused matcher. */
const together = 0.5;
const mostTogether = 3;
const vanishAfterMs = 400;
const burst = { least: 50, most: 300 } as const;
const changes = { least: 200, most: 600 } as const;
const answerLimitMs = 60_000;

export interface FaultDeps extends CallerDeps {
  fleet: Fleet;
  redis: TestRedis;
  raw: Redis;
  callers: readonly RawCaller[];
  writers: readonly Writer[];
  publisher: Publisher;
  findings: Findings;
  troubles: Troubles;
  served: Pick<ServedWatch, "redisCameBack">;
  chances: Chances;
  storageRoot: string;
  /** Undefined where it is somebody else's. */
  restartPostgres: (() => Promise<void>) | undefined;
  signal: AbortSignal;
  log: (text: string) => void;
}

/** One fault after another, now and then two at once, until the signal fires or all of `wanted` have happened. */
export async function driveFaults(
  deps: FaultDeps,
  { wanted, only }: { wanted?: readonly FaultKind[] | undefined; only?: FaultKind | undefined },
): Promise<number> {
  const { chances, signal, findings, log } = deps;
  // Each once at first, so that no run is without one of them.
  const todo = wanted ? [...wanted] : only ? [] : inAnyOrder(faultKinds, chances);
  const running = new Set<Promise<void>>();
  let done = 0;
  while (!signal.aborted && (wanted === undefined || todo.length > 0)) {
    const kind = only ?? todo.shift() ?? draw(chances);
    // Poison is judged by what becomes of its neighbours: nothing else may harm them meanwhile.
    if (kind === "poison") await Promise.all(running);
    else if (running.size >= mostTogether) await Promise.race(running);
    findings.event({ kind });
    const fault = act(deps, kind).finally(() => running.delete(fault));
    running.add(fault);
    if (kind === "poison" || !chances.hits(together)) await fault;
    done++;
    findings.count("faults", kind);
    log(`${kind}, ${findings.violations.length} violations`);
    await sleep(chances.between(calmMs.least, calmMs.most), undefined, { signal }).catch(() => {});
  }
  await Promise.all(running);
  return done;
}

const turns = new Map<string, Promise<void>>();

/** Faults at one server come one after another. */
async function act(deps: FaultDeps, kind: FaultKind): Promise<void> {
  const server = /Postgres/.test(kind) ? "postgres" : /Redis|FLUSHALL/.test(kind) ? "redis" : undefined;
  const before = server && turns.get(server);
  const own = (async () => {
    await before;
    try {
      await faults[kind](deps, kind);
    } catch (error) {
      deps.findings.violation(`${kind}: ${textOf(error)}`);
    }
  })();
  if (server) turns.set(server, own);
  await own;
}

function draw(chances: Chances): FaultKind {
  let dice = chances.between(
    0,
    faultKinds.reduce((sum, kind) => sum + kinds[kind], 0),
  );
  for (const kind of faultKinds) {
    dice -= kinds[kind];
    if (dice < 0) return kind;
  }
  return "SIGKILL matcher";
}

function inAnyOrder<T>(items: readonly T[], chances: Chances): T[] {
  const left = [...items];
  const order: T[] = [];
  while (left.length > 0) order.push(...left.splice(chances.whole(left.length), 1));
  return order;
}

/** Matchers that another fault may be at already are left out; one always stays as it is. */
function victims({ fleet, chances }: FaultDeps, most: number): Member[] {
  const well = fleet.members.filter(({ place, life }) => place.service() && life && !life.paused);
  return inAnyOrder(well, chances).slice(0, Math.min(most, well.length - 1));
}

type Fault = (deps: FaultDeps, kind: FaultKind) => Promise<void>;

const killMatchers: Fault = async (deps, kind) => {
  const { fleet, chances } = deps;
  const chosen = victims(deps, kind === "SIGKILL matcher" ? 1 : fleet.members.length);
  await Promise.all(chosen.map((member) => fleet.kill(member)));
  await sleep(chances.between(0, outageMs.most));
  await Promise.all(chosen.map((member) => fleet.start(member)));
};

const pauseMatcher: Fault = async (deps) => {
  const { fleet, chances, troubles } = deps;
  const [member] = victims(deps, 1);
  if (!member) return;
  const over = troubles.begin("matcher");
  fleet.pause(member);
  try {
    await sleep(chances.between(stopMs.least, stopMs.most));
  } finally {
    fleet.resume(member);
    over();
  }
};

const endMatcher: Fault = async (deps) => {
  const { fleet, chances } = deps;
  for (const member of victims(deps, 1)) {
    await fleet.end(member);
    await sleep(chances.between(0, awayMs.most));
    await fleet.start(member);
  }
};

const loseRedis: Fault = async ({ redis, raw, troubles }, kind) => {
  const over = troubles.begin("redis");
  try {
    if (kind === "FLUSHALL" || kind === "Redis restarted, empty") await raw.flushall();
    if (kind === "Redis killed") for (const pid of redis.pids) process.kill(pid, "SIGKILL");
    if (kind !== "FLUSHALL") await redis.restart();
  } finally {
    over();
  }
};

const stallRedis: Fault = async ({ redis, troubles, chances, served }) => {
  const over = troubles.begin("redis");
  const pids = [...redis.pids];
  for (const pid of pids) process.kill(pid, "SIGSTOP");
  try {
    await sleep(chances.between(outageMs.least, outageMs.most));
  } finally {
    for (const pid of pids) process.kill(pid, "SIGCONT");
    served.redisCameBack();
    over();
  }
};

const restartPostgres: Fault = async (deps, kind) => {
  const { restartPostgres: restart, troubles, fleet, chances, findings } = deps;
  if (!restart) findings.skipped.add("Postgres restarted: the server is not of this run");
  const over = troubles.begin("postgres");
  const some = kind === "Postgres restarted" ? fleet.members : fleet.members.filter(() => chances.hits(0.6));
  try {
    if (kind === "Postgres restarted" && restart) {
      await restart();
      return;
    }
    for (const { place } of some) {
      if (kind === "Postgres stalled") place.proxy.pause();
      else place.proxy.cut();
    }
    await sleep(chances.between(outageMs.least, outageMs.most));
  } finally {
    for (const { place } of some) place.proxy.resume();
    over();
  }
};

const damageIndex: Fault = async ({ publisher, truths, chances, troubles }) => {
  const label = chances.pick([...truths.keys()]);
  const damage = chances.pick(damages);
  if (label === undefined || damage === undefined) return;
  const over = troubles.begin("storage");
  try {
    const indexId = await publisher.publishDamaged(label, damage);
    await sleep(chances.between(awayMs.least, awayMs.most));
    await publisher.remove(indexId);
  } catch (error) {
    // Postgres may be away while it is built.
    if (!troubles.any(["postgres"], performance.now() - outageMs.most)) throw error;
  } finally {
    over();
  }
};

const vanish: Fault = async ({ publisher, truths, chances, troubles }) => {
  const label = chances.pick([...truths.keys()]);
  if (label === undefined) return;
  const over = troubles.begin("storage");
  try {
    const { indexId } = await publisher.publish(label);
    // Around now it is being loaded.
    await sleep(chances.between(0, vanishAfterMs));
    await publisher.remove(indexId);
  } catch (error) {
    if (!troubles.any(["postgres"], performance.now() - outageMs.most)) throw error;
  } finally {
    over();
  }
};

const takeAway: Fault = async ({ publisher, truths, chances, troubles, storageRoot }, kind) => {
  const label = chances.pick([...truths.keys()]);
  if (label === undefined) return;
  const folder = kind === "storage away" ? storageRoot : join(storageRoot, label);
  const elsewhere = join(storageRoot, "..", kind === "storage away" ? "storage-away" : "label-away");
  await publisher.exclusive(async () => {
    const over = troubles.begin("storage");
    await rename(folder, elsewhere);
    try {
      await sleep(chances.between(awayMs.least, awayMs.most));
    } finally {
      // As a volume that is mounted over the empty folders that a service, started meanwhile, has made in its place.
      await rm(folder, { recursive: true, force: true });
      await rename(elsewhere, folder);
      over();
    }
  });
};

const askMuch: Fault = async (deps) => {
  const { callers, truths, chances } = deps;
  const raw = chances.pick(callers);
  const truth = chances.pick([...truths.values()]);
  if (!raw || !truth) return;
  await askTogether({ ...deps, raw, truth }, Math.round(chances.between(burst.least, burst.most)));
};

const changeMuch: Fault = async ({ writers, chances }) => {
  await chances.pick(writers)?.burst(Math.round(chances.between(changes.least, changes.most)));
};

const poisonOne: Fault = async (deps) => {
  await deps.fleet.untilWhole();
  await eventually("Redis answers", async () => ((await deps.raw.ping()) ? true : undefined), {
    timeoutMs: answerLimitMs,
  });
  await poison(deps);
};

const faults: Record<FaultKind, Fault> = {
  "SIGKILL matcher": killMatchers,
  "SIGKILL all but one": killMatchers,
  "SIGSTOP matcher": pauseMatcher,
  "SIGTERM matcher": endMatcher,
  FLUSHALL: loseRedis,
  "Redis restarted, empty": loseRedis,
  "Redis restarted, kept": loseRedis,
  "Redis killed": loseRedis,
  "Redis stalled": stallRedis,
  "Postgres restarted": restartPostgres,
  "Postgres cut": restartPostgres,
  "Postgres stalled": restartPostgres,
  "index damaged": damageIndex,
  "index vanishes": vanish,
  "label folder away": takeAway,
  "storage away": takeAway,
  poison: poisonOne,
  "burst of requests": askMuch,
  "burst of changes": changeMuch,
};
