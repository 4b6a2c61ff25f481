// Medians, ratios, tables and goals of part "throughput".
import type { GoalFigure } from "../build/goals.ts";
import { ratioText } from "../build/tables.ts";
import { median, ratios, type Spread, spreadOf } from "../engine/figures.ts";
import { outsideFigure } from "./goals.ts";
import type { Table } from "./run.ts";
import type { Measured, Round } from "./throughput.ts";

export interface WaySummary {
  perS: number;
  p50Ms: number;
  p99Ms: number;
  failed: number;
  reasons: string[];
  cpuUs: Measured["cpuUs"];
}

export interface CallersSummary {
  callers: number;
  matcher: WaySummary;
  streamsEcho: WaySummary;
  plainEcho: WaySummary;
  /** One query a call, as many at a time as there are callers. */
  bare: { perS: number; p50Ms: number; p99Ms: number };
  /**
   * Processor time of a match outside its search, microseconds: without what the engine's threads spent, or where the system
   * does not tell that, without a search of the saturated engine.
   */
  outsideUs: Spread | undefined;
  /** What the engine's threads spent on it. */
  engineUs: Spread | undefined;
  /** The same to that of the plain echo, and of the streams' own. */
  outsideToPlain: Spread | undefined;
  outsideToStreams: Spread | undefined;
  /** Matches/s to those of the saturated engine, and to as many callers of the bare engine. */
  rateToSaturated: Spread | undefined;
  rateToBare: Spread | undefined;
  p99ToBare: Spread | undefined;
}

export interface Summary {
  /** The engine alone with all its threads busy. */
  saturated: { perS: number; cpuUsPerQuery: number };
  byCallers: CallersSummary[];
}

export function summaryOf(rounds: readonly Round[]): Summary {
  const saturated = rounds.map((round) => round.saturated);
  const first = rounds[0]?.byCallers ?? [];
  return {
    saturated: {
      perS: median(saturated.map(({ queriesPerS }) => queriesPerS)),
      cpuUsPerQuery: median(saturated.map(({ cpuUsPerQuery }) => cpuUsPerQuery)),
    },
    byCallers: first.map(({ callers }, at) => {
      const of = rounds.flatMap((round) => round.byCallers[at] ?? []);
      const matchers = of.map(({ matcher }) => matcher);
      const bare = of.map((one) => one.bare);
      // Round by round: neighbours in time, on which a slow moment of the machine weighs alike.
      const outsideUs = matchers.map(
        ({ cpuUs, engineUs }, round) =>
          cpuUs.total - (engineUs ?? saturated[round]?.cpuUsPerQuery ?? Number.NaN),
      );
      const perS = matchers.map((matcher) => matcher.perS);
      return {
        callers,
        matcher: wayOf(matchers),
        streamsEcho: wayOf(of.map(({ streamsEcho }) => streamsEcho)),
        plainEcho: wayOf(of.map(({ plainEcho }) => plainEcho)),
        bare: {
          perS: median(bare.map(({ queriesPerS }) => queriesPerS)),
          p50Ms: median(bare.map(({ latency }) => latency.p50Ms)),
          p99Ms: median(bare.map(({ latency }) => latency.p99Ms)),
        },
        outsideUs: spreadOf(outsideUs),
        engineUs: spreadOf(matchers.flatMap(({ engineUs }) => engineUs ?? [])),
        outsideToPlain: ratios(
          outsideUs,
          of.map(({ plainEcho }) => plainEcho.cpuUs.total),
        ),
        outsideToStreams: ratios(
          outsideUs,
          of.map(({ streamsEcho }) => streamsEcho.cpuUs.total),
        ),
        rateToSaturated: ratios(
          perS,
          saturated.map(({ queriesPerS }) => queriesPerS),
        ),
        rateToBare: ratios(
          perS,
          bare.map(({ queriesPerS }) => queriesPerS),
        ),
        p99ToBare: ratios(
          matchers.map(({ p99Ms }) => p99Ms),
          bare.map(({ latency }) => latency.p99Ms),
        ),
      };
    }),
  };
}

function wayOf(measured: readonly Measured[]): WaySummary {
  const middle = (value: (one: Measured) => number) => median(measured.map(value));
  return {
    perS: middle(({ perS }) => perS),
    p50Ms: middle(({ p50Ms }) => p50Ms),
    p99Ms: middle(({ p99Ms }) => p99Ms),
    failed: measured.reduce((sum, { failed }) => sum + failed, 0),
    reasons: [...new Set(measured.flatMap(({ reasons }) => reasons))],
    cpuUs: {
      answering: middle(({ cpuUs }) => cpuUs.answering),
      callers: middle(({ cpuUs }) => cpuUs.callers),
      redis: middle(({ cpuUs }) => cpuUs.redis),
      total: middle(({ cpuUs }) => cpuUs.total),
    },
  };
}

const thousands = (value: number) => Math.round(value).toLocaleString("en-US");
const ms = (value: number) => value.toFixed(2);
const us = (value: number) => value.toFixed(1);

export function tablesOf(where: string, { saturated, byCallers }: Summary, restMsPerS: number): Table[] {
  const rate = (way: { perS: number; p50Ms: number; p99Ms: number; failed?: number }) => [
    thousands(way.perS),
    ms(way.p50Ms),
    ms(way.p99Ms),
    way.failed === undefined ? "" : String(way.failed),
  ];
  const cpu = ({ cpuUs }: WaySummary) =>
    [cpuUs.answering, cpuUs.callers, cpuUs.redis, cpuUs.total].map((value) => us(value));
  return [
    {
      title: `Matches of ${where}; the engine saturated: ${thousands(saturated.perS)}/s`,
      head: ["callers", "", "/s", "p50 ms", "p99 ms", "failed", "to saturated", "to bare", "p99 to bare"],
      rows: byCallers.flatMap((row) => [
        [
          String(row.callers),
          "matcher",
          ...rate(row.matcher),
          ratioText(row.rateToSaturated),
          ratioText(row.rateToBare),
          ratioText(row.p99ToBare),
        ],
        ["", "bare engine", ...rate(row.bare)],
        ["", "echo, streams' code", ...rate(row.streamsEcho)],
        ["", "echo, plain calls", ...rate(row.plainEcho)],
      ]),
    },
    {
      title:
        `Processor time of a request, µs; of a search by the saturated engine: ${us(saturated.cpuUsPerQuery)}; ` +
        `a matcher at rest: ${us(restMsPerS)} ms/s`,
      head: [
        "callers",
        "",
        "answering",
        "callers",
        "redis",
        "all",
        "engine's threads",
        "outside them",
        "to plain",
        "to streams'",
      ],
      rows: byCallers.flatMap((row) => [
        [
          String(row.callers),
          "matcher",
          ...cpu(row.matcher),
          row.engineUs ? us(row.engineUs.median) : "not told",
          us(row.outsideUs?.median ?? Number.NaN),
          ratioText(row.outsideToPlain),
          ratioText(row.outsideToStreams),
        ],
        ["", "echo, streams' code", ...cpu(row.streamsEcho)],
        ["", "echo, plain calls", ...cpu(row.plainEcho)],
      ]),
    },
  ];
}

export function goalsOf(where: string, { byCallers }: Summary): GoalFigure[] {
  return byCallers.flatMap(({ callers, outsideToPlain }) =>
    outsideFigure(`${where}, ${callers} ${callers === 1 ? "caller" : "callers"}`, outsideToPlain?.median),
  );
}
