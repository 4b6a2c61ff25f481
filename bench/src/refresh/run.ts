// One engine: a list, its matcher, load at half of saturation, then flows of changes and a burst beside that load.
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { defaults, type EngineName, encodeDescriptor } from "@lim/contracts";
import { createFaceGenerator, type FaceGenerator, faceIdOf } from "@lim/testkit";
import type { KeyedIndex } from "@lim/vector-index";
import { type EngineProcess, startEngine } from "../engine/rpc.ts";
import { closedLoop } from "../load/closed-loop.ts";
import {
  createBenchList,
  type MatchBench,
  probesOf,
  publishBenchIndex,
  startBenchMatcher,
  startMatchBench,
  untilServed,
} from "../load/matcher-stack.ts";
import { type OpenLoopFigures, openLoop } from "../load/open-loop.ts";
import { managerCpuSeconds } from "../manager/cpu.ts";
import { insertRate } from "./insert-rate.ts";
import type { Options } from "./options.ts";
import {
  type BurstFigure,
  type EngineFigures,
  type FlowFigure,
  type FlowWindow,
  summaryOf,
} from "./report.ts";
import { SeenRevisions } from "./revisions.ts";
import { epochMs, type WriterOperations } from "./writer-protocol.ts";

const probePersons = 1_000;
const warmUpMs = 1_500;
const maxInFlight = 2_000;
const timeoutMs = 30_000;
/** The longest that a flow or burst may take to be applied once its writers have ended. */
const drainLimitMs = 300_000;
const drainPollMs = 20;
const modelSeed = 1;

interface Run {
  options: Options;
  bench: MatchBench;
  matcherUrl: string;
  name: string;
  listId: string;
  generator: FaceGenerator;
  probes: readonly Buffer[];
  seen: SeenRevisions;
  writers: EngineProcess<WriterOperations>;
  /** Of a list that no matcher serves. */
  writersElsewhere: EngineProcess<WriterOperations>;
  /** Of the open loop. */
  perS: number;
}

async function match(run: Run, descriptor: Buffer, minRevision?: number) {
  const { bench, listId, options } = run;
  const reply = await bench.client.request({
    label: listId,
    rid: randomUUID(),
    descriptor,
    limit: options.limit,
    timeoutMs,
    ...(minRevision === undefined ? {} : { minRevision }),
  });
  run.seen.see(reply.revision ?? 0, epochMs());
  return reply;
}

const asking = (run: Run) => async (n: number) => {
  const reply = await match(run, run.probes[n % run.probes.length] ?? Buffer.alloc(0));
  return reply.status_code === 200 && reply.result.length > 0;
};

function load(run: Run, seed: number, durationMs: number, signal?: AbortSignal): Promise<OpenLoopFigures> {
  const loop = { perS: run.perS, durationMs, seed: run.options.seed * 1_000 + seed, maxInFlight };
  return openLoop({ ...loop, ask: asking(run), ...(signal ? { signal } : {}) });
}

async function untilSeen(run: Run, revision: number): Promise<void> {
  const untilMs = performance.now() + drainLimitMs;
  while (run.seen.latest < revision) {
    if (performance.now() > untilMs)
      throw new Error(`revision ${revision} was not applied in time, ${run.seen.latest} was`);
    await match(run, run.probes[0] ?? Buffer.alloc(0));
    await setTimeout(drainPollMs);
  }
}

/** Faces that were linked must be found first by their own vector, faces that were unlinked not at all. */
async function wrongAnswers(run: Run, linked: number[], unlinked: number[]): Promise<number> {
  let wrong = 0;
  const check = async (person: number, isLinked: boolean) => {
    const vector = run.generator.vector(person, 0);
    const { result } = await match(run, encodeDescriptor(vector, defaults.descriptorVersion));
    const faceId = faceIdOf(run.name, person);
    const isRight = isLinked ? result[0]?.[0] === faceId : result.every(([found]) => found !== faceId);
    if (!isRight) wrong++;
  };
  for (const person of linked) await check(person, true);
  for (const person of unlinked) await check(person, false);
  return wrong;
}

/** Processor seconds of the matcher, all its threads, while `work` runs; and how long that took. */
async function watched<T>(
  run: Run,
  work: () => Promise<T>,
): Promise<{ value: T; cpuS: number; elapsedS: number }> {
  const before = await managerCpuSeconds(run.matcherUrl);
  const startedMs = performance.now();
  const value = await work();
  const elapsedS = (performance.now() - startedMs) / 1_000;
  return { value, cpuS: (await managerCpuSeconds(run.matcherUrl)) - before, elapsedS };
}

