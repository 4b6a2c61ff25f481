/** Numbers in [0, 1) that are the same for the same seed (a 32-bit Weyl sequence, mixed). */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}

export function shuffle<T>(items: T[], random: () => number): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const [a, b] = [items[i] as T, items[j] as T];
    items[i] = b;
    items[j] = a;
  }
  return items;
}

/** A UUID of the sequence, so that a seed names the same ids in every run. */
export function uuidOf(random: () => number): string {
  const hex = Array.from({ length: 32 }, () => Math.floor(random() * 16).toString(16)).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
}

/** Runs `work` on every item, at most `parallel` at a time. */
export async function forEachBounded<T>(
  items: readonly T[],
  parallel: number,
  work: (item: T, place: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const run = async () => {
    for (let place = next++; place < items.length; place = next++) await work(items[place] as T, place);
  };
  await Promise.all(Array.from({ length: parallel }, run));
}
