// What a file's bytes must obey before a search may walk them, and how slots become bytes of a file. A loop
// that trusts a link would leave the sandbox's memory, or never end. A check returns 0 or the number of the
// rule that is broken, as in src/file/refusal.ts, and leaves the slot in `faultSlot`.
import { narrowRow } from "./kernels";
import {
  biasOf,
  capacityOf,
  filterAt,
  groupBits,
  keyOf,
  levelOf,
  levels,
  linksOf,
  lockOf,
  noLink,
  normalise,
  rowBytes,
  rowOf,
  scaleOf,
  squared,
} from "./state";
import { isVisible } from "./walk";

const linkOutside: u32 = 1;
const linkToFree: u32 = 2;
const linkToItself: u32 = 3;
const linkRepeated: u32 = 4;
const listUnended: u32 = 5;
const linkOffLevel: u32 = 6;
const badScale: u32 = 7;
const badBias: u32 = 8;
const freeHasLinks: u32 = 9;
/** Rows of a cosine index have norm 1: no component is above it, and a scale is the largest one / 127. */
const cosineScaleLimit: f32 = 1.001 / 127;

export let faultSlot: u32 = 0;

@inline function marked(slot: u32): bool {
  return ((<u32>load<u8>(filterAt + <usize>(slot >> 3)) >> (slot & 7)) & 1) != 0;
}

@inline function mark(slot: u32): void {
  const at = filterAt + <usize>(slot >> 3);
  store<u8>(at, <u8>(<u32>load<u8>(at) | (<u32>1 << (slot & 7))));
}

/** Marks the slots below `slots` that have a key in the thread's bitmap. Returns how many. */
export function markKeyed(slots: u32): u32 {
  memory.fill(filterAt, 0, (slots + 7) >> 3);
  let live: u32 = 0;
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (load<u32>(keyOf(slot)) == noLink) continue;
    mark(slot);
    live++;
  }
  return live;
}

/** The same of those that a search at `version` may return. */
export function markVisible(slots: u32, version: u32): u32 {
  memory.fill(filterAt, 0, (slots + 7) >> 3);
  let live: u32 = 0;
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (!isVisible(slot, version)) continue;
    mark(slot);
    live++;
  }
  return live;
}

/** A marked slot of the highest level, as an entry point is written; 0 if none is marked. */
export function highestMarked(slots: u32): u64 {
  let best: u64 = 0;
  let height: i32 = -1;
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (!marked(slot)) continue;
    const level = <i32>levelOf(slot);
    if (level <= height) continue;
    height = level;
    best = (<u64>level << 32) | <u64>(slot + 1);
  }
  return best;
}

export function isMarked(slot: u32): bool {
  return marked(slot);
}

/** Any equal pair among the words of `bytes` bytes at `list` (a multiple of 16) that are not `noLink`. */
function hasRepeats(list: usize, bytes: usize): bool {
  const none = i32x4.splat(-1);
  let equal = i32x4.splat(0);
  for (let b: usize = 0; b < bytes; b += 16) {
    const v = v128.load(list + b);
    const v1 = i32x4.shuffle(v, v, 1, 2, 3, 0);
    const v2 = i32x4.shuffle(v, v, 2, 3, 0, 1);
    const v3 = i32x4.shuffle(v, v, 3, 0, 1, 2);
    equal = v128.or(
      equal,
      v128.andnot(v128.or(i32x4.eq(v, v1), i32x4.eq(v, v2)), i32x4.eq(v, none)),
    );
    for (let a: usize = 0; a < b; a += 16) {
      const w = v128.load(list + a);
      const pairs = v128.or(
        v128.or(i32x4.eq(w, v), i32x4.eq(w, v1)),
        v128.or(i32x4.eq(w, v2), i32x4.eq(w, v3)),
      );
      equal = v128.or(equal, pairs);
    }
  }
  return v128.any_true(equal);
}

function checkList(slot: u32, level: u32, slots: u32): u32 {
  const list = linksOf(slot, level);
  const capacity = capacityOf(level);
  const end = list + (<usize>capacity << 2);
  let at = list;
  for (; at < end; at += 4) {
    const link = load<u32>(at);
    if (link >= slots) break;
    if (!marked(link)) return linkToFree;
    if (link == slot) return linkToItself;
    if (level > 0 && levelOf(link) < level) return linkOffLevel;
  }
  // Whole vectors; words past the end of a list whose length is no multiple of four are another list's.
  const linked = at - list;
  for (; at < end; at += 4)
    if (load<u32>(at) != noLink) return load<u32>(at) < slots ? listUnended : linkOutside;
  const whole = min((linked + 15) & ~15, (<usize>capacity << 2) & ~15);
  if (hasRepeats(list, whole)) return linkRepeated;
  for (let tail = list + whole; tail < list + linked; tail += 4)
    for (let other = list; other < tail; other += 4)
      if (load<u32>(other) == load<u32>(tail)) return linkRepeated;
  return 0;
}

