import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type EngineName, engineNames } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import { createSearchPlugin, type SearchPlugin } from "@lim/search-plugin";
import type { Servers, TestRedis } from "@lim/testkit";
import { Redis } from "ioredis";
import { createFindings, evidenceOf, type FaultEvent, type Findings, textOf } from "../findings.ts";
import { judgeProcesses, judgeSessions, markOf } from "../left-overs.ts";
import { createMemoryWatch, type MemoryOfService } from "../memory.ts";
import { chancesOf } from "../random.ts";
import { callPlugin, callRaw, matchOnce } from "./callers.ts";
import { driveFaults, type FaultKind } from "./faults.ts";
import { type Fleet, openFleet } from "./fleet.ts";
import { createPublisher, type Publisher } from "./publishers.ts";
import { openRawCaller, type RawCaller } from "./raw.ts";
import { RequestJudge } from "./requests.ts";
import { judgeConvergence, judgeNothingLeft, judgeOpenFiles } from "./rest.ts";
import { ServedWatch } from "./served.ts";
import { createTroubles } from "./trouble.ts";
import type { ListTruth } from "./truth.ts";
import { createWriter, type Writer } from "./writers.ts";

export interface ChaosOptions {
  seed: number;
  minutes: number;
  matchers: number;
  lists: number;
  /** Faces of a list, from and to. */
  faces: { least: number; most: number };
  engines: readonly EngineName[];
  /** Callers through the plugin, a third of them with exact fallback, and raw ones. */
  callers: number;
  /** These faults in this order and then the end, instead of any until the time is over. */
  faults?: readonly FaultKind[];
  /** Nothing but this fault. */
  only?: FaultKind;
  /** No more faults once it fires; all that is judged in the end still is. */
  signal?: AbortSignal;
  log?: (text: string) => void;
}

export interface ChaosReport {
  ok: boolean;
  seed: number;
  faults: number;
  engines: readonly string[];
  seconds: number;
  figures: Record<string, Record<string, number>>;
  memory: MemoryOfService[];
  skipped: string[];
  violations: readonly string[];
  /** What happened before the first violation and just after it; of a good run the last of all. */
  history: readonly FaultEvent[];
  /** What services logged of the ids that the violations name. */
  evidence: string[];
}

export const chaosDefaults: ChaosOptions = {
  seed: 1,
  minutes: 5,
  matchers: 3,
  lists: 4,
  faces: { least: 500, most: 2_000 },
  engines: engineNames,
  callers: 9,
};

export interface World {
  servers: Servers;
  redis: TestRedis;
  db: FacesDb;
  /** Storage and scratch go there. */
  dir: string;
  restartPostgres?: () => Promise<void>;
}

const dim = 64;
const descriptorVersion = 1;
const labelKeyTtlMs = 2_000;
const historyEvents = 60;
const lastQuestions = 20;
const lastTimeoutMs = 30_000;

/** Everything that runs, and how it is stopped. */
interface Stage {
  options: ChaosOptions;
  world: World;
  findings: Findings;
  storage: IndexStorage;
  storageRoot: string;
  scratchDir: string;
  redis: Redis;
  truths: Map<string, ListTruth>;
  writers: Writer[];
  plugins: { plugin: SearchPlugin; path: string }[];
  raws: RawCaller[];
  publisher: Publisher;
  fleet: Fleet;
  judge: RequestJudge;
  served: ServedWatch;
  troubles: ReturnType<typeof createTroubles>;
}

/** Runs matchers, callers, writers and a publisher, and lets faults happen until the time is over or a rule is broken. */
export async function runChaos(world: World, options: ChaosOptions): Promise<ChaosReport> {
  const startMs = performance.now();
  const broken = new AbortController();
  const findings = createFindings({ onViolation: () => broken.abort() });
  const mark = randomUUID();
  const stop = new AbortController();
  let stage: Stage | undefined;
  let faults = 0;
  let background: Promise<unknown> = Promise.resolve();
  const memory = createMemoryWatch(
    () => stage?.fleet.members.flatMap(({ place }) => place.service() ?? []) ?? [],
  );
  try {
    stage = await setUp(world, options, findings, mark);
    const load = new AbortController();
    const watching = Promise.all([stage.fleet.watch(stop.signal), memory.run(stop.signal)]);
    const busy = loadOf(stage, load.signal);
    background = Promise.allSettled([watching, busy]);
    faults = await faultsUntil(stage, broken.signal, startMs + options.minutes * 60_000);
    options.log?.("faults are over, waiting for rest");
    load.abort();
    await busy;
    if (!broken.signal.aborted) await settle(stage);
  } catch (thrown) {
    findings.violation(
      `the run ended early: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : thrown}`,
    );
  } finally {
    stop.abort();
    if (stage) await tearDown(stage);
    await background;
  }
  await judgeProcesses(markOf(mark), findings);
  await judgeSessions(world.servers.postgres.url, findings);
  const seconds = Math.round((performance.now() - startMs) / 100) / 10;
  return reportOf({ options, findings, faults, seconds, memory: memory.figures(), stage });
}

