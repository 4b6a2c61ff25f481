import { describe, expect, it } from "vitest";
import { evenly, fastestFrom, frontOf, perSAtRecall } from "../src/engine/curve.ts";
import {
  latencyOf,
  median,
  missingKey,
  quantile,
  rankOneOf,
  ratios,
  recallOf,
  spreadOf,
  withoutSelf,
} from "../src/engine/figures.ts";
import { type GoalFigure, goalRows, goals, verdictOf } from "../src/engine/goals.ts";
import { readOptions } from "../src/engine/options.ts";
import { churnSteps } from "../src/engine/plan.ts";
import { shuffle } from "../src/engine/shuffle.ts";
import { decadeTicks, drawCurves, escapeXml } from "../src/svg.ts";

const point = (recall: number, perS: number) => ({ label: `${recall}`, recall, perS });

describe("curve", () => {
  const points = [point(0.99, 1000), point(0.9, 4000), point(0.95, 900), point(0.999, 250), point(0.9, 3000)];

  it("keeps the points that no other beats", () => {
    expect(frontOf(points)).toEqual([point(0.9, 4000), point(0.99, 1000), point(0.999, 250)]);
  });

  it("interpolates the logarithm of speed between neighbours of the front", () => {
    expect(perSAtRecall(points, 0.945)).toBeCloseTo(2000, 6);
    expect(perSAtRecall(points, 0.99)).toBeCloseTo(1000, 9);
  });

  it("gives the first point's speed below it and nothing above the last", () => {
    expect(perSAtRecall(points, 0.5)).toBe(4000);
    expect(perSAtRecall(points, 0.9991)).toBeUndefined();
    expect(perSAtRecall([], 0.5)).toBeUndefined();
  });

  it("finds the fastest from a recall on", () => {
    expect(fastestFrom(points, 0.95)).toEqual(point(0.99, 1000));
    expect(fastestFrom(points, 1)).toBeUndefined();
  });

  it("thins evenly and keeps both ends", () => {
    const numbers = Array.from({ length: 31 }, (_, i) => i);
    expect(evenly(numbers, 4)).toEqual([0, 10, 20, 30]);
    expect(evenly([1, 2], 4)).toEqual([1, 2]);
  });
});