function checkValues(slot: u32): u32 {
  const scale = load<f32>(scaleOf(slot));
  if (!(scale > 0) || !isFinite<f32>(scale) || (normalise && scale > cosineScaleLimit)) return badScale;
  if (!squared) return 0;
  const bias = load<f32>(biasOf(slot));
  return bias >= 0 && isFinite<f32>(bias) ? 0 : badBias;
}

function checkSlot(slot: u32, slots: u32, top: u32): u32 {
  if (!marked(slot)) {
    const list = linksOf(slot, 0);
    for (let at: usize = 0; at < <usize>capacityOf(0) << 2; at += 4)
      if (load<u32>(list + at) != noLink) return freeHasLinks;
    return 0;
  }
  const bad = checkValues(slot);
  if (bad != 0) return bad;
  const level = min(levelOf(slot), top);
  for (let l: u32 = 0; l <= level; l++) {
    const broken = checkList(slot, l, slots);
    if (broken != 0) return broken;
  }
  return 0;
}

/** Checks slots [from, to) of `slots`, `top` being the entry point's level. `markKeyed` comes first. */
export function validate(from: u32, to: u32, slots: u32, top: u32): u32 {
  for (let slot = from; slot < to; slot++) {
    const broken = checkSlot(slot, slots, top);
    if (broken == 0) continue;
    faultSlot = slot;
    return broken;
  }
  return 0;
}

/** Makes slots [from, to) ready for what comes after a load: unlocked, no links above `top`. */
export function settle(from: u32, to: u32, top: u32): void {
  for (let slot = from; slot < to; slot++) {
    store<u32>(lockOf(slot), 0);
    const level = levelOf(slot);
    for (let l = top + 1; l <= level; l++) store<u32>(linksOf(slot, l), noLink);
  }
}

/** Whether `bytes` bytes of float32 or float16 at `from` hold neither infinities nor NaN. */
export function isFiniteRow(from: usize, bytes: usize, halves: bool): bool {
  const exponent = halves ? i16x8.splat(0x7c00) : i32x4.splat(0x7f800000);
  let bad = i32x4.splat(0);
  for (let at: usize = 0; at < bytes; at += 16) {
    const bits = v128.and(v128.load(from + at), exponent);
    bad = v128.or(bad, halves ? i16x8.eq(bits, exponent) : i32x4.eq(bits, exponent));
  }
  return !v128.any_true(bad);
}

/** Narrows `count` float32 rows at `from` into the float16 rows of the slots from `slot` on. */
export function narrowRows(from: usize, slot: u32, count: u32): void {
  const width = <u32>(rowBytes >> 1);
  for (let i: u32 = 0; i < count; i++) narrowRow(from + <usize>i * (rowBytes << 1), rowOf(slot + i), width);
}

/** Writes the links of groups [first, first + count) of a level (level 0: of slots) from a file's bytes. */
export function scatterLinks(from: usize, level: u32, first: u32, count: u32): void {
  const bytes = <usize>capacityOf(level) << 2;
  const shift = level * groupBits;
  for (let i: u32 = 0; i < count; i++)
    memory.copy(linksOf((first + i) << shift, level), from + <usize>i * bytes, bytes);
}

/**
 * Lays the links of groups [first, first + count) of a level (level 0: of slots) out as a file holds them: of
 * unmarked slots none, of marked ones those to marked slots, then `noLink` to the end.
 */
export function gatherLinks(into: usize, level: u32, first: u32, count: u32, slots: u32): void {
  const capacity = capacityOf(level);
  const bytes = <usize>capacity << 2;
  const shift = level * groupBits;
  memory.fill(into, 0xff, <usize>count * bytes);
  const to = <u32>min<u64>(slots, (<u64>first + count) << shift);
  for (let slot = first << shift; slot < to; slot++) {
    if (!marked(slot) || levelOf(slot) < level) continue;
    const list = linksOf(slot, level);
    let out = into + <usize>((slot >> shift) - first) * bytes;
    for (let i: u32 = 0; i < capacity; i++) {
      const link = load<u32>(list + (<usize>i << 2));
      if (link == noLink) break;
      if (!marked(link)) continue;
      store<u32>(out, link);
      out += 4;
    }
  }
}

/** Copies `count` items of `bytes` bytes, of the slots from `slot` on; unmarked ones become `empty`. */
export function gather(into: usize, from: usize, bytes: usize, slot: u32, count: u32, empty: u32): void {
  memory.copy(into, from, bytes * count);
  for (let i: u32 = 0; i < count; i++)
    if (!marked(slot + i)) memory.fill(into + bytes * i, <u8>empty, bytes);
}
