// Search of one layer (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
// Navigable Small World graphs", algorithm 2), on the coarse plane.
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
import { coarseDistance, keyFrom, touchCoarse } from "./kernels";
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
  segmentBytes,
  segmentBits,
  selectedAt,
  visitedAt,
  visitedOf,
} from "./state";

let epoch: u16 = 0;
let segmentsSeen: u32 = 0;
/** Keeps the touching loads from being optimised away. */
let sink: i32 = 0;
/** Distances computed by this thread: for benchmarks. */
export let distances: u64 = 0;

/** Starts a new set of visited slots; `slots` = those in use. Marks are numbered, so clearing is due every 65,535 walks. */
export function beginVisit(slots: u32): void {
  const segments = (slots + (1 << segmentBits) - 1) >> segmentBits;
  if (++epoch == 0) {
    for (let s: u32 = 0; s < segmentsSeen; s++)
      memory.fill(visitedAt + <usize>s * segmentBytes, 0, 2 << segmentBits);
    epoch = 1;
  }
  for (; segmentsSeen < segments; segmentsSeen++)
    memory.fill(visitedAt + <usize>segmentsSeen * segmentBytes, 0, 2 << segmentBits);
}

export function addDistances(n: u32): void {
  distances += n;
}
export function currentMark(): u16 {
  return epoch;
}

/** Forgets what earlier layouts of the same memory left behind. */
export function resetVisits(): void {
  epoch = 0;
  segmentsSeen = 0;
}

@inline function isAllowed(slot: u32): bool {
  const key = load<u32>(keyOf(slot));
  const byte: usize = key >> 3;
  return byte < filterBytes && ((<u32>load<u8>(filterAt + byte) >> (key & 7)) & 1) != 0;
}

/** Whether a search of the state numbered `version` may return the slot. */
@inline export function isVisible(slot: u32, version: u32): bool {
  return load<u32>(bornOf(slot)) <= version && version < load<u32>(diedOf(slot));
}

/** Steps to the nearest neighbour until none is nearer. */
export function descend(query: usize, level: u32, start: u64): u64 {
  let best = start;
  for (;;) {
    const before = best;
    const list = linksOf(<u32>best, level);
    const end = list + (<usize>m << 2);
    let t = 0;
    for (let p = list; p < end; p += 4) {
      const slot = load<u32>(p);
      if (slot == noLink) break;
      t ^= touchCoarse(slot);
    }
    sink ^= t;
    for (let p = list; p < end; p += 4) {
      const slot = load<u32>(p);
      if (slot == noLink) break;
      distances++;
      const key = keyFrom(coarseDistance(slot, query), slot);
      if (key < best) best = key;
    }
    if (best == before) break;
  }
  return best;
}

/**
 * Fills the heap of found slots with the `ef` nearest visible ones that the layer's links lead to from `start`. Neighbours
 * are gathered first and one word of each of their cache lines is read, then distances are computed: the loads of the
 * first pass do not wait for each other, which does the work of a prefetch. `filtered` heeds the thread's bitmap.
 */
export function walk(query: usize, start: u64, ef: u32, level: u32, slots: u32, version: u32, filtered: bool): void {
  beginVisit(slots);
  resetHeaps();
  const mark = epoch;
  const listBytes = <usize>capacityOf(level) << 2;
  pushCandidate(start);
  store<u16>(visitedOf(<u32>start), mark);
  if (isVisible(<u32>start, version) && (!filtered || isAllowed(<u32>start))) pushFound(start);
  let full = found >= ef;
  let bound: u64 = full ? farthest() : u64.MAX_VALUE;
  while (candidates > 0) {
    const nearest = popCandidate();
    if (nearest > bound) break;
    const list = linksOf(<u32>nearest, level);
    const end = list + listBytes;
    let gathered = batchAt;
    let t = 0;
    for (let p = list; p < end; p += 4) {
      const slot = load<u32>(p);
      if (slot == noLink) break;
      const v = visitedOf(slot);
      if (load<u16>(v) == mark) continue;
      store<u16>(v, mark);
      store<u32>(gathered, slot);
      gathered += 4;
      t ^= touchCoarse(slot);
    }
    sink ^= t;
    distances += <u64>((gathered - batchAt) >> 2);
    for (let p = batchAt; p < gathered; p += 4) {
      const slot = load<u32>(p);
      const key = keyFrom(coarseDistance(slot, query), slot);
      if (key >= bound) continue;
      pushCandidate(key);
      if (!isVisible(slot, version) || (filtered && !isAllowed(slot))) continue;
      if (full) {
        replaceFarthest(key);
        bound = farthest();
      } else {
        pushFound(key);
        if (found == ef) {
          full = true;
          bound = farthest();
        }
      }
    }
  }
}

/** Moves the found ones to the list of selected, nearest first, and returns how many. */
export function selectFound(): u32 {
  const n = found;
  for (let i = n; i > 0; i--) store<u64>(selectedAt + (<usize>(i - 1) << 3), popFarthest());
  return n;
}
