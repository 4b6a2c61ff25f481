/**
 * Where everything lies in an index's memory (one WebAssembly memory of up to 4 GiB, shared by threads):
 *
 *     0         64 KiB  the compiler's own data, unused
 *     64 KiB   128 KiB  control block: this layout as numbers, and the words that threads share
 *     128 KiB           scratch of each thread, then the upper links of groups larger than a segment
 *     segmentsAt        segments of 4,096 slots; each holds every array of its slots, so an index grows by segments
 *
 * Pages that were never written cost address space only.
 */
export const pageBytes = 65_536;
export const memoryLimitBytes = 65_536 * pageBytes;
export const segmentBits = 12;
export const segmentSlots = 1 << segmentBits;
export const controlAt = pageBytes;
const scratchAt = 2 * pageBytes;
const layoutVersion = 1;
const maxLevels = 12;
/** As in assembly/state.ts. */
export const maxResults = 65_536;
const maxCandidates = 131_072;
export const maxBatchQueries = 16;
const maxLinks = 512;

export type Metric = "cosine" | "ip" | "l2";
/** Where full-precision rows for the re-rank are held. */
export type RowKind = "none" | "float32" | "float16";
export const rowKinds: readonly RowKind[] = ["none", "float32", "float16"];

export interface Shape {
  dim: number;
  metric: Metric;
  m: number;
  efConstruction: number;
  seed: number;
  rows: RowKind;
  /** Threads that have it open at a time, at most. */
  instances: number;
}

export interface Layout extends Shape {
  /** `dim` rounded up to a multiple of 64. */
  paddedDim: number;
  groupBits: number;
  levels: number;
  maxSlots: number;
  segmentsAt: number;
  segmentBytes: number;
  /** Offsets of each array within a segment. */
  at: Record<SegmentArray, number>;
  /** By level, from 1: offset in the segment, or address of the region before the segments. */
  upperAt: number[];
  scratchBytes: number;
  filterBytes: number;
}

export type SegmentArray =
  | "coarse"
  | "fine"
  | "scale"
  | "bias"
  | "links"
  | "lock"
  | "born"
  | "died"
  | "key"
  | "row"
  | "visited";

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Distances of levels are powers of two, the nearest to m: the arithmetic of upper links wants that. */
export function groupBitsFor(m: number): number {
  return Math.max(2, Math.min(6, Math.round(Math.log2(m))));
}

function rowBytesOf(paddedDim: number, rows: RowKind): number {
  return rows === "float32" ? paddedDim * 4 : rows === "float16" ? paddedDim * 2 : 0;
}

/** Lays an index out. Slots are limited by what 4 GiB hold. */
export function layOut(shape: Shape): Layout {
  const { dim, m, metric, rows, instances } = shape;
  const paddedDim = align(dim, 64);
  const groupBits = groupBitsFor(m);
  const plane = paddedDim / 2;
  const offsets = {} as Record<SegmentArray, number>;
  let end = 0;
  const place = (name: SegmentArray, slotBytes: number) => {
    offsets[name] = end;
    end = align(end + segmentSlots * slotBytes, 64);
  };
  place("coarse", plane);
  place("fine", plane);
  place("links", 8 * m);
  place("scale", 4);
  place("bias", metric === "l2" ? 4 : 0);
  place("lock", 4);
  place("born", 4);
  place("died", 4);
  place("key", 4);
  place("row", rowBytesOf(paddedDim, rows));
  place("visited", 2 * instances);
  const upperAt = [0];
  for (let level = 1; level * groupBits <= segmentBits && level <= maxLevels; level++) {
    upperAt.push(end);
    end = align(end + (segmentSlots >> (level * groupBits)) * 4 * m, 64);
  }
  // Whole pages of the operating system, so that what a segment does not use is never touched.
  const segmentBytes = align(end, 4096);
  const mostSlots = Math.floor(memoryLimitBytes / segmentBytes) * segmentSlots;
  const filterBytes = align(Math.ceil(mostSlots / 8), 64);
  const scratchBytes = align(
    64 +
      paddedDim * 4 * maxBatchQueries +
      2 * paddedDim +
      4 * paddedDim +
      8 * maxCandidates +
      8 * maxResults +
      8 * (maxResults + maxLinks) +
      8 * maxLinks +
      4 * maxLinks * (maxLevels + 1) +
      8 * maxResults +
      filterBytes,
    4096,
  );
  let at = scratchAt + scratchBytes * instances;
  let level = upperAt.length;
  for (; level <= maxLevels && mostSlots >> (level * groupBits) > 0; level++) {
    upperAt.push(at);
    at += align((mostSlots >> (level * groupBits)) * 4 * m + 4 * m, 64);
  }
  const segmentsAt = align(at, 4096);
  const maxSlots = Math.floor((memoryLimitBytes - segmentsAt) / segmentBytes) * segmentSlots;
  for (let l = 1; l * groupBits <= segmentBits && l < upperAt.length; l++)
    upperAt[l] = (upperAt[l] as number) + segmentsAt;
  return {
    ...shape,
    paddedDim,
    groupBits,
    levels: upperAt.length - 1,
    maxSlots,
    segmentsAt,
    segmentBytes,
    at: offsets,
    upperAt,
    scratchBytes,
    filterBytes,
  };
}

/** Bytes of memory for `slots` slots, whole pages. */
export function memoryBytesFor(layout: Layout, slots: number): number {
  return align(layout.segmentsAt + Math.ceil(slots / segmentSlots) * layout.segmentBytes, pageBytes);
}

/** Of a thread's scratch the most is room for the largest requests; usual ones touch less than this. */
const usualScratchBytes = 256 * 1024;
/** The arrays of a segment begin on pages of their own, more or less. */
const partPagesBytes = 64 * 1024;

/** What an index with `slots` slots in use holds of the machine's memory: pages that were never written cost nothing. */
export function residentBytesFor(layout: Layout, slots: number): number {
  const scratch = layout.instances * Math.min(layout.scratchBytes, usualScratchBytes);
  return pageBytes + scratch + partPagesBytes + Math.ceil((slots * layout.segmentBytes) / segmentSlots);
}

/** Address of one slot's place in an array of its segment. */
export function addressOf(layout: Layout, array: SegmentArray, slot: number, bytes: number): number {
  const segment = layout.segmentsAt + Math.floor(slot / segmentSlots) * layout.segmentBytes;
  return segment + layout.at[array] + (slot % segmentSlots) * bytes;
}

/** Writes the control block and empties the words that threads share. */
export function writeControl(memory: WebAssembly.Memory, layout: Layout): void {
  const words = new Uint32Array(memory.buffer, controlAt, pageBytes / 4);
  words.fill(0);
  const { at } = layout;
  words.set([
    layoutVersion,
    layout.dim,
    layout.paddedDim,
    layout.metric === "l2" ? 1 : 0,
    layout.metric === "cosine" ? 1 : 0,
    layout.m,
    2 * layout.m,
    layout.efConstruction,
    layout.groupBits,
    layout.seed,
    layout.maxSlots,
    layout.levels,
    rowKinds.indexOf(layout.rows),
    layout.instances,
    layout.segmentsAt,
    layout.segmentBytes,
    at.coarse,
    at.fine,
    at.scale,
    at.bias,
    at.links,
    at.lock,
    at.born,
    at.died,
    at.key,
    at.row,
    at.visited,
    scratchAt,
    layout.scratchBytes,
    layout.filterBytes,
  ]);
  words.set(layout.upperAt, 32);
}
