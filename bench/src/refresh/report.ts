import type { EngineName } from "@lim/contracts";
import { median } from "../engine/figures.ts";
import type { ClosedLoopFigures } from "../load/closed-loop.ts";
import type { Latencies } from "../load/latencies.ts";
import type { OpenLoopFigures } from "../load/open-loop.ts";

/** Load without changes, then the same load beside writers of a list that is not served, then with changes. */
export interface FlowWindow {
  without: OpenLoopFigures;
  /** What writers and Postgres take on the same cores: no refresh can do better than this. */
  elsewhere: OpenLoopFigures;
  during: OpenLoopFigures;
  writtenPerS: number;
  /** Until the last change was in answers, which may be past the writers' end. */
  followedPerS: number;
  /** Revisions that answers lacked when the writers had ended. */
  behindAtEnd: number;
  /** Processor time of the matcher beyond that of its matches. */
  cpuMsPerChange: number;
  /** From a transaction's commit to the first answer that has it; `missing`: transactions that no answer had. */
  findable: { latency: Latencies; missing: number };
  /** Faces that a search found, or did not find, though they were unlinked, or linked. */
  wrong: number;
}

export interface FlowFigure {
  askedPerS: number;
  windows: FlowWindow[];
}

export interface BurstFigure {
  faces: number;
  writeS: number;
  /** From its first transaction to the answer that has all of it. */
  drainS: number;
  drainedPerS: number;
  engineThreadPerS: number;
  engineCpuMsPerRow: number;
  drainRatio: number;
  without: OpenLoopFigures;
  during: OpenLoopFigures;
  p99Ratio: number;
}

export interface EngineFigures {
  engine: EngineName;
  saturated: ClosedLoopFigures;
  loadPerS: number;
  flows: FlowFigure[];
  burst: BurstFigure;
}

export interface FlowSummary {
  writtenPerS: number;
  followedPerS: number;
  withoutP99Ms: number;
  p50Ms: number;
  p99Ms: number;
  /** Window by window, with changes to without. */
  p50Ratio: number;
  p99Ratio: number;
  /** As `p99Ratio`, of changes elsewhere. */
  elsewhereP99Ratio: number;
  findableP50Ms: number;
  findableP99Ms: number;
  cpuMsPerChange: number;
  wrong: number;
  missing: number;
}

/** Medians of the windows; what was wrong or missing is added up. */
export function summaryOf({ windows }: FlowFigure): FlowSummary {
  const of = (figure: (window: FlowWindow) => number) => median(windows.map(figure));
  const sum = (figure: (window: FlowWindow) => number) => windows.reduce((all, one) => all + figure(one), 0);
  return {
    writtenPerS: of((one) => one.writtenPerS),
    followedPerS: of((one) => one.followedPerS),
    withoutP99Ms: of((one) => one.without.latency.p99Ms),
    p50Ms: of((one) => one.during.latency.p50Ms),
    p99Ms: of((one) => one.during.latency.p99Ms),
    p50Ratio: of((one) => one.during.latency.p50Ms / one.without.latency.p50Ms),
    p99Ratio: of((one) => one.during.latency.p99Ms / one.without.latency.p99Ms),
    elsewhereP99Ratio: of((one) => one.elsewhere.latency.p99Ms / one.without.latency.p99Ms),
    findableP50Ms: of((one) => one.findable.latency.p50Ms),
    findableP99Ms: of((one) => one.findable.latency.p99Ms),
    cpuMsPerChange: of((one) => one.cpuMsPerChange),
    wrong: sum((one) => one.wrong),
    missing: sum((one) => one.findable.missing),
  };
}

const goals = { p99Ratio: 1.5, findableP99Ms: 1_000, drainRatio: 0.5, burstP99Ratio: 2, ratePerS: 1_000 };

