/** Numbers in [0, 1), the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** `most` distinct ones of `values`, or all; in the order of `values`. Each choice of a seed is as likely as any other. */
export function sampleOf(values: Uint32Array, most: number, seed: number): Uint32Array {
  const random = randomOf(seed);
  const chosen = new Set<number>();
  for (let last = Math.max(0, values.length - most); last < values.length; last++) {
    const drawn = Math.floor(random() * (last + 1));
    chosen.add(chosen.has(drawn) ? last : drawn);
  }
  return Uint32Array.from(
    [...chosen].toSorted((a, b) => a - b),
    (at) => values[at] as number,
  );
}
