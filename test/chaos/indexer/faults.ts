import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { buildPhases } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { type Findings, textOf } from "../findings.ts";
import { type SeenProcess, signalProcess } from "../processes.ts";
import type { Chances } from "../random.ts";
import { makeReadOnly } from "../read-only.ts";
import type { Feeder } from "./feeder.ts";
import type { Slot } from "./slots.ts";

/** Weights of the faults. Those that kill a process count towards the wanted number. */
const kinds = {
  "SIGKILL build": { weight: 30, kills: true },
  "SIGKILL publish": { weight: 18, kills: true },
  "SIGKILL indexer": { weight: 16, kills: true },
  "SIGKILL indexer, build stopped": { weight: 6, kills: true },
  "SIGSTOP build": { weight: 5, kills: false },
  "SIGSTOP indexer": { weight: 5, kills: false },
  "SIGTERM indexer": { weight: 5, kills: false },
  "task removed": { weight: 5, kills: false },
  "list deleted": { weight: 3, kills: false },
  "Postgres cut": { weight: 4, kills: false },
  "Postgres stalled": { weight: 3, kills: false },
  "storage read-only": { weight: 4, kills: false },
} as const;
type Kind = keyof typeof kinds;
export const faultKinds = Object.keys(kinds) as readonly Kind[];

/** From the moment that a build was seen to a kill, at most: about as long as builds take. */
const momentMs = 1_200;
const phaseMomentMs = 150;
const meetLimitMs = 20_000;
/** How long a certain phase is waited for before any moment will do. */
const seekLimitMs = 6_000;
/** Share of faults before which a build may end in peace, and how long it may take. */
const spared = 0.25;
const letBeMs = 6_000;
const pollMs = 10;
const metaName = "meta.json";
const revealLimitMs = 3_000;
const revealPollMs = 1;
const revealMomentMs = 15;
const calmMs = { least: 0, most: 300 } as const;
/** A build whose process was killed, or whose task was removed, is over within this. */
const endLimitMs = 40_000;
const answerLimitMs = 30_000;
const stopMs = { least: 200, most: 3_500 } as const;
const outageMs = { least: 50, most: 2_000 } as const;

export interface KillBudget {
  readonly wanted: number;
  begun: number;
  done: number;
}

export interface FaultDeps {
  slot: Slot;
  chances: Chances;
  findings: Findings;
  feeder: Feeder;
  storageRoot: string;
  budget: KillBudget;
  signal: AbortSignal;
  log: (text: string) => void;
}

/** A build in the middle of which a fault happens. */
interface Met {
  children: readonly SeenProcess[];
  taskId: string | null;
  listId: string | null;
  attempt: number | null;
  phase: string;
}

function chooseKind(chances: Chances): Kind {
  let dice = chances.between(
    0,
    faultKinds.reduce((sum, kind) => sum + kinds[kind].weight, 0),
  );
  for (const kind of faultKinds) {
    dice -= kinds[kind].weight;
    if (dice < 0) return kind;
  }
  return "SIGKILL build";
}

/** Faults at one indexer until enough processes were killed. */
export async function driveFaults(deps: FaultDeps): Promise<void> {
  const { budget, chances, findings, signal, slot, log } = deps;
  while (!signal.aborted && budget.done < budget.wanted) {
    await letOneBe(deps);
    await sleep(chances.between(calmMs.least, calmMs.most));
    const kind = chooseKind(chances);
    const { kills } = kinds[kind];
    if (kills && budget.begun >= budget.wanted) continue;
    if (kills) budget.begun++;
    let happened = false;
    try {
      happened = await faults[kind](deps, kind);
    } catch (error) {
      findings.violation(`${kind} at ${slot.name}: ${textOf(error)}`);
    }
    if (!happened) findings.count("harness", "faults that met no build");
    if (!kills) continue;
    if (happened) budget.done++;
    else budget.begun--;
    if (happened) log(`${budget.done}/${budget.wanted} ${kind}, ${findings.violations.length} violations`);
  }
}

const publishPhases: ReadonlySet<string> = new Set(["verify", "store", "publish"]);
const isPublisher = ({ commandLine }: SeenProcess) => commandLine.includes("publish");

/** Phases that are waited for; without one, a fault comes at any moment after the start of a build. */
const soughtPhases = [undefined, undefined, "build", "verify", "store", "publish"] as const;

/**
 * Waits for a build, for a phase of it that is drawn, and then for a moment in that. Undefined where no build came. A
 * phase that is over before it is seen is waited for in later builds, for a while.
 */
