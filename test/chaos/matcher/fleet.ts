import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { eventually, type Servers, type Service } from "@lim/testkit";
import type { Redis } from "ioredis";
import { type Findings, textOf } from "../findings.ts";
import { openPlace, type Place } from "../place.ts";
import type { Chances } from "../random.ts";
import { indexesOf, type Life, labelKeys, type ServedWatch } from "./served.ts";
import type { Troubles } from "./trouble.ts";

const pollMs = 120;
const readyLimitMs = 45_000;
/** Told to end: a running batch, keys withdrawn, connections closed, and a machine that is busy. */
const exitLimitMs = 40_000;
const hook = fileURLToPath(new URL("./poison.ts", import.meta.url));

/** A place for one matcher, and the life of the process that is in it. */
export interface Member {
  readonly place: Place;
  life: Life | undefined;
}

/** Matcher processes that are killed, paused and started again, all of them watched. */
export interface Fleet {
  readonly members: readonly Member[];
  readonly everyone: readonly Service[];
  start(member: Member): Promise<void>;
  kill(member: Member): Promise<void>;
  /** SIGTERM: it ends with 0, and leaves no key. */
  end(member: Member): Promise<void>;
  pause(member: Member): void;
  resume(member: Member): void;
  /** From now on matchers may die of poison: they are started again, and counted. */
  expectPoison(expected: boolean): void;
  readonly poisoned: number;
  /** Resolves when all places are taken and ready. */
  untilWhole(): Promise<void>;
  watch(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export interface FleetOptions {
  servers: Servers;
  size: number;
  env: (place: number) => Readonly<Record<string, string>>;
  served: ServedWatch;
  findings: Findings;
  troubles: Troubles;
  redis: Redis;
  chances: (place: number) => Chances;
}

export async function openFleet(options: FleetOptions): Promise<Fleet> {
  const { served, findings, troubles } = options;
  const members: Member[] = [];
  const restarts = new Set<Promise<void>>();
  let poisonExpected = false;
  let poisoned = 0;
  let closing = false;

  const leave = (member: Member, inOrder: boolean) => {
    if (member.life) served.ended(member.life, inOrder);
    member.life = undefined;
  };
  const start = async (member: Member) => {
    const born = served.prepare();
    const over = troubles.begin("matcher");
    try {
      const { url, name } = await member.place.start();
      member.life = born(new URL(url).host, name);
      findings.event({ kind: "matcher started", name, url });
      await untilReady(member);
    } finally {
      over();
    }
  };
  for (let i = 0; i < options.size; i++) {
    const member: Member = {
      life: undefined,
      place: await openPlace({
        kind: "indexed-matcher",
        name: `matcher-${i + 1}`,
        servers: options.servers,
        env: { ...options.env(i), LIM_CHAOS_POISON: "armed" },
        nodeArgs: ["--import", hook],
        chances: options.chances(i),
        findings,
        onSurprise: (service, ended) => {
          leave(member, false);
          if (!poisonExpected || ended !== "SIGKILL") return false;
          poisoned++;
          findings.event({ kind: "matcher died of poison", name: service.name });
          const restart = start(member)
            .catch((error: unknown) => findings.violation(textOf(error)))
            .finally(() => restarts.delete(restart));
          restarts.add(restart);
          return true;
        },
      }),
    };
    members.push(member);
  }
  const take = (member: Member): Service | undefined => member.place.leave();
  const fleet: Fleet = {
    members,
    get everyone() {
      return members.flatMap(({ place }) => place.everyone);
    },
    get poisoned() {
      return poisoned;
    },
    start,
    async kill(member) {
      const service = take(member);
      if (!service) return;
      const over = troubles.begin("matcher");
      await member.place.endNow(service);
      leave(member, false);
      over();
    },
    async end(member) {
      const service = take(member);
      if (!service) return;
      const sinceMs = performance.now();
      const over = troubles.begin("matcher");
      await member.place.endInOrder(service, exitLimitMs);
      over();
      leave(member, !troubles.any(["redis"], sinceMs));
    },
    pause(member) {
      if (member.life) served.pause(member.life);
      member.place.service()?.process.kill("SIGSTOP");
    },
    resume(member) {
      member.place.service()?.process.kill("SIGCONT");
      if (member.life) served.resume(member.life);
    },
    expectPoison(expected) {
      poisonExpected = expected;
    },
    async untilWhole() {
      await Promise.all(restarts);
      await Promise.all(members.map(untilReady));
    },
    watch: (signal) => watch({ ...options, members, isClosing: () => closing }, signal),
    async close() {
      closing = true;
      await Promise.allSettled(restarts);
      for (const member of members) fleet.resume(member);
      await Promise.all(members.map((member) => fleet.end(member)));
      await Promise.all(members.map(({ place }) => place.close()));
    },
  };
  return fleet;
}

async function untilReady({ place }: Member): Promise<void> {
  const service = place.service();
  if (!service) return;
  await eventually(
    `${service.name} is ready`,
    // One that was killed meanwhile is nobody's concern here.
    async () =>
      place.service() !== service || (await fetch(`${service.url}/readyz`)).status === 200 ? true : undefined,
    { timeoutMs: readyLimitMs, intervalMs: 50 },
  );
}

/** Looks at what every matcher says of itself and at all label keys, again and again. */
async function watch(
  deps: FleetOptions & { members: readonly Member[]; isClosing: () => boolean },
  signal: AbortSignal,
): Promise<void> {
  const { redis, served, troubles, members } = deps;
  while (!signal.aborted) {
    const readAtMs = performance.now();
    const before = await labelKeys(redis);
    if (before) served.sawKeys(before, readAtMs);
    const said = await Promise.all(
      members.map(async ({ place, life }) => {
        const service = place.service();
        const indexes = service && life && !life.paused ? await indexesOf(service.url) : undefined;
        if (life && indexes) served.saw(life, indexes);
        return { life, indexes };
      }),
    );
    const after = await labelKeys(redis);
    // A withdrawal that Redis did not take waits for the TTL.
    if (before && after && !troubles.any(["redis"], readAtMs))
      for (const { life, indexes } of said)
        if (life && indexes) served.keyWithoutService(life, before, indexes, after);
    await sleep(pollMs, undefined, { signal }).catch(() => {});
  }
}
