import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  eventually,
  type ManagedProcess,
  type RedisCommand,
  type RedisGate,
  startRedisGate,
} from "@lim/testkit";
import type { Harness, Manager } from "./harness.ts";
import type { TestIndexer } from "./test-indexer.ts";

/** A manager's process whose every command to Redis passes a gate. */
export interface Gated {
  process: ManagedProcess;
  gate: RedisGate;
  /** Whether Redis knows the script, so that a call by its hash does something. */
  isLoaded(sha: string): Promise<boolean>;
}
export type GatedManager = Manager & Gated;

const luaFolder = new URL("../../../packages/coordination/lua/", import.meta.url);

/** Hash → name of each script, whichever files of functions are put before it. */
const scriptNames = ((): ReadonlyMap<string, string> => {
  const files = readdirSync(luaFolder).map((file) => ({
    name: file.replace(/\.lua$/, ""),
    text: readFileSync(new URL(file, luaFolder), "utf8"),
  }));
  const shared = files.filter(({ text }) => /^local function/m.test(text)).map(({ text }) => text);
  const preludes = ["", ...shared, ...shared.flatMap((one) => shared.map((two) => one + two))];
  return new Map(
    files.flatMap(({ name, text }) =>
      preludes.map(
        (prelude) =>
          [
            createHash("sha1")
              .update(prelude + text)
              .digest("hex"),
            name,
          ] as const,
      ),
    ),
  );
})();

export function scriptOf({ name, args }: RedisCommand): string | undefined {
  if (name === "EVALSHA") return scriptNames.get(args[0] ?? "");
  if (name === "EVAL")
    return scriptNames.get(
      createHash("sha1")
        .update(args[0] ?? "")
        .digest("hex"),
    );
  return undefined;
}

/** `arm` may set a trap for the very first command. */
export async function gatedManager(
  harness: Harness,
  env: Record<string, string> = {},
  arm?: (gated: Gated) => void,
): Promise<GatedManager> {
  const gate = await startRedisGate(harness.redisUrl);
  const isLoaded = async (sha: string) => ((await harness.raw.script("EXISTS", sha)) as number[])[0] === 1;
  const manager = await harness.manager({ ...env, REDIS_URL: gate.url }, (process) =>
    arm?.({ process, gate, isLoaded }),
  );
  return { ...manager, gate, isLoaded };
}

export async function leads(manager: Manager): Promise<boolean> {
  return ((await manager.api("GET", "/1/master")).body as { is_master: boolean }).is_master;
}

export async function untilLeads(manager: Manager): Promise<void> {
  await eventually("it leads", async () => ((await leads(manager)) ? true : undefined), { intervalMs: 10 });
}

/** A signal has stopped a process on every system by then. */
const stoppingTakesMs = 20;

export interface Halt {
  /** Resolves once the master was at the script and got the signal. */
  reached: Promise<void>;
  /** Lets a command that was held go on to Redis. */
  release(): void;
}

/**
 * Sends the master a signal at the moment it calls a script for the `nth` time from now. `fate`: the call reaches Redis
 * while the master no longer runs (`forward`), only once it is released (`hold`), or never (`drop`).
 */
export function haltAt(
  master: Gated,
  script: string,
  options: { signal: "SIGSTOP" | "SIGKILL"; fate: "forward" | "hold" | "drop"; nth?: number },
): Halt {
  const reached = Promise.withResolvers<void>();
  const released = Promise.withResolvers<"forward">();
  let calls = 0;
  master.gate.onCommand(async (command) => {
    if (scriptOf(command) !== script) return "forward";
    if (command.name === "EVALSHA" && !(await master.isLoaded(command.args[0] ?? ""))) return "forward";
    if (++calls !== (options.nth ?? 1)) return "forward";
    master.process.kill(options.signal);
    if (options.signal === "SIGKILL") await master.process.exited;
    else await sleep(stoppingTakesMs);
    reached.resolve();
    return options.fate === "hold" ? released.promise : options.fate;
  });
  return { reached: reached.promise, release: () => released.resolve("forward") };
}

/** Everything that managers keep in Redis, but the lock and its epoch: two equal texts mean that nothing changed. */
export async function coordinationState({ raw }: Harness): Promise<Record<string, unknown>> {
  const keys = (await raw.keys("{lim_manager_master}:*")).filter((key) => !key.endsWith(":epoch"));
  const entries = keys.toSorted().map(async (key) => {
    const type = await raw.type(key);
    if (type === "hash") return [key, await raw.hgetall(key)] as const;
    if (type === "zset") return [key, await raw.zrange(key, "0", "-1", "WITHSCORES")] as const;
    if (type === "set") return [key, (await raw.smembers(key)).toSorted()] as const;
    return [key, await raw.get(key)] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

export const epochOf = async ({ raw }: Harness): Promise<bigint> =>
  BigInt((await raw.get("{lim_manager_master}:epoch")) ?? "0");

/** Wakes a paused master and waits until everything it had begun has ended. */
export async function wake(master: Manager): Promise<void> {
  const before = master.process.lines.length;
  master.process.kill("SIGCONT");
  await eventually(
    "the woken master has stepped down",
    () =>
      master.process.lines.slice(before).some((line) => line.includes("Is no longer master"))
        ? true
        : undefined,
    // Where its lease goes on by its own clock, its next renewal tells it.
  );
}

export const building = (indexer: TestIndexer) =>
  eventually("the indexer has a build", () => indexer.current(), { intervalMs: 10 });

/** A label that no list has: nothing is planned. */
export const noPlans = { LIM_LISTS: "00000000-0000-4000-8000-00000000dead" };

/** What a master leads by that nobody is to follow: a busy machine, too, renews it in time. */
export const longLease = { LIM_MANAGER_LEASE_TTL_MS: "15000" };

/** Masters behind gates, and those that follow them. */
export function createCast(harness: () => Harness) {
  const gated: GatedManager[] = [];
  const cast = {
    /** Starts behind a gate; not waited for until it leads. */
    async gated(env: Record<string, string> = {}, arm?: (gated: Gated) => void): Promise<GatedManager> {
      const manager = await gatedManager(harness(), env, arm);
      gated.push(manager);
      return manager;
    },
    /** The master, before anybody else stands for election. */
    async first(env: Record<string, string> = {}): Promise<GatedManager> {
      const manager = await cast.gated(env);
      await untilLeads(manager);
      return manager;
    },
    async successor(env: Record<string, string> = {}): Promise<Manager> {
      const manager = await harness().manager({ ...longLease, ...env });
      await untilLeads(manager);
      return manager;
    },
    async clear(): Promise<void> {
      for (const { process } of gated) process.kill("SIGCONT");
      await harness().clear();
      await Promise.all(gated.splice(0).map((manager) => manager.gate.close()));
    },
  };
  return cast;
}

/** Asks for a one-time task; its id. */
export async function requestTask(manager: Manager, listId: string): Promise<string> {
  const { status, body } = await manager.api("POST", "/1/tasks", { list_id: listId });
  if (status !== 201) throw new Error(`${status}: ${JSON.stringify(body)}`);
  return (body as { task_id: string }).task_id;
}

export async function planNoted(harness: Harness): Promise<number> {
  return eventually("a plan is noted", () => harness.store.lastPlanMs());
}
