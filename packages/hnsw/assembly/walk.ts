// Search of one layer (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
// Navigable Small World graphs", algorithm 2), on the coarse plane. Neighbours are gathered first and one word of each of
// their cache lines is read, then distances are computed: loads that do not wait for each other do the work of a prefetch.
import {
  candidates,
  farthest,
  found,
  popCandidate,
  popFarthest,
  pushCandidate,
  pushFound,
  replaceFarthest,
  resetHeaps,
} from "./heaps";
import { walkDistance, walkFour, keyFrom, keyOfFour, touchSlot } from "./kernels";
import {
  batchAt,
  bornOf,
  capacityOf,
  diedOf,
  filterAt,
  filterBytes,
  keyOf,
  linksOf,
  m,
  noLink,
  selectedAt,
  topAt,
  visitedOf,
} from "./state";
import { beginVisit, currentMark } from "./visits";

/** Keeps the touching loads from being optimised away. */
let sink: i32 = 0;
/** Distances computed by this thread: for benchmarks. */
export let distances: u64 = 0;
/** Beam entries: set when the slot's links were followed. Slots are below 2^31. */
const expanded: u64 = 0x80000000;

@inline function isAllowed(slot: u32): bool {
  const key = load<u32>(keyOf(slot));
  const byte: usize = key >> 3;
  return byte < filterBytes && ((<u32>load<u8>(filterAt + byte) >> (key & 7)) & 1) != 0;
}

/** Whether a search of the state numbered `version` may return the slot. */
@inline export function isVisible(slot: u32, version: u32): bool {
  return load<u32>(bornOf(slot)) <= version && version < load<u32>(diedOf(slot));
}

/** Whether a search may return the slot: visible, and allowed where a filter is set. */
@inline export function isWanted(slot: u32, version: u32, filtered: bool): bool {
  return isVisible(slot, version) && (!filtered || isAllowed(slot));
}

/** Steps to the nearest neighbour until none is nearer. */
export function descend(query: usize, level: u32, start: u64): u64 {
  let best = start;
  for (;;) {
    const before = best;
    const list = linksOf(<u32>best, level);
    const listBytes = <usize>m << 2;
    let gathered = batchAt;
    let t = 0;
    for (let p = list; p < list + listBytes; p += 4) {
      const slot = load<u32>(p);
      if (slot == noLink) break;
      store<u32>(gathered, slot);
      gathered += 4;
      t ^= touchSlot(slot);
    }
    sink ^= t;
    distances += <u64>((gathered - batchAt) >> 2);
    for (let p = batchAt; p < gathered; p += 16) {
      let near = walkFour(p, query, <u32>(best >> 32));
      // The last four are filled up with whatever the batch held before: slots, too.
      if (p + 16 > gathered) near &= (1 << <i32>((gathered - p) >> 2)) - 1;
      for (; near != 0; near &= near - 1) {
        const i = ctz(near);
        const key = keyOfFour(i, load<u32>(p + (<usize>i << 2)));
        if (key < best) best = key;
      }
    }
    if (best == before) break;
  }
  return best;
}

/** Puts a key at its place in the sorted beam of `n`, of which the last falls off when it is full. Returns the place. */
@inline function enterBeam(key: u64, n: u32, grown: u32): u32 {
  let low: u32 = 0;
  let high = n;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u64>(topAt + (<usize>middle << 3)) < key) low = middle + 1;
    else high = middle;
  }
  const place = topAt + (<usize>low << 3);
  let p = topAt + (<usize>(grown - 1) << 3);
  for (; p >= place + 16; p -= 16) v128.store(p - 8, v128.load(p - 16));
  if (p > place) store<u64>(p, load<u64>(p - 8));
  store<u64>(place, key);
  return low;
}

/**
 * Best-first walk with one sorted beam of the `ef` nearest, whoever may see them; they are the selected, nearest first.
 * Returns how many.
 */
