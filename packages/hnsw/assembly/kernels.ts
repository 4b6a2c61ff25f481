// Vectors are held in 8 bits with a scale each, split in two planes of 4 bits: u = 16·coarse + fine, value ≈ scale·(u − 128).
// The graph is walked on the coarse plane alone: half the cache lines, which is what a distance costs. With few dimensions
// both planes are used (`wholeWalk`): lines are few anyway, and four bits would blur distances too much. A byte of a plane
// holds two dimensions; 32 dimensions (16 bytes) are a block: the low halves are its first 16, the high ones its last.
import { biasOf, coarseOf, dim, distancesAt, fineOf, lowAt, planeBytes, scaleOf, squared, wholeWalk } from "./state";

/** Constants of the query that a thread compares with: set by `useQuery`. */
let queryScale: f32 = 0;
let queryBias: f32 = 0;
/** 120.5 × the sum of the query's numbers: takes the offset of the coarse plane back, its lower half at its mean. */
let coarseOffset: f32 = 0;
/** 128 × the same sum. */
let fineOffset: f32 = 0;

/**
 * Σ nibble·q over one plane and a query of signed bytes. Exact and the same everywhere: |q| ≤ 127 and nibbles ≤ 15, so
 * pairs are at most 3,810 and eight of them fit the signed 16 bits in which they are added up.
 */
@inline function planeDot(plane: usize, query: usize, low: v128): i32 {
  let sum = i32x4.splat(0);
  const end = plane + planeBytes;
  let p = plane;
  let q = query;
  while (p < end) {
    // Four blocks: at most 8 × 3,810 in each lane.
    let v = v128.load(p);
    let w = v128.load(p, 16);
    let a = i16x8.relaxed_dot_i8x16_i7x16_s(v128.load(q), v128.and(v, low));
    let b = i16x8.relaxed_dot_i8x16_i7x16_s(v128.load(q, 16), v128.and(i16x8.shr_u(v, 4), low));
    a = i16x8.add(a, i16x8.relaxed_dot_i8x16_i7x16_s(v128.load(q, 32), v128.and(w, low)));
    b = i16x8.add(b, i16x8.relaxed_dot_i8x16_i7x16_s(v128.load(q, 48), v128.and(i16x8.shr_u(w, 4), low)));
    sum = i32x4.add(sum, i32x4.extadd_pairwise_i16x8_s(i16x8.add(a, b)));
    p += 32;
    q += 64;
  }
  sum = i32x4.add(sum, i32x4.shuffle(sum, sum, 2, 3, 0, 1));
  return i32x4.extract_lane(sum, 0) + i32x4.extract_lane(sum, 1);
}

/**
 * Distances of the four slots whose numbers lie at `batch` from the thread's query: the same numbers as
 * `walkDistance` gives, with the query's bytes read once for all four. Left at `distancesAt` as ordered bits; returns
 * which of them (bits 0..3) are at most `bound`, ordered bits too.
 */