async function meetBuild(
  { slot, chances, signal }: FaultDeps,
  wants: (child: SeenProcess) => boolean = () => true,
): Promise<Met | undefined> {
  const startMs = performance.now();
  let sought = chances.pick(soughtPhases);
  while (performance.now() < startMs + meetLimitMs && !signal.aborted) {
    if (performance.now() > startMs + seekLimitMs) sought = undefined;
    const phase = sought === undefined ? undefined : (await slot.state())?.progress?.phase;
    const isNear = sought === undefined || (phase !== undefined && order(phase) >= order(sought));
    if (!isNear || !(await slot.children()).some(wants)) {
      await sleep(pollMs);
      continue;
    }
    await sleep(chances.between(0, sought === undefined ? momentMs : phaseMomentMs));
    const state = await slot.state();
    const children = (await slot.children()).filter(wants);
    if (children.length === 0) continue;
    const { task_id: taskId = null, list_id: listId = null, attempt = null } = state ?? {};
    // Spare processes of an indexer that builds nothing.
    if (taskId === null) continue;
    return { children, taskId, listId, attempt, phase: state?.progress?.phase ?? "start" };
  }
  return undefined;
}

const order = (phase: (typeof buildPhases)[number]) => buildPhases.indexOf(phase);

/** Leaves the indexer alone until a build has begun and ended, or for a while. */
async function letOneBe({ slot, chances, signal }: FaultDeps): Promise<void> {
  if (!chances.hits(spared)) return;
  const untilMs = performance.now() + letBeMs;
  let before: string | undefined;
  while (performance.now() < untilMs && !signal.aborted) {
    const taskId = (await slot.state())?.task_id;
    if (before !== undefined && taskId !== before) return;
    before ??= taskId ?? undefined;
    await sleep(pollMs);
  }
}

type Fault = (deps: FaultDeps, kind: Kind) => Promise<boolean>;

function note({ findings, slot }: FaultDeps, kind: string, met?: Met): void {
  const { phase = "none", taskId = null } = met ?? {};
  findings.event({ indexer: slot.service()?.name ?? slot.name, kind, phase, taskId });
  findings.count("faults", kind);
  if (met) findings.count("phases met", phase);
}

/** Its attempt at the task is over, however it ended. */
async function untilOver({ slot, findings }: FaultDeps, met: Met, why: string): Promise<void> {
  await eventually(
    `attempt ${met.attempt} of ${met.taskId} is over`,
    async () => {
      const state = await slot.state();
      return state && (state.task_id !== met.taskId || state.attempt !== met.attempt) ? true : undefined;
    },
    { timeoutMs: endLimitMs, intervalMs: 50 },
  ).catch((error: unknown) => findings.violation(`${why}, and ${textOf(error)}`));
}

const killChild: Fault = async (deps, kind) => {
  const met =
    kind === "SIGKILL publish"
      ? await meetBuild(deps, isPublisher)
      : await meetBuild(deps, (child) => !isPublisher(child));
  const victim = deps.chances.pick(met?.children ?? []);
  if (!met || !victim) return false;
  // A spare that waits for the build process to end.
  if (isPublisher(victim) && !publishPhases.has(met.phase)) return false;
  const atReveal =
    kind === "SIGKILL publish" && deps.chances.hits(0.5) && (await untilMetaIsWritten(deps, met));
  if (!(await signalProcess(victim, "SIGKILL"))) return false;
  note(deps, kind, atReveal ? { ...met, phase: "reveal" } : met);
  if (met.taskId !== null) await untilOver(deps, met, `process ${victim.pid} of a build was killed`);
  return true;
};

/** Waits until a build has written its meta.json, and for a moment more: around then its index becomes visible. */
async function untilMetaIsWritten({ storageRoot, chances }: FaultDeps, met: Met): Promise<boolean> {
  const attempt = join(storageRoot, ".staging", `${met.taskId}.${met.attempt}`);
  const untilMs = performance.now() + revealLimitMs;
  while (performance.now() < untilMs) {
    const names = await readdir(attempt, { recursive: true }).catch(() => undefined);
    if (names === undefined) return false;
    if (names.some((name) => name.endsWith(metaName))) {
      await sleep(chances.between(0, revealMomentMs));
      return true;
    }
    await sleep(revealPollMs);
  }
  return false;
}

