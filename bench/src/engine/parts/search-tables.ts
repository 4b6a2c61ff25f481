import { type CurvePoint, fastestFrom, perSAtRecall } from "../curve.ts";
import { type Latency, ratios, type Spread, spreadOf } from "../figures.ts";
import { formatFigure } from "../goals.ts";
import { inThousands, type Table } from "../run.ts";

export interface Setting {
  ef: number;
  /** Rows that are re-ranked; undefined is the engine's default. */
  depth?: number | undefined;
}

/** One setting over the rounds. */
export interface Series {
  label: string;
  setting: Setting;
  recall: number;
  perS: number[];
  cpuUs: number[];
}

export interface Curves {
  hnswlib: Series[];
  one: Series[];
  two: Series[];
}

export interface LatencyRow {
  engine: string;
  setting: string;
  latency: Latency;
}

export const goalRecall = 0.998;
const equalRecalls = [0.95, 0.98, 0.99, 0.998];

export const labelOf = ({ ef, depth }: Setting): string =>
  depth === undefined ? `ef ${ef}` : `ef ${ef}, re-rank ${depth === 0 ? "none" : depth}`;

export function roundPoints(series: readonly Series[], round: number): CurvePoint[] {
  return series.map(({ label, recall, perS }) => ({ label, recall, perS: perS[round] ?? Number.NaN }));
}

export function medianPoints(series: readonly Series[]): CurvePoint[] {
  return series.map(({ label, recall, perS }) => ({
    label,
    recall,
    perS: spreadOf(perS)?.median ?? Number.NaN,
  }));
}

/** Searches per second by round: at an equal recall, or of the fastest setting from a recall on. */
function speedsOf(series: readonly Series[], recall: number, interpolated: boolean): (number | undefined)[] {
  const rounds = series[0]?.perS.length ?? 0;
  return Array.from({ length: rounds }, (_, round) => {
    const points = roundPoints(series, round);
    return interpolated ? perSAtRecall(points, recall) : fastestFrom(points, recall)?.perS;
  });
}

/** The same settings by searches for a second of processor time, all threads of the process counted. */
function byProcessorTime(series: readonly Series[]): Series[] {
  return series.map((one) => ({ ...one, perS: one.cpuUs.map((cpuUs) => 1e6 / cpuUs) }));
}

/** Ratios at the goal's recall: ours per core to hnswlib, and two threads to one at the same setting. */
export function goalRatios(curves: Curves): Record<"perCore" | "perCpu" | "threads", Spread | undefined> {
  const one = speedsOf(curves.one, goalRecall, false);
  const perCore = ratios(one, speedsOf(curves.hnswlib, goalRecall, false));
  const fastest = fastestFrom(medianPoints(curves.one), goalRecall)?.label;
  const at = (series: readonly Series[]) => series.find(({ label }) => label === fastest)?.perS ?? [];
  const threads = ratios(at(curves.two), at(curves.one));
  return { perCore, perCpu: processorRatio(curves, goalRecall, false), threads };
}

const speedText = (speeds: readonly (number | undefined)[]) => {
  const spread = spreadOf(speeds);
  if (!spread) return "–";
  const range = spread.rounds > 1 ? ` (${inThousands(spread.min)}–${inThousands(spread.max)})` : "";
  return inThousands(spread.median) + range;
};
const ratioText = (spread: Spread | undefined) => (spread ? `${formatFigure(spread.median)} ×` : "–");

function processorRatio(curves: Curves, recall: number, interpolated: boolean): Spread | undefined {
  const [one, hnswlib] = [byProcessorTime(curves.one), byProcessorTime(curves.hnswlib)];
  return ratios(speedsOf(one, recall, interpolated), speedsOf(hnswlib, recall, interpolated));
}

function recallRow(curves: Curves, recall: number, interpolated: boolean): string[] {
  const hnswlib = speedsOf(curves.hnswlib, recall, interpolated);
  const one = speedsOf(curves.one, recall, interpolated);
  const two = speedsOf(curves.two, recall, interpolated);
  const fastest = fastestFrom(medianPoints(curves.one), recall);
  return [
    interpolated ? `= ${recall}` : `≥ ${recall}`,
    speedText(hnswlib),
    speedText(one),
    speedText(two),
    ratioText(ratios(one, hnswlib)),
    ratioText(ratios(two, one)),
    ratioText(processorRatio(curves, recall, interpolated)),
    interpolated
      ? ""
      : `${fastestFrom(medianPoints(curves.hnswlib), recall)?.label ?? "–"} | ${fastest?.label ?? "–"}`,
  ];
}

export function searchTables(
  name: string,
  k: number,
  curves: Curves,
  latencies: readonly LatencyRow[],
): Table[] {
  const settings = (engine: string, series: readonly Series[]) =>
    series.map(({ label, recall, perS, cpuUs }) => [
      engine,
      label,
      recall.toFixed(4),
      speedText(perS),
      formatFigure(spreadOf(cpuUs)?.median ?? Number.NaN),
    ]);
  return [
    {
      title: `Settings on ${name}, recall@${k}, searches per second`,
      head: ["engine", "setting", "recall", "searches/s", "CPU µs"],
      rows: [
        ...settings("hnswlib-node", curves.hnswlib),
        ...settings("@lim/hnsw, 1 thread", curves.one),
        ...settings("@lim/hnsw, 2 threads", curves.two),
      ],
    },
    {
      title: `Searches per second at equal recall@${k} on ${name}`,
      head: [
        "recall",
        "hnswlib-node",
        "1 thread",
        "2 threads",
        "1 / hnswlib",
        "2 / 1",
        "1 / hnswlib by CPU time",
        "settings",
      ],
      rows: [
        ...equalRecalls.map((recall) => recallRow(curves, recall, true)),
        recallRow(curves, goalRecall, false),
      ],
    },
    {
      title: `One query at a time on ${name}, from call to answer`,
      head: ["engine", "setting", "p50 µs", "p99 µs", "p99.9 µs"],
      rows: latencies.map(({ engine, setting, latency }) => [
        engine,
        setting,
        latency.p50Us.toFixed(0),
        latency.p99Us.toFixed(0),
        latency.p999Us.toFixed(0),
      ]),
    },
  ];
}