describe("figures", () => {
  it("takes quantiles and medians", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(quantile([5, 1, 4, 2, 3], 0.5)).toBe(3);
    expect(quantile([], 0.5)).toBeNaN();
    expect(latencyOf([1, 2, 3])).toMatchObject({ p50Us: 2000, p99Us: 3000, samples: 3 });
  });

  it("takes ratios round by round and leaves out rounds without a figure", () => {
    expect(ratios([2, undefined, 9, 8], [1, 1, 3, 2])).toEqual({ median: 3, min: 2, max: 4, rounds: 3 });
    expect(spreadOf([undefined, Number.NaN])).toBeUndefined();
  });

  it("counts each exact neighbour once", () => {
    const truth = Uint32Array.of(1, 2, 3, 4);
    expect(recallOf(Uint32Array.of(2, 2, 4, missingKey), truth, 2)).toBe(0.5);
    expect(recallOf(truth, truth, 2)).toBe(1);
  });

  it("takes the query itself out, wherever it is, else the last", () => {
    const keys = Uint32Array.of(7, 1, 2, 3, 8, 4, 5, 6, 1);
    expect([...withoutSelf(keys, Uint32Array.of(7, 8, 9), 3)]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("recognises by the nearest other key", () => {
    const identities = Uint32Array.of(10, 10, 20, 20);
    const found = Uint32Array.of(0, 1, 2, 1, 2, 0, 2, missingKey, missingKey);
    expect(rankOneOf(found, Uint32Array.of(0, 1, 2), identities, 3)).toBeCloseTo(1 / 3, 9);
  });
});

describe("goals", () => {
  const figure = (goal: GoalFigure["goal"], measured: number | undefined): GoalFigure => ({
    goal,
    where: "here",
    measured,
  });

  it("meets a goal at its bound, misses it beyond, and says what was not measured", () => {
    expect(verdictOf(figure("build", 4.5))).toBe("met");
    expect(verdictOf(figure("build", 4.49))).toBe("missed");
    expect(verdictOf(figure("bytes", 740))).toBe("met");
    expect(verdictOf(figure("bytes", 741))).toBe("missed");
    expect(verdictOf(figure("load", undefined))).toBe("not measured");
    expect(verdictOf(figure("load", Number.NaN))).toBe("not measured");
    expect(verdictOf(figure("rankOne", -0.001))).toBe("met");
  });

  it("has exactly one bound for each goal", () => {
    for (const { atLeast, atMost } of Object.values(goals))
      expect((atLeast === undefined) !== (atMost === undefined)).toBe(true);
  });

  it("prints goal, data, target, figure, range and verdict", () => {
    const spread = { median: 5, min: 4, max: 6, rounds: 3 };
    expect(goalRows([{ ...figure("build", 5), spread }, figure("load", undefined)])).toEqual([
      [goals.build.text, "here", "≥ 4.5 ×", "5.00 ×", "4.00–6.00", "met"],
      [goals.load.text, "here", "≤ 0.3 s", "–", "", "not measured"],
    ]);
  });
});

describe("plans", () => {
  it("orders every number once, by the seed", () => {
    const order = shuffle(1000, 7);
    expect([...order].toSorted((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect(shuffle(1000, 7)).toEqual(order);
    expect(shuffle(1000, 8)).not.toEqual(order);
  });

  it("replaces every key once for each hundred percent, by rows never used before", () => {
    const steps = churnSteps(100, 3);
    expect(steps.map(({ percent, keys }) => [percent, keys.length])).toEqual([
      [50, 50],
      [100, 50],
      [200, 100],
    ]);
    const [half, whole, twice] = steps;
    expect(new Set([...(half?.keys ?? []), ...(whole?.keys ?? [])]).size).toBe(100);
    expect(new Set(twice?.keys).size).toBe(100);
    expect(half?.rowOf.filter((row, key) => row === key).length).toBe(50);
    expect(whole?.rowOf.filter((row) => row < 100).length).toBe(0);
    expect([...(twice?.rowOf ?? [])].toSorted((a, b) => a - b)[0]).toBe(200);
  });

  it("refuses flags that cannot be", () => {
    expect(readOptions(["--quick", "--only", "churn,build"])).toMatchObject({
      only: ["build", "churn"],
      sizes: [5000, 20000],
    });
    expect(readOptions(["--help"])).toBeUndefined();
    expect(() => readOptions(["--only", "speed"])).toThrow(/no part speed/);
    expect(() => readOptions(["--rounds", "0"])).toThrow(/--rounds/);
    expect(() => readOptions(["--sizes", "5,x"])).toThrow(/--sizes/);
  });
});

describe("drawing", () => {
  it("escapes what XML would take for its own", () => {
    expect(escapeXml(`<a b="c">&'`)).toBe("&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
  });

  it("marks decades by 1, 2 and 5", () => {
    expect(decadeTicks(150, 5000)).toEqual([200, 500, 1000, 2000, 5000]);
  });

  it("draws every point of every series within its frame, and no other file is needed", () => {
    const series = [
      { name: "a & b", style: 0, points: [point(0.9, 100), point(1, 10)] },
      { name: "c", style: 1, points: [point(0.95, 5000)] },
    ];
    const svg = drawCurves("x < y", [{ title: "t", xTitle: "recall@10", series }]);
    expect(svg).toContain("a &amp; b, 0.9: recall 0.9000, 100 searches/s");
    expect(svg).toContain("x &lt; y");
    expect(svg.match(/searches\/s<\/title>/g)).toHaveLength(3);
    expect(svg).not.toMatch(/NaN|Infinity|undefined|href|url\(|@import/);
  });

  it("draws a panel without points as nothing", () => {
    expect(drawCurves("t", [{ title: "t", xTitle: "x", series: [] }])).not.toMatch(/NaN|Infinity/);
  });
});
