// What the engine must answer, computed the slow way. Sums follow the engine's lanes in single precision, so that scores
// can be compared bit for bit.
import type { Metric } from "../src/index.ts";

const { fround } = Math;

/** Sums of sixteen lanes in the engine's order. */
function sumLanes(s: Float32Array): number {
  const at = (i: number) => s[i] as number;
  const lane = (l: number) => fround(fround(at(l) + at(l + 4)) + fround(at(l + 8) + at(l + 12)));
  return fround(fround(lane(0) + lane(1)) + fround(lane(2) + lane(3)));
}

const lanes = new Float32Array(16);

/** Σ a·b in single precision, sixteen lanes. Rows need no padding: zeros add nothing. */
export function dotFloat32(a: Float32Array, b: Float32Array): number {
  lanes.fill(0);
  for (let i = 0; i < a.length; i++) {
    const lane = i & 15;
    lanes[lane] = (lanes[lane] as number) + fround((a[i] as number) * (b[i] as number));
  }
  return sumLanes(lanes);
}

export function squaredFloat32(a: Float32Array, b: Float32Array): number {
  lanes.fill(0);
  for (let i = 0; i < a.length; i++) {
    const lane = i & 15;
    const d = fround((a[i] as number) - (b[i] as number));
    lanes[lane] = (lanes[lane] as number) + fround(d * d);
  }
  return sumLanes(lanes);
}

/** To norm 1 as the engine does it. */
export function normaliseFloat32(row: Float32Array): Float32Array {
  const norm = fround(Math.sqrt(dotFloat32(row, row)));
  if (!(norm > 0)) return row.slice();
  const factor = fround(1 / norm);
  return row.map((x) => x * factor);
}

/** Score of a held row for a prepared query: dot product, or squared distance. */
export const scoreOf = (metric: Metric, row: Float32Array, query: Float32Array): number =>
  metric === "l2" ? squaredFloat32(row, query) : dotFloat32(row, query);

/** As the engine holds rows and takes queries. */
export const prepared = (metric: Metric, row: Float32Array): Float32Array =>
  metric === "cosine" ? normaliseFloat32(row) : row.slice();

export interface Hit {
  key: number;
  score: number;
}

/** What a correct exact search over `rows` gives, best first. Among equal scores the order is free. */
export function nearest(
  metric: Metric,
  rows: Iterable<[number, Float32Array]>,
  query: Float32Array,
  k: number,
  allowed: (key: number) => boolean = () => true,
): Hit[] {
  const q = prepared(metric, query);
  const hits: Hit[] = [];
  for (const [key, row] of rows) if (allowed(key)) hits.push({ key, score: scoreOf(metric, row, q) });
  hits.sort(metric === "l2" ? (a, b) => a.score - b.score : (a, b) => b.score - a.score);
  return hits.slice(0, k);
}

export interface Lists {
  k: number;
  counts: Uint32Array;
  keys: Uint32Array;
  scores: Float32Array;
}

export function hitsOf({ k, counts, keys, scores }: Lists, query: number): Hit[] {
  return Array.from({ length: counts[query] ?? 0 }, (_, i) => ({
    key: keys[query * k + i] as number,
    score: scores[query * k + i] as number,
  }));
}

/** What is wrong with hits as such: a key that is not there or not allowed, a wrong score, the order, a repeated key. */
export function faultOf(
  metric: Metric,
  hits: Hit[],
  query: Float32Array,
  rowOf: (key: number) => Float32Array | undefined,
  allowed: (key: number) => boolean = () => true,
): string | undefined {
  const q = prepared(metric, query);
  const seen = new Set<number>();
  let before: number | undefined;
  for (const { key, score } of hits) {
    const row = rowOf(key);
    if (row === undefined) return `key ${key} is not there`;
    if (!allowed(key)) return `key ${key} is not allowed`;
    if (seen.has(key)) return `key ${key} is there twice`;
    seen.add(key);
    const wanted = scoreOf(metric, row, q);
    if (score !== wanted) return `key ${key} has score ${score}, not ${wanted}`;
    if (before !== undefined && (metric === "l2" ? score < before : score > before)) return "not in order";
    before = score;
  }
  return undefined;
}

/** The same, and the hits must be the nearest of all. */
export function exactFaultOf(
  metric: Metric,
  hits: Hit[],
  query: Float32Array,
  rows: ReadonlyMap<number, Float32Array>,
  k: number,
  allowed: (key: number) => boolean = () => true,
): string | undefined {
  const fault = faultOf(metric, hits, query, (key) => rows.get(key), allowed);
  if (fault !== undefined) return fault;
  const wanted = nearest(metric, rows, query, k, allowed);
  if (hits.length !== wanted.length) return `${hits.length} hits, not ${wanted.length}`;
  const other = wanted.findIndex(({ score }, i) => score !== hits[i]?.score);
  return other < 0
    ? undefined
    : `hit ${other} is ${hits[other]?.key} (${hits[other]?.score}), not ${wanted[other]?.key}`;
}

/** Every state that an index went through, numbered by changes. */
export class History {
  readonly metric: Metric;
  readonly #rows = new Map<number, { from: number; row: Float32Array | undefined }[]>();
  /** Number of the newest state. */
  version = 0;

  constructor(metric: Metric) {
    this.metric = metric;
  }

  /** The next state. Undefined = removed. */
  apply(changes: Iterable<[number, Float32Array | undefined]>): void {
    this.version++;
    for (const [key, row] of changes) {
      const held = row === undefined ? undefined : prepared(this.metric, row);
      const versions = this.#rows.get(key) ?? [];
      versions.push({ from: this.version, row: held });
      this.#rows.set(key, versions);
    }
  }

  rowAt(key: number, version: number): Float32Array | undefined {
    return this.#rows.get(key)?.findLast(({ from }) => from <= version)?.row;
  }

  stateAt(version: number): Map<number, Float32Array> {
    const state = new Map<number, Float32Array>();
    for (const key of this.#rows.keys()) {
      const row = this.rowAt(key, version);
      if (row !== undefined) state.set(key, row);
    }
    return state;
  }

  /** Forgets what only states below `version` can tell. */
  forget(version: number): void {
    for (const [key, versions] of this.#rows) {
      const first = versions.findLastIndex(({ from }) => from <= version);
      if (first > 0) versions.splice(0, first);
      if (versions.length === 1 && versions[0]?.row === undefined && (versions[0]?.from ?? 0) <= version)
        this.#rows.delete(key);
    }
  }

  /** Undefined where one of the states first..last explains the hits; else why the last does not. */
  fault(hits: Hit[], query: Float32Array, first: number, last: number, exactK?: number): string | undefined {
    let fault: string | undefined;
    for (let version = first; version <= last; version++) {
      fault =
        exactK === undefined
          ? faultOf(this.metric, hits, query, (key) => this.rowAt(key, version))
          : exactFaultOf(this.metric, hits, query, this.stateAt(version), exactK);
      if (fault === undefined) return undefined;
    }
    return fault;
  }
}
