// Insertion (algorithm 1 of the paper), by any number of threads: a lock a node for its links, taken one at a time;
// readers take none. A link list is changed so that a reader at any point meets only slots that were linked.
import {
  walkDistance,
  walkFour,
  dotFloat32,
  keyFrom,
  keyOfFour,
  narrowRow,
  touchSlot,
  useQuery,
  useSlot,
} from "./kernels";
import {
  biasOf,
  capacityOf,
  chosenAt,
  coarseOf,
  diedOf,
  dim,
  efConstruction,
  entry,
  fineOf,
  float32Rows,
  keptAt,
  levelOf,
  linksOf,
  lockEntry,
  lockSlot,
  m,
  maxLinks,
  mix,
  never,
  noLink,
  normalise,
  other8At,
  planeBytes,
  query8At,
  rowBytes,
  rowKind,
  rowOf,
  scaleOf,
  selectedAt,
  setEntry,
  squared,
  unlockEntry,
  unlockSlot,
} from "./state";
import { beamWalk, descend, wantedWalk } from "./walk";

/** Version at which whatever is not removed is visible: building sees slots that no search may return yet. */
const building: u32 = 0xfffffffe;
let sink: i32 = 0;

/** Scales the row at `row` to norm 1 (cosine). A row of zeros stays as it is. */
export function normaliseRow(row: usize): void {
  const norm = Mathf.sqrt(dotFloat32(row, row, dim));
  if (!(norm > 0)) return;
  const factor: f32 = 1 / norm;
  for (let i: usize = 0; i < dim; i++) store<f32>(row + (i << 2), load<f32>(row + (i << 2)) * factor);
}

/** Largest component → 127. Returns the scale: value = scale × byte. */
export function quantise(row: usize, into: usize): f32 {
  let largest: f32 = 0;
  for (let i: usize = 0; i < dim; i++) largest = max(largest, abs(load<f32>(row + (i << 2))));
  // 127 / largest must be finite.
  if (largest < 1e-36) largest = largest == 0 ? 1 : 1e-36;
  const factor: f32 = 127 / largest;
  for (let i: usize = 0; i < dim; i++) store<i8>(into + i, <i8>nearest(load<f32>(row + (i << 2)) * factor));
  return largest / 127;
}

function storePlanes(slot: u32, bytes: usize): void {
  const coarse = coarseOf(slot);
  const fine = fineOf(slot);
  const low = i8x16.splat(15);
  const high = i8x16.splat(-16);
  const sign = i8x16.splat(-128);
  for (let at: usize = 0; at < planeBytes; at += 16) {
    const first = v128.xor(v128.load(bytes + (at << 1)), sign);
    const last = v128.xor(v128.load(bytes + (at << 1), 16), sign);
    v128.store(coarse + at, v128.or(v128.and(i16x8.shr_u(first, 4), low), v128.and(last, high)));
    v128.store(fine + at, v128.or(v128.and(first, low), v128.and(i16x8.shl(last, 4), high)));
  }
}

/** Writes the vector at `row` (float32, padded with zeros) into a slot, and makes it the thread's query. */
function storeVector(slot: u32, row: usize): void {
  if (normalise) normaliseRow(row);
  const scale = quantise(row, query8At);
  storePlanes(slot, query8At);
  store<f32>(scaleOf(slot), scale);
  const bias: f32 = squared ? dotFloat32(row, row, dim) : 0;
  if (squared) store<f32>(biasOf(slot), bias);
  if (rowKind == float32Rows) memory.copy(rowOf(slot), row, rowBytes);
  else if (rowKind != 0) narrowRow(row, rowOf(slot), dim);
  useQuery(query8At, scale, bias);
}

/**
 * Neighbour selection by the heuristic (algorithm 4): of `n` keys at `selected`, nearest first, keeps up to `limit` that
 * are nearer to the owner than to any kept one. The kept slots are at `kept`. Changes the thread's query. Of those that are
 * equally far at most half the limit are kept: copies of the owner would otherwise fill its list, and nothing would lead
 * out of them.
 */
export function prune(n: u32, limit: u32): u32 {
  let kept: u32 = 0;
  let tied: u32 = 0;
  let lastDistance: u32 = 0;
  for (let i: u32 = 0; i < n && kept < limit; i++) {
    const key = load<u64>(selectedAt + (<usize>i << 3));
    const slot = <u32>key;
    const distance = <u32>(key >> 32);
    if (kept > 0) {
      if (distance == lastDistance && tied >= limit >> 1) continue;
      useSlot(slot, other8At);
      if (isNearAny(kept, distance - 1)) continue;
    }
    tied = kept > 0 && distance == lastDistance ? tied + 1 : 1;
    lastDistance = distance;
    store<u32>(keptAt + (<usize>kept << 2), slot);
    kept++;
  }
  return kept;
}

