/** What a figure is to reach. `undefined`: the issue names no goal for it. */
export interface Goal {
  text: string;
  atLeast?: number;
  atMost?: number;
}

export interface GoalFigure extends Goal {
  where: string;
  /** Undefined: could not be measured. */
  measured: number | undefined;
}

export type Verdict = "met" | "missed" | "not measured";

/** Descriptors/s of the whole build to those of the bare engine, by the faces of the list. */
const buildGoals = [
  { faces: 100_000, atLeast: 0.9 },
  { faces: 20_000, atLeast: 0.7 },
];
const memoryAtMost = 1.3;
const slowedAtMost = 0.1;

export function buildFigure(faces: number, where: string, measured: number | undefined): GoalFigure[] {
  const goal = buildGoals.find((one) => faces >= one.faces);
  if (!goal) return [];
  return [
    { text: "Postgres to published, ratio to the bare engine", atLeast: goal.atLeast, where, measured },
  ];
}

/** Below the smallest list that has a goal, what every process costs outweighs the data. */
export function memoryFigure(faces: number, where: string, measured: number | undefined): GoalFigure[] {
  if (!buildGoals.some((one) => faces >= one.faces)) return [];
  return [
    { text: "peak memory above an idle process, to vectors + graph", atMost: memoryAtMost, where, measured },
  ];
}

export function writersFigure(where: string, measured: number | undefined): GoalFigure[] {
  return [{ text: "writers slowed by a running snapshot", atMost: slowedAtMost, where, measured }];
}

export function verdictOf({ atLeast = -Infinity, atMost = Infinity, measured }: GoalFigure): Verdict {
  if (measured === undefined || Number.isNaN(measured)) return "not measured";
  return measured >= atLeast && measured <= atMost ? "met" : "missed";
}

/** Rows of the table: goal, where, target, measured, verdict. */
export function goalRows(figures: readonly GoalFigure[]): string[][] {
  return figures.map((figure) => {
    const { text, where, atLeast, atMost, measured } = figure;
    return [
      text,
      where,
      atLeast === undefined ? `≤ ${atMost}` : `≥ ${atLeast}`,
      measured === undefined ? "–" : measured.toFixed(3),
      verdictOf(figure),
    ];
  });
}
