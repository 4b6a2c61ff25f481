// What a thread knows of the index that it is attached to: copied once from the control block, so that hot loops
// read module globals (which are per thread) and not memory. The block's layout is that of src/layout.ts.

/** Slots of one segment: 2^segmentBits. A segment holds every array of its slots, so that an index grows by segments. */
export const segmentBits: u32 = 12;
export const segmentMask: u32 = (1 << segmentBits) - 1;
/** Ends a list of links that is not full. */
export const noLink: u32 = 0xffffffff;
/** `died` of a slot that nobody removed. */
export const never: u32 = 0xffffffff;

export const float32Rows: u32 = 1;
export const float16Rows: u32 = 2;

export const maxResults: u32 = 65536;
export const maxCandidates: u32 = 131072;
export const maxBatchQueries: u32 = 16;
/** Room for the links of one node, twice. */
export const maxLinks: u32 = 512;
const maxLevels: usize = 12;
/** Up to this many dimensions distances are taken by all 8 bits throughout. */
const wholeWalkDim: u32 = 192;

let control: usize = 0;
/** Dimensions after padding to a multiple of 64. */
export let dim: u32 = 0;
/** Bytes of one plane (4 bits a dimension) of one vector. */
export let planeBytes: usize = 0;
/** Whether the walk uses both planes. */
export let wholeWalk: bool = false;
export let squared: bool = false;
export let normalise: bool = false;
export let m: u32 = 0;
export let efConstruction: u32 = 0;
export let groupBits: u32 = 0;
export let seed: u32 = 0;
export let levels: u32 = 0;
export let rowKind: u32 = 0;
export let segmentBytes: usize = 0;
export let baseLinkBytes: usize = 0;
export let upperLinkBytes: usize = 0;
export let coarseAt: usize = 0;
export let fineAt: usize = 0;
export let scaleAt: usize = 0;
export let biasAt: usize = 0;
export let linksAt: usize = 0;
export let lockAt: usize = 0;
export let bornAt: usize = 0;
export let diedAt: usize = 0;
export let keyAt: usize = 0;
export let rowAt: usize = 0;
export let rowBytes: usize = 0;
export let visitedAt: usize = 0;

/** Sixteen times 15: a constant read from memory stays in a register, a literal is made anew at each use. */
export let lowAt: usize = 0;
/** Distances of the last four slots. */
export let distancesAt: usize = 0;
export let queriesAt: usize = 0;
export let query8At: usize = 0;
export let other8At: usize = 0;
export let candidatesAt: usize = 0;
export let topAt: usize = 0;
export let selectedAt: usize = 0;
export let keptAt: usize = 0;
/** Links of the slot that is being inserted, a list a level. */
export let chosenAt: usize = 0;
export let batchAt: usize = 0;
export let outKeysAt: usize = 0;
export let outScoresAt: usize = 0;
/** One float32 row, for rows that are read from elsewhere. */
export let rowScratchAt: usize = 0;
export let filterAt: usize = 0;
export let filterBytes: usize = 0;

/** Words of the control block that threads share and change, each on a cache line of its own. */
const entryAt: usize = 256;
const entryLockAt: usize = 320;

@inline function word(at: usize): u32 {
  return load<u32>(control + at);
}

/** Reads the control block at `block` for the thread with this number. Called once per thread and layout. */
export function attach(block: usize, thread: u32): void {
  control = block;
  dim = word(8);
  planeBytes = dim >> 1;
  wholeWalk = dim <= wholeWalkDim;
  squared = word(12) != 0;
  normalise = word(16) != 0;
  m = word(20);
  efConstruction = word(28);
  groupBits = word(32);
  seed = word(36);
  levels = word(44);
  rowKind = word(48);
  const segments: usize = word(56);
  segmentBytes = word(60);
  coarseAt = segments + word(64);
  fineAt = segments + word(68);
  scaleAt = segments + word(72);
  biasAt = segments + word(76);
  linksAt = segments + word(80);
  lockAt = segments + word(84);
  bornAt = segments + word(88);
  diedAt = segments + word(92);
  keyAt = segments + word(96);
  rowAt = segments + word(100);
  rowBytes = rowKind == float32Rows ? <usize>dim << 2 : rowKind == float16Rows ? <usize>dim << 1 : 0;
  visitedAt = segments + word(104) + (<usize>thread << (segmentBits + 1));
  baseLinkBytes = <usize>m << 3;
  upperLinkBytes = <usize>m << 2;
  attachScratch(<usize>word(108) + <usize>word(112) * thread);
  filterBytes = word(116);
}

