// Repair of the graph after removals. Links to what was removed are replaced by the best of the neighbours of the removed
// ones; then no live slot leads to a removed one, and these can be used again without old links pointing at new vectors.
import { addLink, isNearAny, link, selectBatch, sortSelectedFrom, storeLinks } from "./insert";
import { touchSlot, useSlot } from "./kernels";
import {
  batchAt,
  bornOf,
  capacityOf,
  clearEntry,
  diedOf,
  entry,
  keptAt,
  levelOf,
  linksOf,
  lockEntry,
  lockSlot,
  maxLinks,
  maxResults,
  never,
  noLink,
  other8At,
  outKeysAt,
  query8At,
  scaleOf,
  biasOf,
  selectedAt,
  setEntry,
  squared,
  unlockEntry,
  unlockSlot,
} from "./state";
import { beginVisit, visit, wasVisited } from "./visits";

let sink: i32 = 0;

/** Free slots, those of a failed change, and those removed at `version` or before. */
@inline function isGone(slot: u32, version: u32): bool {
  return load<u32>(diedOf(slot)) <= version;
}

/** Selects the links of `from` that are not gone and not marked, with their distance; returns the new count. */
function gather(from: u32, level: u32, version: u32, n: u32): u32 {
  const list = linksOf(from, level);
  const capacity = capacityOf(level);
  let count = n;
  let t = 0;
  for (let i: u32 = 0; i < capacity; i++) {
    const slot = load<u32>(list + (<usize>i << 2));
    if (slot == noLink) break;
    if (isGone(slot, version) || !visit(slot)) continue;
    store<u32>(batchAt + (<usize>(count - n) << 2), slot);
    count++;
    t ^= touchSlot(slot);
  }
  sink ^= t;
  selectBatch(batchAt, count - n, query8At, n);
  return count;
}

/**
 * Chooses the new list of a slot among `n` selected, the first `live` of which it holds already: these stay, newcomers
 * join if they are nearer to the slot than to any that stays, then the nearest of the rest up to three quarters of the
 * capacity. Lists that only lose links and take the diverse ones thin out under churn, and recall with them.
 */
function choose(live: u32, n: u32, capacity: u32): u32 {
  sortSelectedFrom(live, n);
  let kept: u32 = 0;
  for (; kept < live; kept++) store<u32>(keptAt + (<usize>kept << 2), <u32>load<u64>(selectedAt + (<usize>kept << 3)));
  let rest: u32 = 0;
  for (let i = live; i < n && kept < capacity; i++) {
    const key = load<u64>(selectedAt + (<usize>i << 3));
    const slot = <u32>key;
    useSlot(slot, other8At);
    if (kept > 0 && isNearAny(kept, <u32>(key >> 32) - 1)) {
      if (rest < maxLinks) {
        store<u32>(batchAt + (<usize>rest << 2), slot);
        rest++;
      }
      continue;
    }
    store<u32>(keptAt + (<usize>kept << 2), slot);
    kept++;
  }
  const wanted = (capacity >> 1) + (capacity >> 2);
  for (let i: u32 = 0; i < rest && kept < wanted; i++) {
    store<u32>(keptAt + (<usize>kept << 2), load<u32>(batchAt + (<usize>i << 2)));
    kept++;
  }
  return kept;
}

/** Repairs one list; false when nothing in it is gone. */
function repair(slot: u32, level: u32, version: u32, slots: u32): bool {
  const list = linksOf(slot, level);
  const capacity = capacityOf(level);
  let gone: u32 = 0;
  for (let i: u32 = 0; i < capacity; i++) {
    const other = load<u32>(list + (<usize>i << 2));
    if (other == noLink) break;
    if (isGone(other, version)) gone++;
  }
  if (gone == 0) return false;
  lockSlot(slot);
  beginVisit(slots);
  visit(slot);
  useSlot(slot, query8At);
  const live = gather(slot, level, version, 0);
  let n = live;
  for (let i: u32 = 0; i < capacity; i++) {
    const other = load<u32>(list + (<usize>i << 2));
    if (other == noLink) break;
    if (isGone(other, version)) n = gather(other, level, version, n);
  }
  const kept = choose(live, n, capacity);
  storeLinks(slot, level, kept);
  const added = kept - live;
  for (let i: u32 = 0; i < added; i++)
    store<u32>(outKeysAt + (<usize>i << 2), load<u32>(keptAt + (<usize>(live + i) << 2)));
  unlockSlot(slot);
  // No lock is held here: linking back takes the other's.
  for (let i: u32 = 0; i < added; i++) addLink(load<u32>(outKeysAt + (<usize>i << 2)), slot, level);
  return true;
}

/** Repairs the links of the slots from..to-1 to what is gone. Returns how many slots had any. */
export function sweepRange(from: u32, to: u32, version: u32, slots: u32): u32 {
  let repaired: u32 = 0;
  for (let slot = from; slot < to; slot++) {
    if (isGone(slot, version) || load<u32>(bornOf(slot)) == never) continue;
    const level = levelOf(slot);
    let any = false;
    for (let l: u32 = 0; l <= level; l++) if (repair(slot, l, version, slots)) any = true;
    if (any) repaired++;
  }
  return repaired;
}

/** After a sweep of all slots: where the entry point is gone, the live slot of the highest level takes its place. */
export function mendEntry(version: u32, slots: u32): void {
  const from = entry();
  if (from == 0 || !isGone(<u32>from - 1, version)) return;
  let best: u32 = never;
  let bestLevel: u32 = 0;
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (isGone(slot, version)) continue;
    const level = levelOf(slot);
    if (best != never && level <= bestLevel) continue;
    best = slot;
    bestLevel = level;
  }
  lockEntry();
  if (best == never) clearEntry();
  else setEntry(best, bestLevel);
  unlockEntry();
}

/**
 * Links slots anew that no level-0 link leads to: pruning and removals leave a few. Returns how many there were. Not
 * beside insertions or a sweep.
 */
export function mendOrphans(slots: u32): u32 {
  const from = entry();
  if (from == 0) return 0;
  beginVisit(slots);
  visit(<u32>from - 1);
  const capacity = capacityOf(0);
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (load<u32>(diedOf(slot)) != never) continue;
    const list = linksOf(slot, 0);
    for (let i: u32 = 0; i < capacity; i++) {
      const other = load<u32>(list + (<usize>i << 2));
      if (other == noLink) break;
      visit(other);
    }
  }
  // Linking uses the selected and the marks: the orphans are noted in the results' place first.
  let orphans: u32 = 0;
  for (let slot: u32 = 0; slot < slots && orphans < maxResults; slot++)
    if (load<u32>(diedOf(slot)) == never && !wasVisited(slot)) {
      store<u32>(outKeysAt + (<usize>orphans << 2), slot);
      orphans++;
    }
  for (let i: u32 = 0; i < orphans; i++) {
    const slot = load<u32>(outKeysAt + (<usize>i << 2));
    useSlot(slot, query8At);
    link(slot, slots, 0, load<f32>(scaleOf(slot)), squared ? load<f32>(biasOf(slot)) : 0);
  }
  return orphans;
}