/** Whether the thread's query is within `bound` of one of `count` kept slots. */
@inline export function isNearAny(count: u32, bound: u32): bool {
  const end = keptAt + (<usize>count << 2);
  for (let p = keptAt; p < end; p += 16) {
    let near = walkFour(p, other8At, bound);
    // Past the end lie slots of an earlier list.
    if (p + 16 > end) near &= (1 << <i32>((end - p) >> 2)) - 1;
    if (near != 0) return true;
  }
  return false;
}

/** Turns `count` slots at `batch` into keys at `selected`, by their distance from the thread's query at `query`. */
export function selectBatch(batch: usize, count: u32, query: usize, from: u32): void {
  for (let i: u32 = 0; i < count; i += 4) {
    const p = batch + (<usize>i << 2);
    walkFour(p, query, 0);
    const n = min<u32>(4, count - i);
    for (let j: u32 = 0; j < n; j++)
      store<u64>(selectedAt + (<usize>(from + i + j) << 3), keyOfFour(j, load<u32>(p + (<usize>j << 2))));
  }
}

/** Insertion sort of the selected: lists are short. */
export function sortSelected(n: u32): void {
  sortSelectedFrom(0, n);
}

/** Sorts the selected from..n-1. */
export function sortSelectedFrom(from: u32, n: u32): void {
  for (let i = from + 1; i < n; i++) {
    const key = load<u64>(selectedAt + (<usize>i << 3));
    let j = i;
    while (j > from) {
      const before = load<u64>(selectedAt + (<usize>(j - 1) << 3));
      if (before <= key) break;
      store<u64>(selectedAt + (<usize>j << 3), before);
      j--;
    }
    store<u64>(selectedAt + (<usize>j << 3), key);
  }
}

/**
 * Sorts the selected, ties in an order that differs from owner to owner. Were it the same for all, copies of one vector
 * would all link to the same few of them, and nothing would lead to the others.
 */
export function sortForOwner(owner: u32, n: u32): void {
  const scramble = <u64>(mix(owner) & 0x7fffffff);
  for (let i: u32 = 0; i < n; i++) {
    const at = selectedAt + (<usize>i << 3);
    store<u64>(at, load<u64>(at) ^ scramble);
  }
  sortSelected(n);
  for (let i: u32 = 0; i < n; i++) {
    const at = selectedAt + (<usize>i << 3);
    store<u64>(at, load<u64>(at) ^ scramble);
  }
}

/** Writes the `n` kept slots as a slot's list. The caller holds its lock. */
export function storeLinks(slot: u32, level: u32, n: u32): void {
  const list = linksOf(slot, level);
  const capacity = capacityOf(level);
  for (let i: u32 = 0; i < n; i++)
    atomic.store<u32>(list + (<usize>i << 2), load<u32>(keptAt + (<usize>i << 2)));
  if (n < capacity) atomic.store<u32>(list + (<usize>n << 2), noLink);
}

/** Adds `slot` to the links of `owner`; where these are full, the heuristic chooses among all. */
export function addLink(owner: u32, slot: u32, level: u32): void {
  lockSlot(owner);
  const list = linksOf(owner, level);
  const capacity = capacityOf(level);
  let n: u32 = 0;
  let known = false;
  for (; n < capacity; n++) {
    const link = load<u32>(list + (<usize>n << 2));
    if (link == noLink) break;
    if (link == slot) known = true;
  }
  if (known || owner == slot) {
    unlockSlot(owner);
    return;
  }
  if (n < capacity) {
    // The end is set before the link: a reader runs into neither an old tail nor past the list.
    if (n + 1 < capacity) atomic.store<u32>(list + (<usize>(n + 1) << 2), noLink);
    atomic.store<u32>(list + (<usize>n << 2), slot);
    unlockSlot(owner);
    return;
  }
  let total: u32 = 0;
  let t = 0;
  for (let i: u32 = 0; i <= n; i++) {
    const one = i < n ? load<u32>(list + (<usize>i << 2)) : slot;
    if (i < n && load<u32>(diedOf(one)) != never) continue;
    store<u32>(keptAt + (<usize>total << 2), one);
    total++;
    t ^= touchSlot(one);
  }
  sink ^= t;
  useSlot(owner, other8At);
  selectBatch(keptAt, total, other8At, 0);
  sortForOwner(owner, total);
  storeLinks(owner, level, prune(total, capacity));
  unlockSlot(owner);
}