async function setUp(world: World, options: ChaosOptions, findings: Findings, mark: string): Promise<Stage> {
  const { db, servers } = world;
  const storageRoot = join(world.dir, "index-storage");
  const scratchDir = join(world.dir, "scratch");
  await mkdir(scratchDir, { recursive: true });
  const storage = await openIndexStorage({ root: storageRoot });
  const redis = new Redis(servers.redis.url, { commandTimeout: 2_000, maxRetriesPerRequest: 1 });
  redis.on("error", () => {});
  const truths = new Map<string, ListTruth>();
  const writers: Writer[] = [];
  for (let i = 0; i < options.lists; i++) {
    const chances = chancesOf(options.seed, 1, i);
    const writer = await createWriter({
      ...{ db, chances, findings, dim, descriptorVersion },
      faces: options.faces,
    });
    writers.push(writer);
    truths.set(writer.truth.listId, writer.truth);
  }
  const troubles = createTroubles();
  const served = new ServedWatch({ findings, truths, keyTtlMs: labelKeyTtlMs });
  const judge = new RequestJudge({ findings, watch: served, troubles });
  const publisher = await createPublisher({
    ...{ db, storage, findings, dim, descriptorVersion },
    workshop: join(world.dir, "workshop"),
    engines: options.engines,
    labels: () => [...truths.keys()],
    chances: chancesOf(options.seed, 2),
    damaged: judge.damaged,
  });
  for (const [i, label] of [...truths.keys()].entries())
    await publisher.publish(label, options.engines[i % options.engines.length]);
  const fleet = await openFleet({
    ...{ servers, served, findings, troubles, redis },
    size: options.matchers,
    env: (place) => ({
      ...matcherEnv({ storageRoot, scratchDir, mark }),
      // All but one share a cache folder.
      ...(place === 0 ? {} : { LIM_MATCHER_CACHE: join(world.dir, "cache") }),
    }),
    chances: (place) => chancesOf(options.seed, 3, place),
  });
  await Promise.all(fleet.members.map((member) => fleet.start(member)));
  const plugins = await openPlugins(servers);
  const raws = await openRaws(servers.redis.url, findings);
  return {
    ...{ options, world, findings, storage, storageRoot, scratchDir, redis, truths, writers },
    ...{ plugins, raws, publisher, fleet, judge, served, troubles },
  };
}

function matcherEnv(how: { storageRoot: string; scratchDir: string; mark: string }): Record<string, string> {
  return {
    LIM_STORAGE_ROOT: how.storageRoot,
    TMPDIR: how.scratchDir,
    LIM_CHAOS_RUN: how.mark,
    LIM_API_TOKEN: "",
    LIM_DESCRIPTOR_DIM: String(dim),
    LIM_DESCRIPTOR_VERSION: String(descriptorVersion),
    LIM_RELOAD_PERIOD_MS: "200",
    LIM_REFRESH_PERIOD_MS: "50",
    LIM_LABEL_KEY_TTL_MS: String(labelKeyTtlMs),
    LIM_LABEL_KEY_RENEW_MS: "500",
    LIM_BATCH_SIZE: "16",
    // Wide enough that a face asked for by its own vector is found whatever the graph.
    LIM_EF_SEARCH: "300",
  };
}

async function openPlugins(servers: Servers): Promise<Stage["plugins"]> {
  const common = { redis: { url: servers.redis.url }, dim, descriptorVersion };
  return [
    { path: "index only", plugin: await createSearchPlugin(common) },
    {
      path: "with exact fallback",
      plugin: await createSearchPlugin({
        ...common,
        facesDb: { connectionString: servers.postgres.url },
      }),
    },
  ];
}

