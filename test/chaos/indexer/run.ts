import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type EngineName, engineNames } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { type Servers, type Service, startService } from "@lim/testkit";
import { loadEngine } from "@lim/vector-index";
import { createFindings, evidenceOf, type FaultEvent, type Findings, textOf } from "../findings.ts";
import { markOf } from "../left-overs.ts";
import { createMemoryWatch, type MemoryOfService } from "../memory.ts";
import { chancesOf } from "../random.ts";
import { driveFaults } from "./faults.ts";
import { createFeeder, type Feeder } from "./feeder.ts";
import { createReader, type StorageReader } from "./reader.ts";
import { judgeContents, judgeLeftOvers, type RestDeps, untilAtRest } from "./rest.ts";
import { openSlot, type Slot } from "./slots.ts";
import { createTaskWatch, type TaskWatch } from "./tasks.ts";

export interface ChaosOptions {
  kills: number;
  seed: number;
  maxMinutes: number;
  indexers: number;
  lists: number;
  /** Faces of a new list: from a half of it up to it. */
  faces: number;
  /** One after the other, each for its share of the kills. */
  engines: readonly EngineName[];
  /** No more faults once it fires; all that is judged in the end still is. */
  signal?: AbortSignal;
  log?: (text: string) => void;
}

export interface ChaosReport {
  ok: boolean;
  seed: number;
  kills: number;
  wanted_kills: number;
  engines: readonly string[];
  seconds: number;
  figures: Record<string, Record<string, number>>;
  memory: MemoryOfService[];
  skipped: string[];
  violations: readonly string[];
  /** What services logged of the ids that the violations name. */
  evidence: string[];
  events: readonly FaultEvent[];
}

export const chaosDefaults: ChaosOptions = {
  kills: 200,
  seed: 1,
  maxMinutes: 15,
  indexers: 3,
  lists: 8,
  faces: 2_500,
  engines: engineNames.toReversed(),
};

const dim = 32;
const descriptorVersion = 1;
const managerStopGraceMs = 20_000;
const engineCheckMs = 200;

export interface World {
  servers: Servers;
  db: FacesDb;
  storageRoot: string;
  /** Becomes the temporary folder of the services. */
  scratchDir: string;
}

/** Everything that runs, and how it is stopped. */
interface Stage {
  options: ChaosOptions;
  world: World;
  findings: Findings;
  rest: RestDeps;
  mark: string;
  slots: Slot[];
  managers: Service[];
  /** Undefined while it is exchanged. */
  manager: Service | undefined;
}

/** Runs a manager, indexers, a feeder and a reader, and kills until the wanted number is reached. */
export async function runChaos(world: World, options: ChaosOptions): Promise<ChaosReport> {
  const startMs = performance.now();
  const findings = createFindings();
  await mkdir(world.scratchDir, { recursive: true });
  const storage = await openIndexStorage({ root: world.storageRoot });
  const rest = { db: world.db, storage, findings, descriptorVersion, dim };
  const mark = randomUUID();
  const stage: Stage = {
    options: { ...options, engines: await enginesHere(options.engines, findings) },
    world,
    findings,
    rest,
    mark,
    slots: [],
    managers: [],
    manager: undefined,
  };
  const memory = createMemoryWatch(() => [
    ...(stage.manager ? [stage.manager] : []),
    ...stage.slots.flatMap((slot) => slot.service() ?? []),
  ]);
  const stop = new AbortController();
  let kills = 0;
  let background: Promise<unknown> = Promise.resolve();
  let feeder: Feeder | undefined;
  try {
    await startIndexers(stage);
    await exchangeManager(stage, stage.options.engines[0]);
    feeder = await feederOf(stage);
    const reader = createReader({ storage, removedTasks: feeder.removedTasks, findings });
    const tasks = createTaskWatch({ manager: () => stage.manager?.url, findings });
    background = Promise.all([reader.run(stop.signal), tasks.run(stop.signal), memory.run(stop.signal)]);
    kills = await kill(stage, feeder, startMs + options.maxMinutes * 60_000);
    options.log?.("faults are over, waiting for rest");
    await settle(stage, { feeder, reader, tasks });
  } catch (thrown) {
    findings.violation(
      `the run ended early: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : thrown}`,
    );
  } finally {
    stop.abort();
    await Promise.allSettled([background]);
    await stopAll(stage);
  }
  if (feeder)
    await judgeLeftOvers({
      ...rest,
      feeder,
      mark: markOf(mark),
      scratchDir: world.scratchDir,
      databaseUrl: world.servers.postgres.url,
    }).catch((error: unknown) => findings.violation(`left-overs were not judged: ${textOf(error)}`));
  if (kills < options.kills)
    findings.violation(`${kills} of ${options.kills} kills, ${options.maxMinutes} minutes were allowed`);
  return reportOf(stage, { kills, memory: memory.figures(), seconds: (performance.now() - startMs) / 1_000 });
}

async function enginesHere(wanted: readonly EngineName[], findings: Findings): Promise<EngineName[]> {
  const here: EngineName[] = [];
  for (const name of wanted)
    await loadEngine(name).then(
      () => here.push(name),
      (error: unknown) => findings.skipped.add(`engine ${name}: ${textOf(error)}`),
    );
  return here;
}

function commonEnv({ world, mark }: Stage): Record<string, string> {
  return {
    LIM_STORAGE_ROOT: world.storageRoot,
    TMPDIR: world.scratchDir,
    LIM_CHAOS_RUN: mark,
    LIM_API_TOKEN: "",
  };
}