/** Windows without changes and with them in turn, so that both meet the same neighbours on the machine. */
async function measureFlow(run: Run, perS: number, seed: number): Promise<FlowFigure> {
  const { options, seen, writers, writersElsewhere } = run;
  const durationMs = (options.seconds * 1_000) / options.windows;
  const args = { perS, durationMs, mix: options.mix };
  const windows: FlowWindow[] = [];
  for (let i = 0; i < options.windows; i++) {
    await writers.call("prepareFlow", args);
    const without = await watched(run, () => load(run, seed + i, durationMs));
    await writersElsewhere.call("prepareFlow", args);
    const [elsewhere] = await Promise.all([
      load(run, seed + i, durationMs),
      writersElsewhere.call("flow", args),
    ]);
    const fromRevision = seen.latest;
    const during = await watched(run, async () => {
      const [figures, flow] = await Promise.all([
        load(run, seed + i, durationMs),
        writers.call("flow", args),
      ]);
      const heldRevision = seen.latest;
      const last = flow.commits.at(-1)?.revision ?? heldRevision;
      await untilSeen(run, last);
      return { figures, flow, heldRevision, last };
    });
    const { figures, flow, heldRevision, last } = during.value;
    const wrong = await wrongAnswers(run, flow.linkedPersons, flow.unlinkedPersons);
    const changes = last - fromRevision;
    windows.push({
      without: without.value,
      elsewhere,
      during: figures,
      writtenPerS: flow.changesPerS,
      followedPerS: changes / during.elapsedS,
      behindAtEnd: last - heldRevision,
      cpuMsPerChange: Math.max(0, ((during.cpuS - without.cpuS) * 1_000) / changes),
      findable: seen.findable(flow.commits),
      wrong,
    });
  }
  return { askedPerS: perS, windows };
}

async function measureBurst(run: Run, keyed: KeyedIndex): Promise<BurstFigure> {
  const { options, seen, writers } = run;
  const faces = options.burst;
  await writers.call("prepareBurst", { faces });
  const [list] = await run.bench.db.listStates({ listIds: [run.listId] });
  const size = list?.faceCount ?? 0;
  const without = await load(run, 900, (options.seconds * 1_000) / options.windows);
  const stop = new AbortController();
  const loading = load(run, 901, drainLimitMs, stop.signal);
  const burst = await writers.call("burst", { faces });
  await untilSeen(run, burst.revision);
  const drainedMs = seen.firstAt(burst.revision) ?? Number.NaN;
  stop.abort();
  const during = await loading;
  const engine = await insertRate(run.generator, keyed, { name: run.name, size, faces });
  const drainedPerS = (faces * 1_000) / (drainedMs - burst.startedMs);
  return {
    faces,
    writeS: (burst.committedMs - burst.startedMs) / 1_000,
    drainS: (drainedMs - burst.startedMs) / 1_000,
    drainedPerS,
    engineThreadPerS: engine.perS,
    engineCpuMsPerRow: engine.cpuMsPerRow,
    drainRatio: drainedPerS / engine.perS,
    without,
    during,
    p99Ratio: during.latency.p99Ms / without.latency.p99Ms,
  };
}

export async function measureEngine(
  options: Options,
  engine: EngineName,
  dir: string,
  say: (text: string) => void,
): Promise<EngineFigures> {
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const { dim, faces } = options;
    const bench = await startMatchBench(dir, closers);
    const generator = createFaceGenerator({ dim, effectiveDim: dim * 0.64, seed: modelSeed });
    const name = `bench-refresh ${options.seed}`;
    const listId = await createBenchList(bench.db, { name, generator, persons: faces });
    const { keyed } = await publishBenchIndex(bench, { listId, engine, dim });
    closers.push(() => keyed.close());
    say(`${engine}: ${faces} faces indexed`);
    const { url: matcherUrl } = await startBenchMatcher(bench, { dim, env: options.matcherEnv }, closers);
    await untilServed(bench, listId);
    const startWriters = async (to: { listId: string; name: string }) => {
      const writers = startEngine<WriterOperations>({
        module: "../refresh/writer-child",
        name: "writers",
        limitMs: drainLimitMs * 4,
        signal: new AbortController().signal,
        onProgress: say,
      });
      closers.push(() => writers.stop());
      const databaseUrl = bench.postgresUrl;
      await writers.call("open", { ...to, databaseUrl, dim, modelSeed, writers: options.writers, faces });
      return writers;
    };
    const writers = await startWriters({ listId, name });
    const elsewhere = `${name} elsewhere`;
    const elsewhereId = await createBenchList(bench.db, { name: elsewhere, generator, persons: faces });
    const writersElsewhere = await startWriters({ listId: elsewhereId, name: elsewhere });
    const seen = new SeenRevisions();
    const probes = probesOf(generator, Math.min(faces, probePersons));
    const run: Run = {
      options,
      bench,
      matcherUrl,
      name,
      listId,
      generator,
      probes,
      seen,
      writers,
      writersElsewhere,
      perS: 1,
    };
    await closedLoop({ callers: options.callers, durationMs: warmUpMs, ask: asking(run) });
    const saturated = await closedLoop({
      callers: options.callers,
      durationMs: Math.max(2_000, options.seconds * 100),
      ask: asking(run),
    });
    run.perS = saturated.answeredPerS * options.loadShare;
    say(`${engine}: saturated at ${saturated.answeredPerS.toFixed(0)} matches/s`);
    const flows: FlowFigure[] = [];
    for (const [i, perS] of options.rates[engine].entries()) {
      const flow = await measureFlow(run, perS, 100 * (i + 1));
      flows.push(flow);
      const { p99Ratio, findableP99Ms } = summaryOf(flow);
      say(
        `${engine}: ${perS} changes/s: p99 ${p99Ratio.toFixed(2)} ×, findable p99 ${findableP99Ms.toFixed(0)} ms`,
      );
    }
    const burst = await measureBurst(run, keyed);
    return { engine, saturated, loadPerS: run.perS, flows, burst };
  } finally {
    for (const close of closers.toReversed()) await close().catch(() => undefined);
  }
}
