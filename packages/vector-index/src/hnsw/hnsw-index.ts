import { setImmediate } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import type { HnswIndex } from "@lim/hnsw";
import { vectorIndexLimits } from "../limits.ts";
import type {
  Cancellable,
  EngineFiles,
  GraphInspection,
  PlacedVectors,
  RerankKind,
  SearchResults,
  VectorIndex,
} from "../port.ts";
import { assertPlaced } from "../positions.ts";
import { vectorFault } from "../vectors.ts";
import { asLimError, translated, translatedAtFile } from "./errors.ts";

/** By what re-ranking leaves of the rounding: sums of float32 products, float16 components, 8 bits. */
const tolerances: Record<RerankKind, number> = { float32: 1e-4, file: 1e-4, float16: 2e-3, off: 5e-2 };

/** Candidates that a search of the engine keeps at most; more would find no more. */
const maxOwnEf = 65_536;

interface Parts {
  engine: HnswIndex;
  version: string;
  rerank: RerankKind;
  /** What adds vectors. */
  takesVectors: "add" | "spool" | "nothing";
  slots: number;
  memoryBytesOf: (capacity: number) => number;
  /** Removes the working files. */
  cleanUp: () => Promise<void>;
}

/** A VectorIndex over `@lim/hnsw`: its keys are positions. */
export class PositionedHnsw implements VectorIndex {
  readonly engine: { name: "hnsw"; version: string };
  readonly reusesPositions = true;
  readonly similarityTolerance: number;
  readonly spool?: NonNullable<VectorIndex["spool"]>;
  readonly addSpooled?: NonNullable<VectorIndex["addSpooled"]>;
  slots: number;
  private readonly parts: Parts;
  private readonly own: HnswIndex;
  private lastChange: Promise<unknown> = Promise.resolve();
  private waiting = 0;
  private spooledRows = 0;
  private closing: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.parts = parts;
    this.own = parts.engine;
    this.slots = parts.slots;
    this.engine = { name: "hnsw", version: parts.version };
    this.similarityTolerance = tolerances[parts.rerank];
    if (parts.takesVectors !== "spool") return;
    this.spool = (vectors, options) => this.spoolRows(vectors, options);
    this.addSpooled = (count, options) => this.addSpooledRows(count, options);
  }

  get dim(): number {
    return this.own.dim;
  }

  get count(): number {
    return this.own.size;
  }

  get capacity(): number {
    return this.own.capacity;
  }

  get memoryBytes(): number {
    return this.parts.memoryBytesOf(this.capacity);
  }

  async add(
    positions: Uint32Array,
    vectors: Float32Array,
    options: Cancellable & { threads?: number } = {},
  ): Promise<void> {
    const add = this.placed({ positions, vectors });
    await this.inTurn(options, async () => {
      await this.assertUnit(add.vectors);
      for (const position of add.positions)
        if (this.own.has(position))
          throw new LimError("bad_input", `position ${position} holds a vector, and \`add\` replaces none`);
      this.reach(add.positions);
      try {
        await this.own.upsert(add.positions, add.vectors, options);
      } catch (thrown) {
        await this.hide(add.positions);
        throw thrown;
      }
    });
  }

  async remove(positions: Uint32Array, options: Cancellable = {}): Promise<void> {
    const remove = positions.slice();
    await this.inTurn(options, () => this.own.remove(remove, options));
  }

  async change(
    change: { add: PlacedVectors; remove: Uint32Array },
    options: Cancellable = {},
  ): Promise<void> {
    const { add, remove } = this.placedChange(change);
    await this.inTurn(options, async () => {
      await this.assertUnit(add.vectors);
      this.assertLive(remove);
      if (add.positions.length + remove.length === 0) return;
      this.reach(add.positions);
      await this.own.change({ upsert: { keys: add.positions, vectors: add.vectors }, remove }, options);
    });
  }

  async changeInSteps(
    changes: readonly { add: PlacedVectors; remove: Uint32Array }[],
    { signal, onApplied }: Cancellable & { onApplied: (change: number) => void },
  ): Promise<void> {
    const placed = changes.map((change) => this.placedChange(change));
    assertDistinct(Uint32Array.from(placed.flatMap(({ add, remove }) => [...add.positions, ...remove])));
    await this.inTurn({ signal }, async () => {
      for (const { add, remove } of placed) {
        await this.assertUnit(add.vectors);
        this.assertLive(remove);
      }
      const steps = placed.map(({ add, remove }) => ({
        upsert: { keys: add.positions, vectors: add.vectors },
        remove,
      }));
      await this.own.changeInSteps(steps, {
        signal,
        onApplied: (change) => {
          this.reach(placed[change]?.add.positions ?? new Uint32Array());
          onApplied(change);
        },
      });
    });
  }

  async search(
    queries: Float32Array,
    options: Cancellable & { k: number; ef: number },
  ): Promise<SearchResults> {
    const { k, ef, signal } = options;
    const { maxSearchK, maxSearchEf, maxSearchResults } = vectorIndexLimits;
    this.assertOpen();
    assertCount("k", k, 1, maxSearchK);
    assertCount("ef", ef, 1, maxSearchEf);
    const queryCount = queries.length / this.dim;
    assertCount("queries", queryCount, 0, maxSearchResults);
    assertCount("queries × k", queryCount * k, 0, maxSearchResults);
    // The engine reads those of a long call when their turn comes.
    const rows = queries.slice();
    if (rows.length > vectorIndexLimits.valuesPerTurn) await this.assertUnit(rows);
    else this.assertUnitNow(rows);
    const results: SearchResults = {
      k,
      counts: new Uint32Array(queryCount),
      positions: new Uint32Array(queryCount * k),
      similarities: new Float32Array(queryCount * k),
    };
    const most = Math.min(k, this.count);
    if (queryCount === 0 || most === 0) return results;
    const width = Math.min(Math.max(ef, most), maxOwnEf);
    const found = await translated(() => this.own.search(rows, { k: most, ef: width, signal }));
    results.counts.set(found.counts);
    for (let query = 0; query < queryCount; query++) {
      const from = query * found.k;
      results.positions.set(found.keys.subarray(from, from + found.k), query * k);
      for (let i = 0; i < (found.counts[query] as number); i++) {
        const score = found.scores[from + i] as number;
        results.similarities[query * k + i] = score <= 0 ? 0 : score >= 1 ? 1 : score;
      }
    }
    return results;
  }

  async read(positions: Uint32Array, options: Cancellable = {}): Promise<Float32Array> {
    this.assertOpen();
    const { dim } = this;
    const own = positions.slice();
    await translated(() => this.assertLive(own));
    const out = new Float32Array(own.length * dim);
    const step = Math.max(1, Math.floor(vectorIndexLimits.valuesPerTurn / dim));
    for (let at = 0; at < own.length; at += step) {
      if (options.signal?.aborted) throw new LimError("aborted", "cancelled by the caller");
      if (at > 0) await setImmediate();
      out.set(await translated(() => this.own.get(own.subarray(at, at + step))), at * dim);
    }
    if (this.parts.rerank === "float16" || this.parts.rerank === "off") normalise(out, dim);
    return out;
  }

  async inspect(options: Cancellable = {}): Promise<GraphInspection> {
    const report = await this.inTurn(options, () => this.own.check(options));
    const { live, unreachable, links, badLinks, problems } = report;
    return { reachable: live - unreachable, unreachable, links, badLinks, problems };
  }

  async save(files: Required<EngineFiles>, options: Cancellable = {}): Promise<{ vectors: boolean }> {
    const vectors = this.parts.rerank !== "off";
    const { signal } = options;
    const rows = vectors ? { rowsPath: files.vectors } : {};
    await this.inTurn(options, () => this.own.save(files.index, { signal, ...rows }));
    return { vectors };
  }

  /** Rejects with `index_refused` unless it holds exactly the live positions. `isLive`: one byte a position, 1 = live. */
  async assertHolds(expected: { dim: number; m: number; isLive: Uint8Array; live: number }): Promise<void> {
    const refuse = (what: string) => new LimError("index_refused", `the engine's file has ${what}`);
    const { dim, m, isLive, live } = expected;
    if (this.dim !== dim) throw refuse(`${this.dim} dimensions, not ${dim}`);
    if (this.own.m !== m) throw refuse(`m = ${this.own.m}, not ${m}`);
    if (this.own.metric !== "ip") throw refuse(`metric ${this.own.metric}, not ip`);
    if (this.count !== live) throw refuse(`${this.count} vectors, not ${live}`);
    // As many vectors as live positions, and one at each of these: then there are no others.
    for (let position = 0; position < isLive.length; position++) {
      if (isLive[position] === 1 && !this.own.has(position)) throw refuse(`no vector at ${position}`);
      if (position % vectorIndexLimits.fillSliceIds === vectorIndexLimits.fillSliceIds - 1)
        await setImmediate();
    }
  }

  close(): Promise<void> {
    this.closing ??= (async () => {
      await this.own.close();
      await this.lastChange;
      await this.parts.cleanUp();
    })();
    return this.closing;
  }

  private async spoolRows(vectors: Float32Array, { signal }: Cancellable = {}): Promise<void> {
    this.assertOpen();
    await translatedAtFile(() => this.own.spool(vectors, { signal }));
    this.spooledRows += vectors.length / this.dim;
  }

  private async addSpooledRows(
    count: number,
    options: Cancellable & { threads?: number } = {},
  ): Promise<void> {
    assertCount("count", count, 0, vectorIndexLimits.maxSlots);
    await this.inTurn(options, async () => {
      const spooled = this.spooledRows - this.slots;
      if (count > spooled)
        throw new LimError("bad_input", `${count} vectors, of which ${spooled} are spooled`);
      if (this.count < this.slots)
        throw new LimError("bad_input", "spooled vectors cannot be added after a removal or a failure");
      const positions = Uint32Array.from({ length: count }, (_, i) => this.slots + i);
      this.reach(positions);
      try {
        await this.own.insertSpooled(positions, options);
      } catch (thrown) {
        await this.hide(positions);
        throw thrown;
      }
    });
  }

  private assertOpen(): void {
    if (this.closing) throw new LimError("aborted", "the index was closed");
  }

  /** The caller's arrays checked for form, and copied. */
  private placed(add: PlacedVectors): PlacedVectors {
    assertPlaced(add, this.dim);
    const { takesVectors } = this.parts;
    if (takesVectors !== "add" && add.positions.length > 0)
      throw new LimError("bad_input", `vectors are added to this index by ${takesVectors}`);
    assertDistinct(add.positions);
    const isShared = add.vectors.buffer instanceof SharedArrayBuffer;
    return { positions: add.positions.slice(), vectors: isShared ? add.vectors : add.vectors.slice() };
  }

  private placedChange(change: { add: PlacedVectors; remove: Uint32Array }) {
    const add = this.placed(change.add);
    const added = new Set(add.positions);
    for (const position of change.remove)
      if (added.has(position))
        throw new LimError("bad_input", `position ${position} is both added and removed`);
    return { add, remove: change.remove.slice() };
  }

  private assertLive(positions: Uint32Array): void {
    for (const position of positions)
      if (!this.own.has(position))
        throw new LimError("bad_input", `position ${position} is unknown or removed`);
  }

  private assertUnitNow(vectors: Float32Array, firstRow = 0): void {
    const fault = vectorFault(vectors, this.dim, firstRow);
    if (fault) throw new LimError("bad_input", fault);
  }

  /** In steps, between which the event loop turns. */
  private async assertUnit(vectors: Float32Array): Promise<void> {
    const { dim } = this;
    const step = Math.max(1, Math.floor(vectorIndexLimits.valuesPerTurn / dim));
    for (let row = 0; row * dim < vectors.length; row += step) {
      if (row > 0) await setImmediate();
      this.assertUnitNow(vectors.subarray(row * dim, (row + step) * dim), row);
    }
  }

  private reach(positions: Uint32Array): void {
    for (const position of positions) if (position >= this.slots) this.slots = position + 1;
  }

  /** Takes back what an addition that failed has made visible. */
  private async hide(positions: Uint32Array): Promise<void> {
    try {
      const { maxHiddenAtOnce } = vectorIndexLimits;
      const visible = positions.filter((position) => this.own.has(position));
      for (let at = 0; at < visible.length; at += maxHiddenAtOnce)
        await this.own.remove(visible.subarray(at, at + maxHiddenAtOnce));
    } catch {
      // Closed or broken: nothing of it can be found any more, and the first failure says why.
    }
  }

  /** Changes and saves one after another, in call order. */
  private async inTurn<T>({ signal }: Cancellable, work: () => Promise<T>): Promise<T> {
    this.assertOpen();
    const { maxQueuedCalls } = vectorIndexLimits;
    const assertWanted = () => {
      if (signal?.aborted) throw new LimError("aborted", "cancelled by the caller");
    };
    assertWanted();
    if (this.waiting >= maxQueuedCalls)
      throw new LimError("overloaded", `${maxQueuedCalls} changes wait for this index`);
    this.waiting++;
    const result = this.lastChange.then(() => {
      this.assertOpen();
      assertWanted();
      return work();
    });
    this.lastChange = result.catch(() => undefined);
    try {
      return await result;
    } catch (thrown) {
      throw asLimError(thrown);
    } finally {
      this.waiting--;
    }
  }
}

function assertDistinct(positions: Uint32Array): void {
  const { maxSlots } = vectorIndexLimits;
  let isAscending = true;
  positions.forEach((position, i) => {
    if (position >= maxSlots) throw new LimError("bad_input", `position ${position} is past ${maxSlots - 1}`);
    if (i > 0 && position <= (positions[i - 1] as number)) isAscending = false;
  });
  if (!isAscending && new Set(positions).size !== positions.length)
    throw new LimError("bad_input", "a position is named twice");
}

export function assertCount(name: string, value: number, lowest: number, highest: number): void {
  if (!Number.isInteger(value) || value < lowest || value > highest)
    throw new LimError("bad_input", `${name} must be an integer from ${lowest} to ${highest}, got ${value}`);
}

function normalise(rows: Float32Array, dim: number): void {
  for (let start = 0; start < rows.length; start += dim) {
    let sum = 0;
    for (let i = start; i < start + dim; i++) sum += (rows[i] as number) ** 2;
    const scale = sum > 0 ? 1 / Math.sqrt(sum) : 0;
    for (let i = start; i < start + dim; i++) rows[i] = (rows[i] as number) * scale;
  }
}
