import type { GoalFigure } from "../build/goals.ts";

const outsideAtMost = 2;
const reloadP99AtMost = 1.5;
const growthAtMost = 0.05;

/** Processor time of a match outside its search, as a ratio to that of an echo. */
export function outsideFigure(where: string, measured: number | undefined): GoalFigure[] {
  return [
    { text: "CPU of a match outside the search, to an echo's", atMost: outsideAtMost, where, measured },
  ];
}

export function reloadFigures(
  where: string,
  measured: { failed: number; p99Ratio: number | undefined; growth: number | undefined },
): GoalFigure[] {
  return [
    { text: "requests failed during reloads", atMost: 0, where, measured: measured.failed },
    {
      text: "p99 during reloads, to p99 without",
      atMost: reloadP99AtMost,
      where,
      measured: measured.p99Ratio,
    },
    {
      text: "memory's growth from the 20th reload on, share of it",
      atMost: growthAtMost,
      where,
      measured: measured.growth,
    },
  ];
}