function clearLinks(slot: u32, level: u32): void {
  for (let l: u32 = 0; l <= level; l++) atomic.store<u32>(linksOf(slot, l), noLink);
}

@inline function chosenOf(level: u32): usize {
  return chosenAt + ((<usize>level * maxLinks) << 2);
}

/** Chooses the links of a new slot on `level` among `n` selected, and notes them; the first word is their count. */
function chooseLinks(slot: u32, level: u32, n: u32): void {
  sortForOwner(slot, n);
  const kept = prune(n, m);
  const chosen = chosenOf(level);
  store<u32>(chosen, kept);
  memory.copy(chosen + 4, keptAt, <usize>kept << 2);
}

/** Links a slot on `level` to those that were chosen, and them to it. */
function connect(slot: u32, level: u32): void {
  const chosen = chosenOf(level);
  const count = load<u32>(chosen);
  lockSlot(slot);
  // Others may have linked to this slot meanwhile, and it to them: their links stay.
  const list = linksOf(slot, level);
  const capacity = capacityOf(level);
  let have: u32 = 0;
  while (have < capacity && load<u32>(list + (<usize>have << 2)) != noLink) have++;
  const before = have;
  for (let i: u32 = 1; i <= count; i++) {
    const other = load<u32>(chosen + (<usize>i << 2));
    let known = false;
    for (let j: u32 = 0; j < before; j++) if (load<u32>(list + (<usize>j << 2)) == other) known = true;
    if (known || have == capacity) continue;
    if (have + 1 < capacity) atomic.store<u32>(list + (<usize>(have + 1) << 2), noLink);
    atomic.store<u32>(list + (<usize>have << 2), other);
    have++;
  }
  unlockSlot(slot);
  for (let i: u32 = 1; i <= count; i++) addLink(load<u32>(chosen + (<usize>i << 2)), slot, level);
}

/** Takes out of `n` selected what was removed, and `slot` itself: another thread may have linked to it already. */
function linkable(slot: u32, n: u32): u32 {
  let kept: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const key = load<u64>(selectedAt + (<usize>i << 3));
    if (<u32>key == slot || load<u32>(diedOf(<u32>key)) != never) continue;
    store<u64>(selectedAt + (<usize>kept << 3), key);
    kept++;
  }
  return kept;
}

/**
 * Links a slot whose vector is the thread's query (bytes at `query8At`, constants set by `scale` and `bias`) into every
 * layer up to its level. `slots` = those in use. Takes the entry's lock for as long as it may become the new entry.
 */
export function link(slot: u32, slots: u32, level: u32, scale: f32, bias: f32): void {
  lockEntry();
  const from = entry();
  if (from == 0) {
    setEntry(slot, level);
    unlockEntry();
    return;
  }
  const top = <u32>(from >> 32);
  if (level <= top) unlockEntry();
  const first = <u32>from - 1;
  let nearest = keyFrom(walkDistance(first, query8At), first);
  for (let l = top; l > level; l--) nearest = descend(query8At, l, nearest);
  const highest = min(level, top);
  for (let l = <i32>highest; l >= 0; l--) {
    let n = linkable(slot, beamWalk(query8At, nearest, efConstruction, l, slots));
    // All that is near was removed: what is not is looked for farther away.
    if (n == 0) n = linkable(slot, wantedWalk(query8At, nearest, efConstruction, l, slots, building, false));
    if (n > 0) nearest = load<u64>(selectedAt);
    else if (<u32>nearest != slot) {
      // Nothing here that is not removed: linked to what is, so that it can be reached.
      store<u64>(selectedAt, nearest);
      n = 1;
    }
    chooseLinks(slot, l, n);
    useQuery(query8At, scale, bias);
  }
  // From the bottom up: whoever meets the slot on a level finds its links on those below, also while it is being linked.
  for (let l: u32 = 0; l <= highest; l++) connect(slot, l);
  if (level > top) {
    setEntry(slot, level);
    unlockEntry();
  }
}

/** Inserts the vector at `row` into a slot whose key and life span were written. `slots` = those in use. */
export function insert(slot: u32, row: usize, slots: u32): void {
  storeVector(slot, row);
  const level = levelOf(slot);
  clearLinks(slot, level);
  link(slot, slots, level, load<f32>(scaleOf(slot)), squared ? load<f32>(biasOf(slot)) : 0);
}