export function walkFour(batch: usize, query: usize, bound: u32): i32 {
  const slot0 = load<u32>(batch);
  const slot1 = load<u32>(batch, 4);
  const slot2 = load<u32>(batch, 8);
  const slot3 = load<u32>(batch, 12);
  const low = v128.load(lowAt);
  let p0 = coarseOf(slot0);
  let p1 = coarseOf(slot1);
  let p2 = coarseOf(slot2);
  let p3 = coarseOf(slot3);
  let s0 = i32x4.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  const end = query + dim;
  for (let q = query; q < end; q += 64) {
    const a = v128.load(q);
    const b = v128.load(q, 16);
    const c = v128.load(q, 32);
    const d = v128.load(q, 48);
    s0 = i32x4.add(s0, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p0, a, b, c, d, low)));
    s1 = i32x4.add(s1, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p1, a, b, c, d, low)));
    s2 = i32x4.add(s2, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p2, a, b, c, d, low)));
    s3 = i32x4.add(s3, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p3, a, b, c, d, low)));
    p0 += 32;
    p1 += 32;
    p2 += 32;
    p3 += 32;
  }
  if (wholeWalk) {
    p0 = fineOf(slot0);
    p1 = fineOf(slot1);
    p2 = fineOf(slot2);
    p3 = fineOf(slot3);
    s0 = i32x4.shl(s0, 4);
    s1 = i32x4.shl(s1, 4);
    s2 = i32x4.shl(s2, 4);
    s3 = i32x4.shl(s3, 4);
    for (let q = query; q < end; q += 64) {
      const a = v128.load(q);
      const b = v128.load(q, 16);
      const c = v128.load(q, 32);
      const d = v128.load(q, 48);
      s0 = i32x4.add(s0, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p0, a, b, c, d, low)));
      s1 = i32x4.add(s1, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p1, a, b, c, d, low)));
      s2 = i32x4.add(s2, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p2, a, b, c, d, low)));
      s3 = i32x4.add(s3, i32x4.extadd_pairwise_i16x8_s(halfLineDot(p3, a, b, c, d, low)));
      p0 += 32;
      p1 += 32;
      p2 += 32;
      p3 += 32;
    }
  }
  // Sums of four lanes each, transposed on the way into one vector of four sums.
  const t01 = i32x4.add(i32x4.shuffle(s0, s1, 0, 4, 2, 6), i32x4.shuffle(s0, s1, 1, 5, 3, 7));
  const t23 = i32x4.add(i32x4.shuffle(s2, s3, 0, 4, 2, 6), i32x4.shuffle(s2, s3, 1, 5, 3, 7));
  const sums = i32x4.add(i32x4.shuffle(t01, t23, 0, 1, 4, 5), i32x4.shuffle(t01, t23, 2, 3, 6, 7));
  const whole = wholeWalk ? sums : i32x4.shl(sums, 4);
  const dots = f32x4.sub(f32x4.convert_i32x4_s(whole), f32x4.splat(wholeWalk ? fineOffset : coarseOffset));
  let scales = f32x4.splat(load<f32>(scaleOf(slot0)));
  scales = f32x4.replace_lane(scales, 1, load<f32>(scaleOf(slot1)));
  scales = f32x4.replace_lane(scales, 2, load<f32>(scaleOf(slot2)));
  scales = f32x4.replace_lane(scales, 3, load<f32>(scaleOf(slot3)));
  let d = f32x4.neg(f32x4.mul(f32x4.mul(dots, scales), f32x4.splat(queryScale)));
  if (squared) {
    let biases = f32x4.splat(load<f32>(biasOf(slot0)));
    biases = f32x4.replace_lane(biases, 1, load<f32>(biasOf(slot1)));
    biases = f32x4.replace_lane(biases, 2, load<f32>(biasOf(slot2)));
    biases = f32x4.replace_lane(biases, 3, load<f32>(biasOf(slot3)));
    d = f32x4.add(f32x4.add(f32x4.add(d, d), biases), f32x4.splat(queryBias));
  }
  const bits = v128.xor(d, v128.or(i32x4.shr_s(d, 31), i32x4.splat(i32.MIN_VALUE)));
  v128.store(distancesAt, bits);
  return i32x4.bitmask(i32x4.le_u(bits, i32x4.splat(bound)));
}

/** Σ nibble·q over 64 dimensions: at most 4 × 3,810 in each lane. */
@inline function halfLineDot(plane: usize, a: v128, b: v128, c: v128, d: v128, low: v128): v128 {
  const v = v128.load(plane);
  const w = v128.load(plane, 16);
  return i16x8.add(
    i16x8.add(
      i16x8.relaxed_dot_i8x16_i7x16_s(a, v128.and(v, low)),
      i16x8.relaxed_dot_i8x16_i7x16_s(b, v128.and(i16x8.shr_u(v, 4), low)),
    ),
    i16x8.add(
      i16x8.relaxed_dot_i8x16_i7x16_s(c, v128.and(w, low)),
      i16x8.relaxed_dot_i8x16_i7x16_s(d, v128.and(i16x8.shr_u(w, 4), low)),
    ),
  );
}

/** Key of entry `i` of the last `walkFour`. */
@inline export function keyOfFour(i: u32, slot: u32): u64 {
  return (<u64>load<u32>(distancesAt + (<usize>i << 2)) << 32) | <u64>slot;
}

