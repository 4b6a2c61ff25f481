// Search of the whole index: by the graph, or by a scan; then a second look at the best by full precision.
import { farthest, found, pushFound, replaceFarthest, resetHeaps } from "./heaps";
import { normaliseRow, quantise, sortSelected } from "./insert";
import {
  walkDistance,
  walkFour,
  walkMargin,
  distanceIn,
  dotFloat32,
  fineDistance,
  keyFrom,
  orderedBits,
  squaredFloat32,
  useQuery,
  widenRow,
} from "./kernels";
import {
  batchAt,
  dim,
  entry,
  float32Rows,
  keyOf,
  maxResults,
  normalise,
  outKeysAt,
  outScoresAt,
  queriesAt,
  query8At,
  rowKind,
  rowOf,
  rowScratchAt,
  scaleOf,
  selectedAt,
  squared,
} from "./state";
import { beamWalk, descend, isVisible, isWanted, selectFound, wantedWalk } from "./walk";

/** What the last walk found where nothing was left to be met before it had `ef`; else more than any index holds. */
export let reached: u32 = 0x7fffffff;

@inline function queryAt(index: u32): usize {
  return queriesAt + ((<usize>index * dim) << 2);
}

function prepare(row: usize): void {
  if (normalise) normaliseRow(row);
  const scale = quantise(row, query8At);
  useQuery(query8At, scale, squared ? dotFloat32(row, row, dim) : 0);
}

@inline function selected(i: u32): u64 {
  return load<u64>(selectedAt + (<usize>i << 3));
}
@inline function select(i: u32, key: u64): void {
  store<u64>(selectedAt + (<usize>i << 3), key);
}

/** Keeps the visible of `n` selected. */
function keepVisible(n: u32, version: u32): u32 {
  let kept: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const key = selected(i);
    if (isVisible(<u32>key, version)) select(kept++, key);
  }
  return kept;
}

/** The `ef` nearest that the graph leads to, by the coarse plane. */
function byGraph(ef: u32, slots: u32, version: u32, filtered: bool): u32 {
  const from = entry();
  reached = 0;
  if (from == 0) return 0;
  const first = <u32>from - 1;
  let nearest = keyFrom(walkDistance(first, query8At), first);
  for (let l = <u32>(from >> 32); l > 0; l--) nearest = descend(query8At, l, nearest);
  if (!filtered) {
    const n = beamWalk(query8At, nearest, ef, 0, slots);
    const kept = keepVisible(n, version);
    reached = n < ef ? kept : 0x7fffffff;
    // A few that were removed or are not there yet cost a little of ef; where they are many, they must not.
    if (n - kept <= ef >> 3) return kept;
  }
  const wanted = wantedWalk(query8At, nearest, ef, 0, slots, version, filtered);
  reached = wanted < ef ? wanted : 0x7fffffff;
  return wanted;
}

/** The `count` nearest of all wanted slots by all 8 bits; the coarse plane rules most of them out, with certainty. */
function byScan(count: u32, slots: u32, version: u32, filtered: bool): u32 {
  resetHeaps();
  const margin = walkMargin(query8At);
  let bound: f32 = f32.MAX_VALUE;
  for (let slot: u32 = 0; slot < slots; slot += 4) {
    v128.store(batchAt, i32x4.add(i32x4.splat(slot), i32x4(0, 1, 2, 3)));
    const limit = margin > 0 ? bound + margin * largestOfFour(scaleOf(slot)) : bound;
    let near = walkFour(batchAt, query8At, orderedBits(limit));
    if (slot + 4 > slots) near &= (1 << <i32>(slots - slot)) - 1;
    for (; near != 0; near &= near - 1) {
      const one = slot + ctz(near);
      if (!isWanted(one, version, filtered)) continue;
      const key = keyFrom(fineDistance(one, query8At), one);
      if (found < count) pushFound(key);
      else if (key < farthest()) replaceFarthest(key);
      if (found == count) bound = distanceIn(farthest());
    }
  }
  return selectFound();
}