async function startIndexers(stage: Stage): Promise<void> {
  const { options, world, findings } = stage;
  for (let i = 0; i < options.indexers; i++)
    stage.slots.push(
      await openSlot({
        name: `indexer-${i + 1}`,
        servers: world.servers,
        env: {
          ...commonEnv(stage),
          LIM_INDEXER_TTL_MS: "2000",
          LIM_BUILD_MEMORY_LIMIT_MB: "4096",
        },
        chances: chancesOf(options.seed, 1, i),
        findings,
      }),
    );
  await Promise.all(stage.slots.map((slot) => slot.start()));
}

/** Ends the manager, where there is one, and starts another that asks for this engine. */
async function exchangeManager(stage: Stage, engine: EngineName | undefined): Promise<void> {
  const before = stage.manager;
  stage.manager = undefined;
  await before?.process.stop({ graceMs: managerStopGraceMs });
  if (before) await stage.world.servers.ledger.forget(before.process.pid);
  const manager = await startService(stage.world.servers, {
    kind: "index-manager",
    name: `manager-${stage.managers.length + 1}`,
    port: 0,
    env: {
      ...commonEnv(stage),
      ...(engine === undefined ? {} : { LIM_ENGINE: engine }),
      LIM_LOOKUP_PERIOD_MS: "100",
      LIM_PLANNING_PERIOD_S: "1",
      LIM_PLANNING_SETTLE_MS: "1500",
      LIM_RETRY_BACKOFF_MS: "100",
      LIM_RETENTION_PERIOD_MS: "1000",
      LIM_KEEP_VERSIONS: "2",
      LIM_MIN_INDEXING_LIST_SIZE: "10",
      LIM_REBUILD_DEFAULT: "false",
      LIM_MAX_REMOVAL_RATIO: "0.2",
      LIM_DELETED_LIST_GRACE_S: "2",
      LIM_DESCRIPTOR_DIM: String(dim),
      LIM_DESCRIPTOR_VERSION: String(descriptorVersion),
      LIM_EF_CONSTRUCTION: "300",
    },
  });
  stage.managers.push(manager);
  stage.manager = manager;
}

function feederOf(stage: Stage): Promise<Feeder> {
  const { options, world, findings } = stage;
  const most = options.faces;
  return createFeeder({
    db: world.db,
    chances: chancesOf(options.seed, 2),
    findings,
    dim,
    descriptorVersion,
    lists: options.lists,
    faces: { least: Math.ceil(most / 2), most },
    manager: () => stage.manager?.url,
  });
}

/** Faults at every indexer, and changes of lists meanwhile; returns the number of kills. */
async function kill(stage: Stage, feeder: Feeder, untilMs: number): Promise<number> {
  const { options, findings, slots, world } = stage;
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), Math.max(0, untilMs - performance.now()));
  const overSignal = AbortSignal.any([over.signal, ...(options.signal ? [options.signal] : [])]);
  const budget = { wanted: options.kills, begun: 0, done: 0 };
  const changes = new AbortController();
  const changing = feeder.run(changes.signal);
  const drivers = slots.map((slot, i) =>
    driveFaults({
      slot,
      chances: chancesOf(options.seed, 3, i),
      findings,
      feeder,
      storageRoot: world.storageRoot,
      budget,
      signal: overSignal,
      log: options.log ?? (() => {}),
    }),
  );
  let working = true;
  const driving = Promise.all(drivers).finally(() => {
    working = false;
  });
  try {
    for (const [i, engine] of stage.options.engines.entries()) {
      if (i === 0) continue;
      const share = Math.floor((budget.wanted * i) / stage.options.engines.length);
      while (working && budget.done < share) await sleep(engineCheckMs);
      options.log?.(`the manager is exchanged, engine ${engine} from now on`);
      await exchangeManager(stage, engine);
    }
    await driving;
  } finally {
    clearTimeout(timer);
    over.abort();
    changes.abort();
    await Promise.allSettled([driving, changing]);
  }
  return budget.done;
}

async function settle(
  { rest, slots }: Stage,
  { feeder, reader, tasks }: { feeder: Feeder; reader: StorageReader; tasks: TaskWatch },
): Promise<void> {
  for (const slot of slots) slot.proxy.resume();
  await untilAtRest(rest, tasks);
  await tasks.judge({ feeder, reader });
  await judgeContents(rest);
}

async function stopAll(stage: Stage): Promise<void> {
  await Promise.allSettled(stage.slots.map((slot) => slot.close()));
  await stage.manager?.process.stop({ graceMs: managerStopGraceMs });
  if (stage.manager) await stage.world.servers.ledger.forget(stage.manager.process.pid);
}

function reportOf(
  { options, findings, slots, managers }: Stage,
  run: { kills: number; memory: MemoryOfService[]; seconds: number },
): ChaosReport {
  const services = [...managers, ...slots.flatMap((slot) => slot.everyone)];
  return {
    ok: findings.violations.length === 0,
    seed: options.seed,
    kills: run.kills,
    wanted_kills: options.kills,
    engines: options.engines,
    seconds: Math.round(run.seconds * 10) / 10,
    figures: findings.figures(),
    memory: run.memory,
    skipped: [...findings.skipped],
    violations: findings.violations,
    evidence: evidenceOf(services, findings.violations),
    events: findings.events,
  };
}