/**
 * Reads a word of every other cache line of a slot's vector: loads that do not wait for each other. Processors fetch lines
 * of 64 bytes in pairs; reading each of them was slower.
 */
@inline export function touchSlot(slot: u32): i32 {
  const p = coarseOf(slot);
  let s = load<i32>(p) ^ load<i32>(scaleOf(slot));
  for (let at: usize = 128; at < planeBytes; at += 128) s ^= load<i32>(p + at);
  if (wholeWalk) s ^= load<i32>(fineOf(slot));
  return s;
}

@inline function distanceFrom(slot: u32, dot: f32): f32 {
  const d = -(dot * load<f32>(scaleOf(slot)) * queryScale);
  return squared ? d + d + load<f32>(biasOf(slot)) + queryBias : d;
}

/** Distance of a slot from the query of `useQuery` as the walk takes it: −dot, or the squared distance. */
@inline export function walkDistance(slot: u32, query: usize): f32 {
  if (wholeWalk) return fineDistance(slot, query);
  return distanceFrom(slot, <f32>(planeDot(coarseOf(slot), query, v128.load(lowAt)) << 4) - coarseOffset);
}
/** The same by all 8 bits. */
@inline export function fineDistance(slot: u32, query: usize): f32 {
  const dot = (planeDot(coarseOf(slot), query, v128.load(lowAt)) << 4) + planeDot(fineOf(slot), query, v128.load(lowAt));
  return distanceFrom(slot, <f32>dot - fineOffset);
}

/**
 * Factor of a slot's scale by which its coarse distance may differ from the one by 8 bits: the lower half of each number
 * is at most 7.5 from its mean, so by Cauchy and Schwarz the dot product is at most 7.5·√dim·|q| from its estimate.
 */
export function walkMargin(query: usize): f32 {
  if (wholeWalk) return 0;
  let sum: f64 = 0;
  for (let at: usize = 0; at < dim; at++) {
    const q = <i32>load<i8>(query + at);
    sum += <f64>(q * q);
  }
  const margin = <f32>(7.6 * Math.sqrt(<f64>dim * sum)) * queryScale;
  return squared ? margin + margin : margin;
}

/** Distances are ordered as unsigned numbers, so that (distance, slot) is one 64-bit key. */
@inline export function orderedBits(distance: f32): u32 {
  const bits = reinterpret<u32>(distance);
  return bits ^ (<u32>(<i32>bits >> 31) | 0x80000000);
}
@inline export function keyFrom(distance: f32, slot: u32): u64 {
  return (<u64>orderedBits(distance) << 32) | <u64>slot;
}
@inline export function distanceIn(key: u64): f32 {
  const bits = <u32>(key >> 32);
  return reinterpret<f32>(bits ^ (<u32>(<i32>~bits >> 31) | 0x80000000));
}

/** Makes the signed bytes at `query` the thread's query: value = scale × byte, `bias` its squared norm. */
export function useQuery(query: usize, scale: f32, bias: f32): void {
  let sums = i32x4.splat(0);
  for (let at: usize = 0; at < dim; at += 16)
    sums = i32x4.add(sums, i32x4.extadd_pairwise_i16x8_s(i16x8.extadd_pairwise_i8x16_s(v128.load(query + at))));
  const sum =
    i32x4.extract_lane(sums, 0) + i32x4.extract_lane(sums, 1) + i32x4.extract_lane(sums, 2) + i32x4.extract_lane(sums, 3);
  queryScale = scale;
  queryBias = bias;
  coarseOffset = <f32>sum * 120.5;
  fineOffset = <f32>(sum << 7);
}

/**
 * Puts a slot's numbers at `into` and makes them the thread's query; where the walk is coarse, with their lower halves at
 * the middle: choosing neighbours by it gives graphs as good as by all 8 bits, and the fine plane stays out of the cache.
 */