/** Answers that were wrong or missing: never to be excused by a busy machine. */
export function faultsOf({ engine, flows, burst }: EngineFigures): string[] {
  const loads = [
    ...flows.flatMap(({ windows }) => windows.flatMap((one) => [one.without, one.elsewhere, one.during])),
    burst.without,
    burst.during,
  ];
  const failed = loads.reduce((sum, figures) => sum + figures.failed, 0);
  const summaries = flows.map(summaryOf);
  const wrong = summaries.reduce((sum, flow) => sum + flow.wrong, 0);
  const missing = summaries.reduce((sum, flow) => sum + flow.missing, 0);
  return [
    ...(failed > 0 ? [`${engine}: ${failed} matches failed`] : []),
    ...(wrong > 0 ? [`${engine}: ${wrong} answers were wrong`] : []),
    ...(missing > 0 ? [`${engine}: ${missing} transactions never came into answers`] : []),
  ];
}

/** Goals are of engine hnsw; of hnswlib the rate that it follows is stated. */
export function missedOf({ engine, flows, burst }: EngineFigures): string[] {
  if (engine !== "hnsw") return [];
  const missed: string[] = [];
  const flow = flows.find(({ askedPerS }) => askedPerS === goals.ratePerS);
  const summary = flow && summaryOf(flow);
  if (summary && !(summary.p99Ratio <= goals.p99Ratio))
    missed.push(
      `p99 at ${goals.ratePerS} changes/s: ${summary.p99Ratio.toFixed(2)} ×, goal ${goals.p99Ratio}`,
    );
  if (summary && !(summary.findableP99Ms <= goals.findableP99Ms))
    missed.push(`findable p99: ${summary.findableP99Ms.toFixed(0)} ms, goal ${goals.findableP99Ms}`);
  if (!(burst.drainRatio >= goals.drainRatio))
    missed.push(`burst: ${burst.drainRatio.toFixed(2)} of one thread's rate, goal ${goals.drainRatio}`);
  if (!(burst.p99Ratio <= goals.burstP99Ratio))
    missed.push(`p99 in a burst: ${burst.p99Ratio.toFixed(2)} ×, goal ${goals.burstP99Ratio}`);
  return missed;
}

const head = [
  "changes/s",
  "written",
  "followed",
  "p99 without",
  "p50 ms",
  "p99 ms",
  "× p50",
  "× p99",
  "× elsewhere",
  "found p50",
  "found p99",
  "cpu ms each",
  "wrong",
];

export function tableOf(figures: EngineFigures): string {
  const { engine, saturated, loadPerS, burst } = figures;
  const rows = figures.flows.map((flow) => {
    const one = summaryOf(flow);
    return [
      String(flow.askedPerS),
      one.writtenPerS.toFixed(0),
      one.followedPerS.toFixed(0),
      one.withoutP99Ms.toFixed(1),
      one.p50Ms.toFixed(1),
      one.p99Ms.toFixed(1),
      one.p50Ratio.toFixed(2),
      one.p99Ratio.toFixed(2),
      one.elsewhereP99Ratio.toFixed(2),
      one.findableP50Ms.toFixed(0),
      one.findableP99Ms.toFixed(0),
      one.cpuMsPerChange.toFixed(2),
      String(one.wrong + one.missing),
    ];
  });
  const line = (cells: string[]) => cells.map((cell) => cell.padStart(13)).join("");
  return [
    `${engine}: saturated at ${saturated.answeredPerS.toFixed(0)} matches/s by ${saturated.callers} callers, asked ${loadPerS.toFixed(0)}/s`,
    line(head),
    ...rows.map(line),
    "× elsewhere: p99 beside the same writers at a list that is not served, to that without; the rest of × p99 is refresh",
    `burst of ${burst.faces}: written in ${burst.writeS.toFixed(1)} s, drained in ${burst.drainS.toFixed(1)} s ` +
      `(${burst.drainedPerS.toFixed(0)}/s, ${burst.drainRatio.toFixed(2)} of one thread's ${burst.engineThreadPerS.toFixed(0)}/s), ` +
      `p99 ${burst.during.latency.p99Ms.toFixed(1)} ms, ${burst.p99Ratio.toFixed(2)} ×; one insertion: ${burst.engineCpuMsPerRow.toFixed(2)} ms of processor`,
  ].join("\n");
}
