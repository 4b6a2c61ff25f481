// Arithmetic, tables and goals of part "reload".
import type { GoalFigure } from "../build/goals.ts";
import { ratioText } from "../build/tables.ts";
import { median, quantile, ratios, type Spread, spreadOf } from "../engine/figures.ts";
import { reloadFigures } from "./goals.ts";
import type { Stretch } from "./reload.ts";
import type { Table } from "./run.ts";

/** The first reloads fill pools; memory is to be flat after them. */
const firstFlatReload = 20;

export interface MemoryFigures {
  /** Reload from which on it is looked at, counted from 1. */
  from: number;
  medianBytes: number;
  minBytes: number;
  maxBytes: number;
  /** Of the straight line nearest to all of them. */
  slopeBytesPerReload: number;
  /** Of that line, from first to last, as a share of the median. */
  growth: number;
}

export interface ReloadSummary {
  reloads: number;
  seconds: { p50: number; max: number };
  /** Failed, or not sent because too many were unanswered. */
  failed: number;
  asked: number;
  reasons: string[];
  p50Ms: { during: number; without: number };
  p99Ms: { during: number; without: number };
  /** How much later than due requests were sent, worst stretch: a machine that stalls the callers stalls the matcher. */
  sentLateP99Ms: { during: number; without: number };
  p99Ratio: Spread | undefined;
  p50Ratio: Spread | undefined;
  /** Undefined where the system does not tell memory. */
  memory: MemoryFigures | undefined;
}

export function summaryOf(stretches: readonly Stretch[]): ReloadSummary {
  const reloads = stretches.flatMap((stretch) => stretch.reloads);
  const loads = stretches.flatMap(({ during, without }) => [during, without]);
  const seconds = reloads.map((reload) => reload.seconds);
  const of = (kind: "during" | "without", value: "p50Ms" | "p99Ms") =>
    stretches.map((stretch) => stretch[kind].latency[value]);
  const latest = (kind: "during" | "without") =>
    Math.max(...stretches.map((stretch) => stretch[kind].sentLateP99Ms));
  const both = (value: "p50Ms" | "p99Ms") => ({
    during: median(of("during", value)),
    without: median(of("without", value)),
  });
  return {
    reloads: reloads.length,
    seconds: { p50: quantile(seconds, 0.5), max: Math.max(...seconds) },
    failed: loads.reduce((sum, { failed, notSent }) => sum + failed + notSent, 0),
    asked: loads.reduce((sum, { latency, failed, notSent }) => sum + latency.count + failed + notSent, 0),
    reasons: [...new Set(loads.flatMap((load) => load.reasons))],
    p50Ms: both("p50Ms"),
    p99Ms: both("p99Ms"),
    sentLateP99Ms: { during: latest("during"), without: latest("without") },
    p50Ratio: ratios(of("during", "p50Ms"), of("without", "p50Ms")),
    p99Ratio: ratios(of("during", "p99Ms"), of("without", "p99Ms")),
    memory: memoryOfReloads(reloads.map(({ residentBytes }) => residentBytes)),
  };
}

/** Resident bytes after each reload. */
export function memoryOfReloads(residentBytes: readonly (number | undefined)[]): MemoryFigures | undefined {
  const from = Math.min(firstFlatReload, Math.ceil(residentBytes.length / 2));
  const bytes = residentBytes.slice(from - 1).filter((value) => value !== undefined);
  const spread = spreadOf(bytes);
  if (!spread || bytes.length < 2) return undefined;
  const slopeBytesPerReload = slopeOf(bytes);
  return {
    from,
    medianBytes: spread.median,
    minBytes: spread.min,
    maxBytes: spread.max,
    slopeBytesPerReload,
    growth: (slopeBytesPerReload * (bytes.length - 1)) / spread.median,
  };
}

/** Of the straight line with the least squares, by step from one value to the next. */
export function slopeOf(values: readonly number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  let both = 0;
  let steps = 0;
  values.forEach((value, at) => {
    both += (at - middle) * (value - mean);
    steps += (at - middle) ** 2;
  });
  return both / steps;
}

const ms = (value: number) => value.toFixed(2);
const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);

export function tablesOf(where: string, perS: number, summary: ReloadSummary): Table[] {
  const { p50Ms, p99Ms, memory, seconds, sentLateP99Ms } = summary;
  return [
    {
      title:
        `${summary.reloads} reloads of ${where}, one matcher, ${Math.round(perS)} matches/s asked for; ` +
        `${summary.failed} of ${summary.asked} requests failed`,
      head: ["", "during reloads", "without", "ratio"],
      rows: [
        ["p50 ms", ms(p50Ms.during), ms(p50Ms.without), ratioText(summary.p50Ratio)],
        ["p99 ms", ms(p99Ms.during), ms(p99Ms.without), ratioText(summary.p99Ratio)],
        ["sent later than due, p99 ms, worst stretch", ms(sentLateP99Ms.during), ms(sentLateP99Ms.without)],
        ["published to answering, s: median, longest", seconds.p50.toFixed(2), seconds.max.toFixed(2)],
        ...summary.reasons.map((reason) => [`failed: ${reason}`]),
      ],
    },
    {
      title: `Resident memory of the matcher after each reload of ${where}, MiB`,
      head: memory ? ["", "figure"] : ["not measured: the system does not tell, or too few reloads"],
      rows: memory
        ? [
            [`median from reload ${memory.from} on`, mebibytes(memory.medianBytes)],
            ["least", mebibytes(memory.minBytes)],
            ["most", mebibytes(memory.maxBytes)],
            ["slope a reload", (memory.slopeBytesPerReload / 2 ** 20).toFixed(3)],
            ["growth by the slope, share of the median", memory.growth.toFixed(3)],
          ]
        : [],
    },
  ];
}

export function goalsOf(where: string, summary: ReloadSummary): GoalFigure[] {
  return reloadFigures(where, {
    failed: summary.failed,
    p99Ratio: summary.p99Ratio?.median,
    growth: summary.memory?.growth,
  });
}
