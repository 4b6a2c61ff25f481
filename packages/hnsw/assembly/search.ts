import { beamSize, beamWalk } from "./beam";
import { found, pushFound, replaceFarthest, farthest, resetHeaps, overflowed } from "./heaps";
import {
  coarseDistance, fineDistance, keyFrom, distanceIn, dotFloat32, squaredFloat32, useQuery, widenRow } from "./kernels";
import { normaliseRow, quantise, sortSelected } from "./insert";
import { entry, query8At, queriesAt, selectedAt, squared, normalise, dim, rowKind, float32Rows, rowOf, outKeysAt, outScoresAt, keyOf, candidatesAt, topAt } from "./state";
import { descend, isVisible, selectFound, walk } from "./walk";

@inline export function queryAt(index: u32): usize {
  return queriesAt + (<usize>index * dim << 2);
}

function prepare(row: usize): void {
  if (normalise) normaliseRow(row);
  const scale = quantise(row, query8At);
  useQuery(query8At, scale, squared ? dotFloat32(row, row, dim) : 0);
}
export let fineMode: i32 = 0;
export function setFine(x: i32): void { fineMode = x; }

export function search(index: u32, k: u32, ef: u32, depth: u32, slots: u32, version: u32, filtered: bool): u32 {
  const row = queryAt(index);
  prepare(row);
  const from = entry();
  if (from == 0) return 0;
  const first = <u32>from - 1;
  let nearest = keyFrom(coarseDistance(first, query8At), first);
  for (let l = <u32>(from >> 32); l > 0; l--) nearest = descend(query8At, l, nearest);
  let n: u32;
  if (fineMode) { walk(query8At, nearest, max(ef, k), 0, slots, version, filtered); n = selectFound(); }
  else { beamWalk(query8At, nearest, max(ef, k), 0, slots); n = beamSize; for (let i: u32 = 0; i < n; i++) store<u64>(selectedAt + (<usize>i << 3), load<u64>(topAt + (<usize>i << 3)) & 0xffffffff7fffffff); }
  if (rowKind != 0 && depth > 0) {
    n = min(n, max(depth, k));
    for (let i: u32 = 0; i < n; i++) {
      const slot = <u32>load<u64>(selectedAt + (<usize>i << 3));
      let at = rowOf(slot);
      if (rowKind != float32Rows) { widenRow(at, candidatesAt, dim); at = candidatesAt; }
      const d = squared ? squaredFloat32(at, row, dim) : -dotFloat32(at, row, dim);
      store<u64>(selectedAt + (<usize>i << 3), keyFrom(d, slot));
    }
  } else {
    for (let i: u32 = 0; i < n; i++) {
      const slot = <u32>load<u64>(selectedAt + (<usize>i << 3));
      store<u64>(selectedAt + (<usize>i << 3), keyFrom(fineDistance(slot, query8At), slot));
    }
  }
  sortSelected(n);
  n = min(n, k);
  for (let i: u32 = 0; i < n; i++) {
    const key = load<u64>(selectedAt + (<usize>i << 3));
    store<u32>(outKeysAt + (<usize>i << 2), load<u32>(keyOf(<u32>key)));
    store<f32>(outScoresAt + (<usize>i << 2), squared ? distanceIn(key) : -distanceIn(key));
  }
  return n;
}