export function useSlot(slot: u32, into: usize): void {
  const coarse = coarseOf(slot);
  const fine = fineOf(slot);
  const low = i8x16.splat(15);
  const high = i8x16.splat(-16);
  const sign = i8x16.splat(-128);
  const middle = i8x16.splat(8);
  for (let at: usize = 0; at < planeBytes; at += 16) {
    const c = v128.load(coarse + at);
    let first = middle;
    let last = middle;
    if (wholeWalk) {
      const f = v128.load(fine + at);
      first = v128.and(f, low);
      last = v128.and(i16x8.shr_u(f, 4), low);
    }
    v128.store(into + (at << 1), v128.xor(v128.or(v128.and(i16x8.shl(c, 4), high), first), sign));
    v128.store(into + (at << 1), v128.xor(v128.or(v128.and(c, high), last), sign), 16);
  }
  useQuery(into, load<f32>(scaleOf(slot)), squared ? load<f32>(biasOf(slot)) : 0);
}

@inline function sumOf(v: v128): f32 {
  return (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** Σ a·b of `count` float32 pairs (a multiple of 16) in four times four lanes; no fused operations, so the same everywhere. */
export function dotFloat32(a: usize, b: usize, count: u32): f32 {
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  const bytes = <usize>count << 2;
  for (let i: usize = 0; i < bytes; i += 64) {
    s0 = f32x4.add(s0, f32x4.mul(v128.load(a + i), v128.load(b + i)));
    s1 = f32x4.add(s1, f32x4.mul(v128.load(a + i, 16), v128.load(b + i, 16)));
    s2 = f32x4.add(s2, f32x4.mul(v128.load(a + i, 32), v128.load(b + i, 32)));
    s3 = f32x4.add(s3, f32x4.mul(v128.load(a + i, 48), v128.load(b + i, 48)));
  }
  return sumOf(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
}

/** Squared distance, as `dotFloat32`. */
export function squaredFloat32(a: usize, b: usize, count: u32): f32 {
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  const bytes = <usize>count << 2;
  for (let i: usize = 0; i < bytes; i += 64) {
    const d0 = f32x4.sub(v128.load(a + i), v128.load(b + i));
    const d1 = f32x4.sub(v128.load(a + i, 16), v128.load(b + i, 16));
    const d2 = f32x4.sub(v128.load(a + i, 32), v128.load(b + i, 32));
    const d3 = f32x4.sub(v128.load(a + i, 48), v128.load(b + i, 48));
    s0 = f32x4.add(s0, f32x4.mul(d0, d0));
    s1 = f32x4.add(s1, f32x4.mul(d1, d1));
    s2 = f32x4.add(s2, f32x4.mul(d2, d2));
    s3 = f32x4.add(s3, f32x4.mul(d3, d3));
  }
  return sumOf(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
}

/** float16 (finite) to float32: the exponent is rebased by a multiplication with 2^112, which also takes subnormals. */
@inline export function halvesToFloats(halves: v128): v128 {
  const magnitude = f32x4.mul(
    i32x4.shl(v128.and(halves, i32x4.splat(0x7fff)), 13),
    f32x4.splat(reinterpret<f32>(0x77800000)),
  );
  return v128.or(magnitude, i32x4.shl(v128.and(halves, i32x4.splat(0x8000)), 16));
}

/** Widens `count` float16 at `from` to float32 at `into`. */
export function widenRow(from: usize, into: usize, count: u32): void {
  for (let i: usize = 0; i < count; i += 4)
    v128.store(into + (i << 2), halvesToFloats(i32x4.extend_low_i16x8_u(v128.load64_zero(from + (i << 1)))));
}

/** Narrows `count` float32 to float16, round to nearest even. Beyond 65504 becomes 65504: infinities have no place here. */
export function narrowRow(from: usize, into: usize, count: u32): void {
  for (let i: usize = 0; i < count; i++) store<u16>(into + (i << 1), narrow(load<f32>(from + (i << 2))));
}
function narrow(value: f32): u16 {
  const bits = reinterpret<u32>(value);
  const sign = <u16>((bits >> 16) & 0x8000);
  const size = min<f32>(abs<f32>(value), 65504);
  // Below 2^-14 a half has steps of 2^-24: adding 0.5 rounds to them in the low bits of the sum.
  if (size < 6.103515625e-5) return sign | <u16>(reinterpret<u32>(size + 0.5) - 0x3f000000);
  const raw = reinterpret<u32>(size);
  return sign | <u16>((raw - 0x38000000 + 0xfff + ((raw >> 13) & 1)) >> 13);
}