/** Slots of four lie side by side, in one segment. Those that were never used may hold anything, NaN too. */
@inline function largestOfFour(at: usize): f32 {
  let largest: f32 = 0;
  for (let i: usize = 0; i < 16; i += 4) if (load<f32>(at + i) > largest) largest = load<f32>(at + i);
  return largest;
}

function rowDistance(row: usize, query: usize): f32 {
  return squared ? squaredFloat32(row, query, dim) : -dotFloat32(row, query, dim);
}

/** Distance by the full-precision row in memory. */
function storedRowDistance(slot: u32, query: usize): f32 {
  if (rowKind == float32Rows) return rowDistance(rowOf(slot), query);
  widenRow(rowOf(slot), rowScratchAt, dim);
  return rowDistance(rowScratchAt, query);
}

/** Full precision where there is any, else 8 bits. */
function refine(n: u32, k: u32, depth: u32, row: usize): u32 {
  const rows = rowKind != 0 && depth > 0;
  const count = rows ? min(n, max(depth, k)) : n;
  for (let i: u32 = 0; i < count; i++) {
    const slot = <u32>selected(i);
    select(i, keyFrom(rows ? storedRowDistance(slot, row) : fineDistance(slot, query8At), slot));
  }
  return finish(count, k);
}

/** Sorts `n` selected and writes the keys and scores of the best `k`. */
export function finish(n: u32, k: u32): u32 {
  sortSelected(n);
  const count = min(n, k);
  for (let i: u32 = 0; i < count; i++) {
    const key = selected(i);
    store<u32>(outKeysAt + (<usize>i << 2), load<u32>(keyOf(<u32>key)));
    store<f32>(outScoresAt + (<usize>i << 2), squared ? distanceIn(key) : -distanceIn(key));
  }
  return count;
}

/** Query number `index`: keys and scores of the `k` nearest that a search of `version` may see. Returns how many. */
export function search(
  index: u32,
  k: u32,
  ef: u32,
  depth: u32,
  slots: u32,
  version: u32,
  filtered: bool,
): u32 {
  const row = queryAt(index);
  prepare(row);
  return refine(byGraph(min(max(ef, k), maxResults), slots, version, filtered), k, depth, row);
}

/** As `search`, over all slots: exact by 8 bits, then by full precision among the best `depth`. */
export function scan(index: u32, k: u32, depth: u32, slots: u32, version: u32, filtered: bool): u32 {
  const row = queryAt(index);
  prepare(row);
  return refine(byScan(min(max(depth, k), maxResults), slots, version, filtered), k, depth, row);
}

/** As `search`, over all rows in memory: exact by full precision. Needs rows. */
export function scanRows(index: u32, k: u32, slots: u32, version: u32, filtered: bool): u32 {
  const row = queryAt(index);
  if (normalise) normaliseRow(row);
  resetHeaps();
  const count = min(k, maxResults);
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (!isWanted(slot, version, filtered)) continue;
    const key = keyFrom(storedRowDistance(slot, row), slot);
    if (found < count) pushFound(key);
    else if (key < farthest()) replaceFarthest(key);
  }
  return finish(selectFound(), k);
}

/** First half of a search whose rows are elsewhere: leaves candidates, nearest first; returns how many. */
export function collect(
  index: u32,
  k: u32,
  ef: u32,
  depth: u32,
  slots: u32,
  version: u32,
  filtered: bool,
  exact: bool,
): u32 {
  prepare(queryAt(index));
  const wanted = min(max(depth, k), maxResults);
  const n = exact
    ? byScan(wanted, slots, version, filtered)
    : byGraph(min(max(ef, wanted), maxResults), slots, version, filtered);
  return min(n, wanted);
}

export function candidate(i: u32): u32 {
  return <u32>selected(i);
}

/** Gives candidate `i` its distance by the float32 row at `rowScratchAt`. `finish` ends the search. */
export function rescore(i: u32, index: u32): void {
  select(i, keyFrom(rowDistance(rowScratchAt, queryAt(index)), <u32>selected(i)));
}
