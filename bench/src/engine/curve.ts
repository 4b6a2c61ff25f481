/** One setting of an engine, measured. */
export interface CurvePoint {
  label: string;
  recall: number;
  perS: number;
}

/** The points that no other beats in both, by ascending recall (and so by descending speed). */
export function frontOf<P extends CurvePoint>(points: readonly P[]): P[] {
  const front: P[] = [];
  let fastest = -Infinity;
  const order = points.toSorted((a, b) => b.recall - a.recall || b.perS - a.perS);
  for (const point of order) {
    if (point.perS <= fastest) continue;
    fastest = point.perS;
    front.push(point);
  }
  return front.toReversed();
}

/**
 * Searches per second at a recall: on the line between the front's neighbours, speed as a logarithm. Below the first
 * point it is that point's speed, since nothing faster was measured; undefined where no point reaches the recall.
 */
export function perSAtRecall(points: readonly CurvePoint[], recall: number): number | undefined {
  const front = frontOf(points);
  const above = front.findIndex((point) => point.recall >= recall);
  const upper = front[above];
  if (upper === undefined) return undefined;
  const lower = front[above - 1];
  if (lower === undefined) return upper.perS;
  const share = (recall - lower.recall) / (upper.recall - lower.recall);
  return Math.exp(Math.log(lower.perS) + share * (Math.log(upper.perS) - Math.log(lower.perS)));
}

/** The fastest setting that was measured at the recall or above it. */
export function fastestFrom<P extends CurvePoint>(points: readonly P[], recall: number): P | undefined {
  return points
    .filter((point) => point.recall >= recall)
    .toSorted((a, b) => b.perS - a.perS)
    .at(0);
}

/** At most `count` of the items, evenly spread, the first and the last among them. */
export function evenly<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  const step = (items.length - 1) / (count - 1);
  return Array.from({ length: count }, (_, i) => items[Math.round(i * step)] as T);
}
