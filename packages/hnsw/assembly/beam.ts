import { coarseDistance, keyFrom, touchCoarse } from "./kernels";
import { batchAt, capacityOf, linksOf, noLink, topAt, visitedOf } from "./state";
import { beginVisit, addDistances, currentMark } from "./walk";
let sink: i32 = 0;
const expanded: u64 = 0x80000000;
export let beamSize: u32 = 0;

/** Best-first walk over a sorted beam. */
export function beamWalk(query: usize, start: u64, ef: u32, level: u32, slots: u32): void {
  beginVisit(slots);
  const mark = currentMark();
  const capacity = capacityOf(level);
  const beam = topAt;
  store<u64>(beam, start);
  store<u16>(visitedOf(<u32>start), mark);
  let n: u32 = 1;
  let at: u32 = 0;
  let bound: u64 = ef == 1 ? start : u64.MAX_VALUE;
  let total: u32 = 0;
  while (at < n) {
    const p0 = beam + (<usize>at << 3);
    const nearest = load<u64>(p0);
    at++;
    if ((nearest & expanded) != 0) continue;
    store<u64>(p0, nearest | expanded);
    const list = linksOf(<u32>nearest, level);
    let g: u32 = 0;
    for (let i: u32 = 0; i < capacity; i++) {
      const slot = load<u32>(list + (<usize>i << 2));
      if (slot == noLink) break;
      const v = visitedOf(slot);
      store<u32>(batchAt + (<usize>g << 2), slot);
      g += <u32>(load<u16>(v) != mark);
      store<u16>(v, mark);
    }
    let t = 0;
    const next = load<u64>(beam + (<usize>at << 3));
    if (at < n) { const nl = linksOf(<u32>next & 0x7fffffff, level); t = load<i32>(nl) ^ load<i32>(nl, 64); }
    for (let i: u32 = 0; i < g; i++) t ^= touchCoarse(load<u32>(batchAt + (<usize>i << 2)));
    sink ^= t;
    total += g;
    for (let i: u32 = 0; i < g; i++) {
      const slot = load<u32>(batchAt + (<usize>i << 2));
      const key = keyFrom(coarseDistance(slot, query), slot);
      if (key >= bound) continue;
      // binary search
      let lo: u32 = 0, hi: u32 = n;
      while (lo < hi) {
        const mid = (lo + hi) >> 1;
        if (load<u64>(beam + (<usize>mid << 3)) < key) lo = mid + 1; else hi = mid;
      }
      if (n < ef) n++;
      let q = beam + (<usize>(n - 1) << 3);
      const stop = beam + (<usize>lo << 3);
      while (q >= stop + 16) { v128.store(q - 8, v128.load(q - 16)); q -= 16; }
      if (q > stop) store<u64>(q, load<u64>(q - 8));
      store<u64>(stop, key);
      if (lo < at) at = lo;
      if (n == ef) bound = load<u64>(beam + (<usize>(n - 1) << 3)) & ~expanded;
    }
  }
  addDistances(total);
  beamSize = n;
}