export function beamWalk(query: usize, start: u64, ef: u32, level: u32, slots: u32): u32 {
  beginVisit(slots);
  const mark = currentMark();
  const listBytes = <usize>capacityOf(level) << 2;
  store<u64>(topAt, start);
  store<u16>(visitedOf(<u32>start), mark);
  let n: u32 = 1;
  let cursor: u32 = 0;
  let bound: u64 = ef == 1 ? start : u64.MAX_VALUE;
  while (cursor < n) {
    const at = topAt + (<usize>cursor << 3);
    const nearest = load<u64>(at);
    cursor++;
    if ((nearest & expanded) != 0) continue;
    store<u64>(at, nearest | expanded);
    const list = linksOf(<u32>nearest, level);
    let gathered = batchAt;
    for (let p = list; p < list + listBytes; p += 4) {
      const slot = load<u32>(p);
      if (slot == noLink) break;
      const v = visitedOf(slot);
      store<u32>(gathered, slot);
      // Without a branch: whether a neighbour was met before cannot be foretold.
      gathered += <usize>(<u32>(load<u16>(v) != mark)) << 2;
      store<u16>(v, mark);
    }
    let t = 0;
    if (cursor < n) {
      // Most often the next to be followed.
      const next = linksOf(<u32>load<u64>(at + 8) & 0x7fffffff, level);
      t = load<i32>(next) ^ load<i32>(next + 64);
    }
    for (let p = batchAt; p < gathered; p += 4) t ^= touchSlot(load<u32>(p));
    sink ^= t;
    distances += <u64>((gathered - batchAt) >> 2);
    // The last four are filled up with whatever the batch held before: slots, too.
    for (let p = batchAt; p < gathered; p += 16) {
     let near = walkFour(p, query, <u32>(bound >> 32));
     if (p + 16 > gathered) near &= (1 << <i32>((gathered - p) >> 2)) - 1;
     for (; near != 0; near &= near - 1) {
      const i = ctz(near);
      const slot = load<u32>(p + (<usize>i << 2));
      const key = keyOfFour(i, slot);
      if (key >= bound) continue;
      const grown = n < ef ? n + 1 : n;
      const place = enterBeam(key, n, grown);
      n = grown;
      if (place < cursor) cursor = place;
      if (n == ef) bound = load<u64>(topAt + (<usize>(n - 1) << 3)) & ~expanded;
     }
    }
  }
  for (let i: u32 = 0; i < n; i++)
    store<u64>(selectedAt + (<usize>i << 3), load<u64>(topAt + (<usize>i << 3)) & ~expanded);
  return n;
}

/**
 * The same with two heaps: finds the `ef` nearest *wanted* slots, however many others lie between. The selected,
 * nearest first; returns how many.
 */
export function wantedWalk(
  query: usize,
  start: u64,
  ef: u32,
  level: u32,
  slots: u32,
  version: u32,
  filtered: bool,
): u32 {
  beginVisit(slots);
  resetHeaps();
  const mark = currentMark();
  const listBytes = <usize>capacityOf(level) << 2;
  pushCandidate(start);
  store<u16>(visitedOf(<u32>start), mark);
  if (isWanted(<u32>start, version, filtered)) pushFound(start);
  let bound: u64 = found >= ef ? farthest() : u64.MAX_VALUE;
  while (candidates > 0) {
    const nearest = popCandidate();
    if (nearest > bound) break;
    const list = linksOf(<u32>nearest, level);
    let gathered = batchAt;
    let t = 0;
    for (let p = list; p < list + listBytes; p += 4) {
      const slot = load<u32>(p);
      if (slot == noLink) break;
      const v = visitedOf(slot);
      if (load<u16>(v) == mark) continue;
      store<u16>(v, mark);
      store<u32>(gathered, slot);
      gathered += 4;
      t ^= touchSlot(slot);
    }
    sink ^= t;
    distances += <u64>((gathered - batchAt) >> 2);
    for (let p = batchAt; p < gathered; p += 4) {
      const slot = load<u32>(p);
      const key = keyFrom(walkDistance(slot, query), slot);
      if (key >= bound) continue;
      pushCandidate(key);
      if (!isWanted(slot, version, filtered)) continue;
      if (found < ef) pushFound(key);
      else replaceFarthest(key);
      if (found == ef) bound = farthest();
    }
  }
  return selectFound();
}

/** Moves the found ones to the selected, nearest first, and returns how many. */
export function selectFound(): u32 {
  const n = found;
  for (let i = n; i > 0; i--) store<u64>(selectedAt + (<usize>(i - 1) << 3), popFarthest());
  return n;
}