function attachScratch(start: usize): void {
  let at = start;
  lowAt = at;
  v128.store(at, i8x16.splat(15));
  distancesAt = at + 16;
  at += 64;
  queriesAt = at;
  at += (<usize>dim * 4) * maxBatchQueries;
  query8At = at;
  at += dim;
  other8At = at;
  at += dim;
  candidatesAt = at;
  at += <usize>maxCandidates * 8;
  topAt = at;
  at += <usize>maxResults * 8;
  selectedAt = at;
  at += <usize>(maxResults + maxLinks) * 8;
  keptAt = at;
  at += <usize>maxLinks * 4;
  batchAt = at;
  at += <usize>maxLinks * 4;
  chosenAt = at;
  at += <usize>(maxLevels + 1) * maxLinks * 4;
  // Batches are read four at a time: what lies behind their end must be slots, too.
  memory.fill(keptAt, 0, at - keptAt);
  outKeysAt = at;
  at += <usize>maxResults * 4;
  outScoresAt = at;
  at += <usize>maxResults * 4;
  rowScratchAt = at;
  at += <usize>dim * 4;
  filterAt = at;
}

@inline function slotAt(array: usize, slot: u32, bytes: usize): usize {
  return array + <usize>(slot >> segmentBits) * segmentBytes + <usize>(slot & segmentMask) * bytes;
}
@inline export function coarseOf(slot: u32): usize {
  return slotAt(coarseAt, slot, planeBytes);
}
@inline export function fineOf(slot: u32): usize {
  return slotAt(fineAt, slot, planeBytes);
}
@inline export function scaleOf(slot: u32): usize {
  return slotAt(scaleAt, slot, 4);
}
@inline export function biasOf(slot: u32): usize {
  return slotAt(biasAt, slot, 4);
}
@inline export function lockOf(slot: u32): usize {
  return slotAt(lockAt, slot, 4);
}
@inline export function bornOf(slot: u32): usize {
  return slotAt(bornAt, slot, 4);
}
@inline export function diedOf(slot: u32): usize {
  return slotAt(diedAt, slot, 4);
}
@inline export function keyOf(slot: u32): usize {
  return slotAt(keyAt, slot, 4);
}
@inline export function rowOf(slot: u32): usize {
  return slotAt(rowAt, slot, rowBytes);
}
@inline export function visitedOf(slot: u32): usize {
  return slotAt(visitedAt, slot, 2);
}

/**
 * Upper links lie where arithmetic finds them: of 2^(groupBits × level) consecutive slots exactly one is on `level`.
 * Groups within a segment have their place in it; larger ones a place in the region before the segments.
 */
@inline export function linksOf(slot: u32, level: u32): usize {
  if (level == 0) return slotAt(linksAt, slot, baseLinkBytes);
  const shift = level * groupBits;
  const at: usize = load<u32>(control + 128 + (<usize>level << 2));
  if (shift <= segmentBits)
    return at + <usize>(slot >> segmentBits) * segmentBytes + <usize>((slot & segmentMask) >> shift) * upperLinkBytes;
  return at + <usize>(slot >> shift) * upperLinkBytes;
}

/** Links that a list of this level has room for. */
@inline export function capacityOf(level: u32): u32 {
  return level == 0 ? 2 * m : m;
}

@inline export function mix(value: u32): u32 {
  let h = value;
  h ^= h >> 16;
  h *= 0x7feb352d;
  h ^= h >> 15;
  h *= 0x846ca68b;
  return h ^ (h >> 16);
}

/**
 * Level of a slot, a function of seed and slot alone: geometric with ratio 2^-groupBits as in the paper, but
 * stratified (one slot of each group), so that upper links need no table and a slot used again keeps its place.
 */
export function levelOf(slot: u32): u32 {
  let level: u32 = 0;
  let group = slot;
  const mask: u32 = (1 << groupBits) - 1;
  while (level < levels) {
    const child = group & mask;
    group >>= groupBits;
    if ((mix(mix(seed + level * 0x9e3779b9) ^ group) & mask) != child) break;
    level++;
  }
  return level;
}

/** Entry point as (level << 32) | (slot + 1); 0 = the graph is empty. */
@inline export function entry(): u64 {
  return atomic.load<u64>(control + entryAt);
}
@inline export function setEntry(slot: u32, level: u32): void {
  atomic.store<u64>(control + entryAt, (<u64>level << 32) | <u64>(slot + 1));
}
export function clearEntry(): void {
  atomic.store<u64>(control + entryAt, 0);
}

function acquire(at: usize): void {
  let tries = 0;
  while (atomic.cmpxchg<u32>(at, 0, 1) != 0) {
    // More threads than cores: the holder may not be running. 50 µs, in nanoseconds.
    if (++tries > 2000) atomic.wait<i32>(at, 1, 50_000);
  }
}
@inline export function lockEntry(): void {
  acquire(control + entryLockAt);
}
@inline export function unlockEntry(): void {
  atomic.store<u32>(control + entryLockAt, 0);
}
@inline export function lockSlot(slot: u32): void {
  acquire(lockOf(slot));
}
@inline export function unlockSlot(slot: u32): void {
  atomic.store<u32>(lockOf(slot), 0);
}