const killIndexer: Fault = async (deps, kind) => {
  const { slot, chances } = deps;
  const met = await meetBuild(deps);
  if (!met) return false;
  note(deps, kind, met);
  const stopped: SeenProcess[] = [];
  if (kind === "SIGKILL indexer, build stopped")
    for (const child of met.children) if (await signalProcess(child, "SIGSTOP")) stopped.push(child);
  const orphans = await slot.kill();
  // Others may have begun the task again when these awake.
  const sleepMs = stopped.length > 0 ? chances.between(stopMs.least, stopMs.most) : 0;
  const awakening = sleep(sleepMs).then(async () => {
    for (const child of stopped) await signalProcess(child, "SIGCONT");
    await slot.watchOrphans(orphans);
  });
  try {
    await sleep(chances.between(0, outageMs.most));
    await slot.start();
  } finally {
    await awakening;
  }
  return true;
};

const stopBuild: Fault = async (deps, kind) => {
  const met = await meetBuild(deps);
  if (!met) return false;
  note(deps, kind, met);
  for (const child of met.children) await signalProcess(child, "SIGSTOP");
  await sleep(deps.chances.between(stopMs.least, stopMs.most));
  for (const child of met.children) await signalProcess(child, "SIGCONT");
  return true;
};

const stopIndexer: Fault = async (deps, kind) => {
  const { slot, chances, findings } = deps;
  const met = await meetBuild(deps);
  if (!met) return false;
  note(deps, kind, met);
  slot.service()?.process.kill("SIGSTOP");
  await sleep(chances.between(stopMs.least, stopMs.most));
  slot.service()?.process.kill("SIGCONT");
  await eventually(`${slot.name} answers again`, () => slot.state(), { timeoutMs: answerLimitMs }).catch(
    (error: unknown) => findings.violation(`an indexer was stopped and continued: ${textOf(error)}`),
  );
  return true;
};

const drainIndexer: Fault = async (deps, kind) => {
  // Now and then an idle one.
  const met = deps.chances.hits(0.85) ? await meetBuild(deps) : undefined;
  note(deps, kind, met);
  await deps.slot.drain();
  await deps.slot.start();
  return true;
};

const removeTask: Fault = async (deps, kind) => {
  const met = await meetBuild(deps);
  if (!met || met.taskId === null) return false;
  note(deps, kind, met);
  await deps.feeder.removeTask(met.taskId);
  await untilOver(deps, met, `task ${met.taskId} was removed while it was built`);
  return true;
};

const deleteList: Fault = async (deps, kind) => {
  const met = await meetBuild(deps);
  if (!met || met.listId === null) return false;
  note(deps, kind, met);
  await deps.feeder.deleteList(met.listId);
  return true;
};

const breakPostgres: Fault = async (deps, kind) => {
  const { slot, chances } = deps;
  const met = await meetBuild(deps);
  if (!met) return false;
  note(deps, kind, met);
  const [act, mostMs] =
    kind === "Postgres cut"
      ? ([() => slot.proxy.cut(), outageMs.most] as const)
      : ([() => slot.proxy.pause(), stopMs.most] as const);
  act();
  await sleep(chances.between(outageMs.least, mostMs));
  slot.proxy.resume();
  return true;
};

const readOnlyStorage: Fault = async (deps, kind) => {
  const { chances, findings, storageRoot } = deps;
  const met = await meetBuild(deps);
  if (!met) return false;
  const labelFolder = join(storageRoot, met.listId ?? "");
  const label = chances.hits(0.5) && met.listId !== null && existsSync(labelFolder) ? met.listId : undefined;
  const undo = makeReadOnly(join(storageRoot, label ?? ".staging"));
  if (!undo) {
    findings.skipped.add(
      "storage read-only: permissions do not bind this user, and there is no immutable attribute",
    );
    return true;
  }
  note(deps, `${kind}, ${label === undefined ? "staging" : "label"}`, met);
  await sleep(chances.between(outageMs.least, outageMs.most));
  undo();
  return true;
};

const faults: Record<Kind, Fault> = {
  "SIGKILL build": killChild,
  "SIGKILL publish": killChild,
  "SIGKILL indexer": killIndexer,
  "SIGKILL indexer, build stopped": killIndexer,
  "SIGSTOP build": stopBuild,
  "SIGSTOP indexer": stopIndexer,
  "SIGTERM indexer": drainIndexer,
  "task removed": removeTask,
  "list deleted": deleteList,
  "Postgres cut": breakPostgres,
  "Postgres stalled": breakPostgres,
  "storage read-only": readOnlyStorage,
};
