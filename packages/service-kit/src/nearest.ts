/** Fewest insertions, removals and replacements of a character that make `b` of `a`. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, char] of [...a].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...b].entries())
      next.push(
        Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (char === other ? 0 : 1)),
      );
    row = next;
  }
  return row.at(-1) ?? 0;
}

/** The first of those in `known` that differ least from `name`; undefined where there is none. */
export function nearestOf(
  name: string,
  known: Iterable<string>,
): { name: string; distance: number } | undefined {
  let nearest: { name: string; distance: number } | undefined;
  for (const candidate of known) {
    const distance = editDistance(name, candidate);
    if (!nearest || distance < nearest.distance) nearest = { name: candidate, distance };
  }
  return nearest;
}
