// Part "throughput": the matcher over the streams, the bare engine, and two echoes over the same streams, in turn.
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { EngineName } from "@lim/contracts";
import type { EngineProcess } from "../engine/rpc.ts";
import { managerCpuSeconds, redisCpuSeconds } from "../manager/cpu.ts";
import type { CallerOperations } from "./caller-child.ts";
import type { CallerKind } from "./callers.ts";
import type { EchoKind, EchoOperations } from "./echo-child.ts";
import { engineCpuSeconds } from "./engine-cpu.ts";
import type { IndexOperations, SearchFigures } from "./index-child.ts";
import { publishIndex } from "./indexes.ts";
import { withMatcher } from "./matcher.ts";
import { type PartResult, type Run, startChild } from "./run.ts";
import { goalsOf, summaryOf, tablesOf } from "./throughput-figures.ts";

/** What the matcher gives the engine at once, and enough of it that no thread of the engine waits. */
const saturation = { batch: 32, callers: 4 };
const warmUpMs = 2_000;

/** Answers of one kind at one number of callers, with what all processes spent on a request. */
export interface Measured {
  perS: number;
  p50Ms: number;
  p99Ms: number;
  failed: number;
  reasons: string[];
  /** Processor time of a request, microseconds. */
  cpuUs: { answering: number; callers: number; redis: number; total: number };
  /** Of that, what the engine's threads spent. */
  engineUs?: number;
}

export interface CallersRound {
  callers: number;
  /** One query a call, as many calls at a time as there are callers. */
  bare: SearchFigures;
  plainEcho: Measured;
  streamsEcho: Measured;
  matcher: Measured;
}

export interface Round {
  saturated: SearchFigures;
  byCallers: CallersRound[];
}

export interface Way {
  callers: EngineProcess<CallerOperations>;
  answeringCpuSeconds(): Promise<number>;
  engineCpuSeconds?: () => Promise<number | undefined>;
}

type Closers = (() => Promise<unknown>)[];

export async function measureThroughput(run: Run, engine: EngineName): Promise<PartResult> {
  const { options, lists, queriesPath, say } = run;
  const list = lists.throughput;
  if (!list) throw new Error("no list");
  const root = join(run.dir, `indexes-${engine}`);
  const place = await publishIndex(run, { engine, root, list });
  const nodeArgs = options.profile
    ? ["--cpu-prof", "--cpu-prof-dir", join(options.profile, `matcher-${engine}`)]
    : [];
  const { rounds, restMsPerS } = await withMatcher(run, root, { nodeArgs }, async ({ url, process }) => {
    const closers: Closers = [];
    try {
      const bare = startChild<IndexOperations>(run, "index-child", `bare ${engine}`);
      closers.push(() => bare.stop());
      await bare.call("open", { ...place, queriesPath });
      const way = await startCallers(run, closers, "plugin", list.listId, () => managerCpuSeconds(url));
      const matcher: Way = { ...way, engineCpuSeconds: () => engineCpuSeconds(process.pid) };
      const plain = await startEcho(run, closers, "plain");
      const streams = await startEcho(run, closers, "streams");
      const warm = {
        callers: options.callers.at(-1) ?? 1,
        durationMs: Math.min(warmUpMs, options.seconds * 500),
      };
      for (const { callers } of [plain, streams, matcher]) await callers.call("call", warm);
      const restMsPerS = await measureRest(run, matcher);
      if (options.profile) await matcher.callers.call("beginProfile", undefined as never);
      const measured: Round[] = [];
      for (let round = 0; round < options.rounds; round++) {
        say(`${engine}: round ${round + 1} of ${options.rounds}`);
        measured.push(await measureRound(run, { bare, matcher, plain, streams }));
      }
      const path = join(options.profile ?? "", `callers-${engine}.cpuprofile`);
      if (options.profile) await matcher.callers.call("endProfile", { path });
      return { rounds: measured, restMsPerS };
    } finally {
      for (const close of closers.toReversed()) await close();
    }
  });
  const where = `${engine}, ${list.faces.toLocaleString("en-US")} faces`;
  const summary = summaryOf(rounds);
  return {
    figures: { engine, faces: list.faces, restMsPerS, summary, rounds },
    tables: tablesOf(where, summary, restMsPerS),
    goals: goalsOf(where, summary),
  };
}

/** What a matcher that nobody asks costs, processor milliseconds a second: part of every figure of its requests. */
async function measureRest({ options, signal }: Run, { answeringCpuSeconds }: Way): Promise<number> {
  const before = await answeringCpuSeconds();
  await sleep(options.seconds * 1000, undefined, { signal });
  return (((await answeringCpuSeconds()) - before) * 1000) / options.seconds;
}

export async function startCallers(
  run: Run,
  closers: Closers,
  kind: CallerKind,
  label: string,
  answeringCpuSeconds: Way["answeringCpuSeconds"],
): Promise<Way> {
  const { redisUrl, queriesPath, options } = run;
  const { limit, dim } = options;
  const callers = startChild<CallerOperations>(run, "caller-child", `callers ${kind}`);
  closers.push(() => callers.stop());
  await callers.call("connect", { kind, redisUrl, label, limit, dim, queriesPath });
  return { callers, answeringCpuSeconds };
}

export async function startEcho(run: Run, closers: Closers, kind: EchoKind): Promise<Way> {
  const { redisUrl, options } = run;
  const label = randomUUID();
  const echo = startChild<EchoOperations>(run, "echo-child", `echo ${kind}`);
  closers.push(() => echo.stop());
  await echo.call("begin", { kind, redisUrl, label, limit: options.limit });
  return startCallers(run, closers, kind, label, () => echo.call("cpuSeconds", undefined as never));
}

interface Ways {
  bare: EngineProcess<IndexOperations>;
  matcher: Way;
  plain: Way;
  streams: Way;
}

async function measureRound(run: Run, ways: Ways): Promise<Round> {
  const { seconds, limit, ef } = run.options;
  const saturated = await ways.bare.call("search", { seconds, limit, ef, ...saturation });
  const byCallers: CallersRound[] = [];
  for (const callers of run.options.callers)
    byCallers.push({
      callers,
      bare: await ways.bare.call("search", { seconds, limit, ef, batch: 1, callers }),
      plainEcho: await measureWay(run, ways.plain, callers),
      streamsEcho: await measureWay(run, ways.streams, callers),
      matcher: await measureWay(run, ways.matcher, callers),
    });
  return { saturated, byCallers };
}

export async function measureWay({ redisUrl, options }: Run, way: Way, callers: number): Promise<Measured> {
  const answeringBefore = await way.answeringCpuSeconds();
  const redisBefore = await redisCpuSeconds(redisUrl);
  const engineBefore = await way.engineCpuSeconds?.();
  const called = await way.callers.call("call", { callers, durationMs: options.seconds * 1000 });
  const engineAfter = await way.engineCpuSeconds?.();
  const redis = (await redisCpuSeconds(redisUrl)) - redisBefore;
  const answering = (await way.answeringCpuSeconds()) - answeringBefore;
  const us = (cpuSeconds: number) => (cpuSeconds * 1e6) / called.requests;
  return {
    perS: called.answeredPerS,
    p50Ms: called.latency.p50Ms,
    p99Ms: called.latency.p99Ms,
    failed: called.failed,
    reasons: called.reasons,
    cpuUs: {
      answering: us(answering),
      callers: us(called.cpuSeconds),
      redis: us(redis),
      total: us(answering + called.cpuSeconds + redis),
    },
    ...(engineBefore === undefined || engineAfter === undefined
      ? {}
      : { engineUs: us(engineAfter - engineBefore) }),
  };
}