async function openRaws(url: string, findings: Findings): Promise<RawCaller[]> {
  return [
    await openRawCaller({ url, over: "stream", findings }),
    await openRawCaller({ url, over: "channel", findings }),
  ];
}

/** Callers, writers and the publisher until the signal fires. */
async function loadOf(stage: Stage, signal: AbortSignal): Promise<void> {
  const { options, plugins, raws, writers, publisher } = stage;
  const calls = Array.from({ length: options.callers }, (_, i) => {
    const deps = { ...stage, dim, descriptorVersion, signal, chances: chancesOf(options.seed, 4, i) };
    const raw = raws[Math.floor(i / 3) % raws.length];
    const plugin = plugins[i % 3 === 0 ? 1 : 0];
    if (i % 3 === 2 && raw) return callRaw({ ...deps, raw });
    return plugin ? callPlugin({ ...deps, ...plugin }) : Promise.resolve();
  });
  await Promise.all([...calls, publisher.run(signal), ...writers.map((writer) => writer.run(signal))]);
}

async function faultsUntil(stage: Stage, broken: AbortSignal, untilMs: number): Promise<number> {
  const { options, world, raws, redis } = stage;
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), Math.max(0, untilMs - performance.now()));
  const signal = AbortSignal.any([broken, over.signal, ...(options.signal ? [options.signal] : [])]);
  try {
    return await driveFaults(
      {
        ...stage,
        ...{ dim, descriptorVersion, signal },
        redis: world.redis,
        raw: redis,
        callers: raws,
        chances: chancesOf(options.seed, 5),
        restartPostgres: world.restartPostgres,
        log: options.log ?? (() => {}),
      },
      { wanted: options.faults, only: options.only },
    );
  } finally {
    clearTimeout(timer);
  }
}

/** Everything is well again: it converges, and every question is answered. */
async function settle(stage: Stage): Promise<void> {
  const { fleet, findings, plugins, options, truths, storageRoot, scratchDir } = stage;
  await fleet.untilWhole();
  await judgeConvergence({ ...stage, db: stage.world.db, descriptorVersion });
  const chances = chancesOf(options.seed, 6);
  const [index] = plugins;
  if (!index) return;
  for (const truth of truths.values())
    for (let i = 0; i < lastQuestions; i++)
      await matchOnce({
        ...{ ...stage, ...index, truth, chances, dim, descriptorVersion },
        path: "in the end",
        timeoutMs: lastTimeoutMs,
      });
  const answered = findings.figures()["answers, in the end"];
  if (answered?.ok !== truths.size * lastQuestions)
    findings.violation(`in the end not every question was answered: ${JSON.stringify(answered)}`);
  await judgeOpenFiles(fleet, [storageRoot, scratchDir], findings);
}

async function tearDown(stage: Stage): Promise<void> {
  const { plugins, raws, fleet, redis, findings } = stage;
  await Promise.allSettled([
    ...plugins.map(({ plugin }) => plugin.close()),
    ...raws.map((raw) => raw.close()),
  ]);
  await fleet.close().catch((error: unknown) => findings.violation(textOf(error)));
  if (findings.violations.length === 0)
    await judgeNothingLeft(stage).catch((error: unknown) =>
      findings.violation(`left-overs were not judged: ${textOf(error)}`),
    );
  redis.disconnect();
}

function reportOf(run: {
  options: ChaosOptions;
  findings: Findings;
  faults: number;
  seconds: number;
  memory: MemoryOfService[];
  stage: Stage | undefined;
}): ChaosReport {
  const { options, findings, stage } = run;
  const first = findings.events.findIndex(({ kind }) => kind === "VIOLATION");
  const end = first === -1 ? findings.events.length : first + historyEvents / 2;
  return {
    ok: findings.violations.length === 0,
    seed: options.seed,
    faults: run.faults,
    engines: options.engines,
    seconds: run.seconds,
    figures: findings.figures(),
    memory: run.memory,
    skipped: [...findings.skipped],
    violations: findings.violations,
    history: findings.events.slice(Math.max(0, end - historyEvents), end),
    evidence: evidenceOf(stage?.fleet.everyone ?? [], findings.violations),
  };
}
