import type { Spread } from "./figures.ts";

export type GoalName =
  | "build"
  | "search"
  | "buildThreads"
  | "searchThreads"
  | "bytes"
  | "writer"
  | "load"
  | "drops"
  | "rankOne"
  | "realRecall"
  | "churn";

interface Goal {
  text: string;
  unit: string;
  atLeast?: number;
  atMost?: number;
}

/** What the engine is to reach; ratios are to hnswlib-node as installed where nothing else is said. */
export const goals: Record<GoalName, Goal> = {
  build: { text: "build per core, ratio to hnswlib-node", unit: "×", atLeast: 4.5 },
  search: { text: "search per core at recall ≥ .998, ratio to hnswlib-node", unit: "×", atLeast: 3.5 },
  buildThreads: { text: "build on two threads, ratio to one", unit: "×", atLeast: 1.8 },
  searchThreads: { text: "search on two threads, ratio to one", unit: "×", atLeast: 1.9 },
  bytes: { text: "resident bytes per vector without rows", unit: "B", atMost: 740 },
  writer: { text: "p99 of searches beside a writer, ratio to without", unit: "×", atMost: 1.5 },
  load: { text: "load of graph and 8-bit vectors, verified, files warm", unit: "s", atMost: 0.3 },
  drops: {
    text: "resident growth from the 5th to the 20th load and drop, in indexes",
    unit: "",
    atMost: 0.25,
  },
  rankOne: { text: "real faces: rank-1 short of exact at the default ef", unit: "", atMost: 0 },
  realRecall: { text: "real faces: recall@10 at the default ef", unit: "", atLeast: 0.99 },
  churn: { text: "recall@10 lost to a fresh build after 200 % churn", unit: "", atMost: 0.01 },
};

export interface GoalFigure {
  goal: GoalName;
  /** Which size or data. */
  where: string;
  /** Undefined: could not be measured. */
  measured: number | undefined;
  spread?: Spread | undefined;
}

export type Verdict = "met" | "missed" | "not measured";

export function verdictOf({ goal, measured }: GoalFigure): Verdict {
  const { atLeast = -Infinity, atMost = Infinity } = goals[goal];
  if (measured === undefined || Number.isNaN(measured)) return "not measured";
  return measured >= atLeast && measured <= atMost ? "met" : "missed";
}

/** A goal's figure from a ratio taken over rounds. */
export function ratioFigure(goal: GoalName, where: string, spread: Spread | undefined): GoalFigure {
  return { goal, where, measured: spread?.median, spread };
}

/** Rows of the table: goal, where, target, measured, spread, verdict. */
export function goalRows(figures: readonly GoalFigure[]): string[][] {
  return figures.map((figure) => {
    const { text, unit, atLeast, atMost } = goals[figure.goal];
    const target = atLeast === undefined ? `≤ ${atMost} ${unit}` : `≥ ${atLeast} ${unit}`;
    const { measured, spread } = figure;
    return [
      text,
      figure.where,
      target.trim(),
      measured === undefined ? "–" : `${formatFigure(measured)} ${unit}`.trim(),
      spread && spread.rounds > 1 ? `${formatFigure(spread.min)}–${formatFigure(spread.max)}` : "",
      verdictOf(figure),
    ];
  });
}

/** Three digits that matter, more where a figure lies near 1. */
export function formatFigure(value: number): string {
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 1.1) return value.toFixed(2);
  return value.toFixed(4);
}
