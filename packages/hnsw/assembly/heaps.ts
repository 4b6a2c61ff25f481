// Two binary heaps of 64-bit keys (distance above, slot below): what to expand next, nearest first, and the best found,
// farthest first.
import { candidatesAt, maxCandidates, topAt } from "./state";

export let candidates: u32 = 0;
export let found: u32 = 0;
/** Set when a candidate had to be dropped: the walk may have missed something. */
export let overflowed: bool = false;

export function resetHeaps(): void {
  candidates = 0;
  found = 0;
  overflowed = false;
}

export function pushCandidate(key: u64): void {
  if (candidates == maxCandidates) {
    overflowed = true;
    return;
  }
  let i = candidates++;
  while (i > 0) {
    const parent = (i - 1) >> 1;
    const v = load<u64>(candidatesAt + (<usize>parent << 3));
    if (v <= key) break;
    store<u64>(candidatesAt + (<usize>i << 3), v);
    i = parent;
  }
  store<u64>(candidatesAt + (<usize>i << 3), key);
}

export function popCandidate(): u64 {
  const first = load<u64>(candidatesAt);
  const n = --candidates;
  const key = load<u64>(candidatesAt + (<usize>n << 3));
  let i: u32 = 0;
  for (;;) {
    let child: u32 = 2 * i + 1;
    if (child >= n) break;
    let v = load<u64>(candidatesAt + (<usize>child << 3));
    if (child + 1 < n) {
      const w = load<u64>(candidatesAt + (<usize>(child + 1) << 3));
      if (w < v) {
        v = w;
        child++;
      }
    }
    if (v >= key) break;
    store<u64>(candidatesAt + (<usize>i << 3), v);
    i = child;
  }
  store<u64>(candidatesAt + (<usize>i << 3), key);
  return first;
}

@inline export function farthest(): u64 {
  return load<u64>(topAt);
}

export function pushFound(key: u64): void {
  let i = found++;
  while (i > 0) {
    const parent = (i - 1) >> 1;
    const v = load<u64>(topAt + (<usize>parent << 3));
    if (v >= key) break;
    store<u64>(topAt + (<usize>i << 3), v);
    i = parent;
  }
  store<u64>(topAt + (<usize>i << 3), key);
}

function sinkFound(key: u64, n: u32): void {
  let i: u32 = 0;
  for (;;) {
    let child: u32 = 2 * i + 1;
    if (child >= n) break;
    let v = load<u64>(topAt + (<usize>child << 3));
    if (child + 1 < n) {
      const w = load<u64>(topAt + (<usize>(child + 1) << 3));
      if (w > v) {
        v = w;
        child++;
      }
    }
    if (v <= key) break;
    store<u64>(topAt + (<usize>i << 3), v);
    i = child;
  }
  store<u64>(topAt + (<usize>i << 3), key);
}

/** Takes the farthest away and puts `key` in. */
export function replaceFarthest(key: u64): void {
  sinkFound(key, found);
}

export function popFarthest(): u64 {
  const first = load<u64>(topAt);
  const n = --found;
  if (n > 0) sinkFound(load<u64>(topAt + (<usize>n << 3)), n);
  return first;
}
