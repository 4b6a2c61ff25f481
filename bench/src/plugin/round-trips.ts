// Part "round-trips": the plugin, answered by an echo over the streams, to as little as an echo can do by plain calls.
import { randomUUID } from "node:crypto";
import { connectRedis, createLabelAnnouncer } from "@lim/coordination";
import { descriptorVersion } from "../build/lists.ts";
import { ratioText } from "../build/tables.ts";
import { median, ratios, type Spread } from "../engine/figures.ts";
import type { EchoOperations } from "../match/echo-child.ts";
import { type PartResult, type Run, startChild } from "../match/run.ts";
import { type Measured, measureWay, startCallers, startEcho, type Way } from "../match/throughput.ts";

const warmUpMs = 1_000;
const ttlMs = 10_000;

type Closers = (() => Promise<unknown>)[];

interface CallersRound {
  callers: number;
  plain: Measured;
  plugin: Measured;
}

/** What a matcher would be, without a search: the streams' own code, and a label key. */
async function startServedEcho(run: Run, closers: Closers): Promise<Way> {
  const { redisUrl, options } = run;
  const label = randomUUID();
  const echo = startChild<EchoOperations>(run, "echo-child", "echo plugin");
  closers.push(() => echo.stop());
  await echo.call("begin", { kind: "streams", redisUrl, label, limit: options.limit });
  const redis = connectRedis({ url: redisUrl, name: "bench-announcer" });
  closers.push(() => redis.close());
  const announcer = createLabelAnnouncer({ redis, matcherId: "127.0.0.1:0", ttlMs, renewMs: ttlMs / 3 });
  closers.push(() => announcer.close());
  await announcer.announce(label, {
    index_id: randomUUID(),
    revision: 1,
    descriptor_version: descriptorVersion,
    dim: options.dim,
    count: 1_000_000,
    engine: "hnsw",
  });
  return startCallers(run, closers, "plugin", label, () => echo.call("cpuSeconds", undefined as never));
}

export async function measureRoundTrips(run: Run): Promise<PartResult> {
  const { callers, rounds } = run.options;
  const closers: Closers = [];
  try {
    const plain = await startEcho(run, closers, "plain");
    const plugin = await startServedEcho(run, closers);
    for (const way of [plain, plugin])
      await way.callers.call("call", { callers: callers.at(-1) ?? 1, durationMs: warmUpMs });
    const measured: CallersRound[][] = [];
    for (let round = 0; round < rounds; round++) {
      run.say(`round-trips: round ${round + 1} of ${rounds}`);
      const byCallers: CallersRound[] = [];
      for (const count of callers)
        byCallers.push({
          callers: count,
          plain: await measureWay(run, plain, count),
          plugin: await measureWay(run, plugin, count),
        });
      measured.push(byCallers);
    }
    const summary = callers.map((count, at) =>
      summaryOf(
        count,
        measured.flatMap((round) => round[at] ?? []),
      ),
    );
    return { figures: { summary, rounds: measured }, tables: [tableOf(summary)], goals: [] };
  } finally {
    for (const close of closers.toReversed()) await close();
  }
}

type Figures = Record<"perS" | "p50Ms" | "p99Ms" | "failed" | "callersUs" | "cpuUs", number>;

export interface RoundTripsSummary {
  callers: number;
  plain: Figures;
  plugin: Figures;
  /** Plugin to plain, round by round: answers a second, and processor time of a request in all processes. */
  rate: Spread | undefined;
  cpu: Spread | undefined;
}

function figuresOf(measured: readonly Measured[]): Figures {
  const middle = (value: (one: Measured) => number) => median(measured.map(value));
  return {
    perS: middle(({ perS }) => perS),
    p50Ms: middle(({ p50Ms }) => p50Ms),
    p99Ms: middle(({ p99Ms }) => p99Ms),
    failed: measured.reduce((sum, { failed }) => sum + failed, 0),
    callersUs: middle(({ cpuUs }) => cpuUs.callers),
    cpuUs: middle(({ cpuUs }) => cpuUs.total),
  };
}

export function summaryOf(
  callers: number,
  rounds: readonly Omit<CallersRound, "callers">[],
): RoundTripsSummary {
  const of = (value: (one: Measured) => number) =>
    ratios(
      rounds.map(({ plugin }) => value(plugin)),
      rounds.map(({ plain }) => value(plain)),
    );
  return {
    callers,
    plain: figuresOf(rounds.map(({ plain }) => plain)),
    plugin: figuresOf(rounds.map(({ plugin }) => plugin)),
    rate: of(({ perS }) => perS),
    cpu: of(({ cpuUs }) => cpuUs.total),
  };
}

function tableOf(summary: readonly RoundTripsSummary[]) {
  const cells = ({ perS, p50Ms, p99Ms, failed, callersUs, cpuUs }: Figures) => [
    Math.round(perS).toLocaleString("en-US"),
    p50Ms.toFixed(2),
    p99Ms.toFixed(2),
    String(failed),
    callersUs.toFixed(1),
    cpuUs.toFixed(1),
  ];
  return {
    title: "Requests answered by an echo: the plugin, and plain calls; ratios plugin to plain",
    head: ["callers", "", "/s", "p50 ms", "p99 ms", "failed", "callers µs", "all µs", "rate", "processor"],
    rows: summary.flatMap(({ callers, plain, plugin, rate, cpu }) => [
      [String(callers), "plugin", ...cells(plugin), ratioText(rate), ratioText(cpu)],
      ["", "plain", ...cells(plain)],
    ]),
  };
}
