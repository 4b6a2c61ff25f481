import { setTimeout as sleep } from "node:timers/promises";
import type { TaskStore } from "@lim/coordination";
import { eventually, type TestRedis } from "@lim/testkit";
import type { Redis } from "ioredis";
import type { Fleet, Member } from "./fleet.ts";
import type { Ledger } from "./ledger.ts";
import type { Chances } from "./random.ts";

export const faultKinds = [
  "SIGKILL",
  "SIGSTOP",
  "SIGTERM",
  "SIGSTOP and FLUSHALL",
  "FLUSHALL",
  "Redis restart",
] as const;
export type FaultKind = (typeof faultKinds)[number];

export interface FaultPlan {
  leaseTtlMs: number;
  /** Every k-th fault empties Redis, every m-th restarts it; 0: never. */
  flushEvery: number;
  restartEvery: number;
}

export interface FailOver {
  kind: FaultKind;
  /** From the fault to another manager that says it leads; where Redis is at fault, from its return to a new epoch. */
  takeoverMs: number;
  epoch: string;
}

const epochKey = "{lim_manager_master}:epoch";
/** Past it a take-over is given up; what is allowed is less. */
const takeoverLimitMs = 60_000;
const pollMs = 10;
/** How long a woken master is watched beside its successor. */
const wakeWatchMs = 400;
/** Lines of a manager that did not end as it should. */
const quotedLines = 30;
const calmMs = { least: 100, most: 900 } as const;

export function chooseKind(number: number, chances: Chances, plan: FaultPlan): FaultKind {
  if (plan.restartEvery > 0 && number % plan.restartEvery === 0) return "Redis restart";
  if (plan.flushEvery > 0 && number % plan.flushEvery === 0)
    return chances.hits(0.6) ? "SIGSTOP and FLUSHALL" : "FLUSHALL";
  const dice = chances.between(0, 1);
  if (dice < 0.45) return "SIGKILL";
  return dice < 0.8 ? "SIGSTOP" : "SIGTERM";
}

export interface FaultDeps {
  fleet: Fleet;
  redis: TestRedis;
  raw: Redis;
  store: TaskStore;
  ledger: Ledger;
  chances: Chances;
  plan: FaultPlan;
}

/** One fault on the master of the moment, up to the take-over and, of a paused master, its awakening. */
export async function failOver(deps: FaultDeps, kind: FaultKind): Promise<FailOver> {
  const { fleet, chances } = deps;
  const master = await fleet.untilSteady();
  await sleep(chances.between(calmMs.least, calmMs.most));
  if (kind === "FLUSHALL" || kind === "Redis restart") return loseRedis(deps, kind);
  if (kind === "SIGSTOP" || kind === "SIGSTOP and FLUSHALL") return pauseMaster(deps, master, kind);
  const atMs = performance.now();
  master.away = true;
  master.service.process.kill(kind);
  const { takeoverMs, epoch } = await anotherLeads(deps, master, atMs);
  const ended = await master.service.process.exited;
  if (kind === "SIGTERM" && ended !== 0) {
    const { name, process } = master.service;
    const lastLines = process.lines.slice(-quotedLines).join("\n");
    deps.ledger.violation(`${name} was told to end and ended with ${ended}; its last lines:\n${lastLines}`);
  }
  fleet.drop(master);
  fleet.add();
  return { kind, takeoverMs, epoch };
}

async function anotherLeads(
  { fleet, raw }: FaultDeps,
  master: Member,
  sinceMs: number,
): Promise<{ successor: Member; takeoverMs: number; epoch: string }> {
  const successor = await eventually(
    "another manager leads",
    async () => {
      const others = fleet.members.filter((member) => member !== master);
      const flags = await Promise.all(others.map((other) => fleet.isMaster(other).catch(() => false)));
      return others[flags.indexOf(true)];
    },
    { timeoutMs: takeoverLimitMs, intervalMs: pollMs },
  );
  const takeoverMs = performance.now() - sinceMs;
  return { successor, takeoverMs, epoch: (await raw.get(epochKey)) ?? "none" };
}

async function pauseMaster(
  deps: FaultDeps,
  master: Member,
  kind: "SIGSTOP" | "SIGSTOP and FLUSHALL",
): Promise<FailOver> {
  const { fleet, raw, ledger, chances, plan } = deps;
  const epochBefore = await raw.get(epochKey);
  const atMs = performance.now();
  master.away = true;
  master.service.process.kill("SIGSTOP");
  try {
    if (kind !== "SIGSTOP") {
      await sleep(chances.between(0, plan.leaseTtlMs / 2));
      await ledger.beforeLoss(deps.store);
      await raw.flushall();
    }
    const { successor, takeoverMs, epoch } = await anotherLeads(deps, master, atMs);
    // It wakes once its lease is over, at once or later; a flush may have let the other in before.
    const overMs = Math.max(0, atMs + plan.leaseTtlMs - performance.now());
    await sleep(overMs + chances.between(0, plan.leaseTtlMs / 2));
    master.service.process.kill("SIGCONT");
    await eventually("the woken master says it does not lead", async () =>
      (await fleet.isMaster(master)) ? undefined : true,
    );
    await sleep(wakeWatchMs);
    const epochAfter = (await raw.get(epochKey)) ?? "none";
    if (epochAfter !== epoch || !(await fleet.isMaster(successor)))
      ledger.violation(`a woken master unseated its successor: epoch ${epoch} became ${epochAfter}`);
    if (epochBefore !== null && BigInt(epoch) <= BigInt(epochBefore))
      ledger.violation(`epoch ${epoch} follows ${epochBefore}`);
    return { kind, takeoverMs, epoch };
  } finally {
    master.service.process.kill("SIGCONT");
    master.away = false;
  }
}

async function loseRedis(
  { redis, raw, store, ledger }: FaultDeps,
  kind: "FLUSHALL" | "Redis restart",
): Promise<FailOver> {
  const epochBefore = await raw.get(epochKey);
  await ledger.beforeLoss(store);
  if (kind === "FLUSHALL") await raw.flushall();
  else await redis.restart();
  const sinceMs = performance.now();
  const epoch = await eventually(
    "a new epoch",
    async () => {
      const value = await raw.get(epochKey);
      return value !== null && value !== epochBefore ? value : undefined;
    },
    { timeoutMs: takeoverLimitMs, intervalMs: pollMs },
  );
  const takeoverMs = performance.now() - sinceMs;
  if (epochBefore !== null && BigInt(epoch) <= BigInt(epochBefore))
    ledger.violation(`epoch ${epoch} follows ${epochBefore}`);
  return { kind, takeoverMs, epoch };
}
