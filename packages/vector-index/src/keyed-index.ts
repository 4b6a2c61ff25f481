import { setImmediate } from "node:timers/promises";
import { LimError, type Match, readUuid, uuidBytes } from "@lim/contracts";
import { assertIdBytes, IdTable, isZeroId } from "./id-table.ts";
import type { AppliedCounts, KeyedChange, KeyedIndex } from "./keyed-port.ts";
import { vectorIndexLimits } from "./limits.ts";
import type { Cancellable, VectorIndex } from "./port.ts";
import { FreePositions } from "./positions.ts";

/** Wraps a loaded or new index. `ids` must hold index.slots × 16 bytes; duplicates are `index_refused`. */
export function createKeyedIndex(index: VectorIndex, ids?: Uint8Array): KeyedIndex {
  const keyed = new KeyedIndexOverEngine(index, ids);
  for (const _ of keyed.fill(ids));
  return keyed;
}

/**
 * As `createKeyedIndex` for a loaded index, in slices between which the event loop turns: a million ids take it a good
 * part of a second. `aborted` when the signal fires between two slices.
 */
export async function openKeyedIndex(
  index: VectorIndex,
  ids: Uint8Array,
  { signal }: Cancellable = {},
): Promise<KeyedIndex> {
  const keyed = new KeyedIndexOverEngine(index, ids);
  for (const _ of keyed.fill(ids)) {
    await setImmediate();
    if (signal?.aborted) throw new LimError("aborted", "cancelled by the caller");
  }
  return keyed;
}

/** One change, with positions. */
interface Plan {
  counts: AppliedCounts;
  positions: Uint32Array;
  /** positions × dim. */
  vectors: Float32Array;
  remove: number[];
  /** Those of `positions` that were free or new. */
  taken: number[];
}

class KeyedIndexOverEngine implements KeyedIndex {
  readonly index: VectorIndex;
  /** Ids stay with their positions when these are removed: answers of searches begun before still need them. */
  private readonly ids: IdTable;
  /** One byte a position: 1 = removed. */
  private removed: Uint8Array;
  /** Where new positions begin. */
  private positions: number;
  private readonly freed = new FreePositions();
  /** Changes one after another: each chooses positions by the outcome of those before. */
  private lastChange: Promise<unknown> = Promise.resolve();
  private waitingChanges = 0;

  constructor(index: VectorIndex, ids: Uint8Array | undefined) {
    this.index = index;
    this.positions = index.slots;
    this.ids = new IdTable(Math.max(index.slots, index.capacity));
    this.removed = new Uint8Array(Math.max(index.slots, 16));
    if (!ids && index.slots > 0) throw new LimError("bad_input", "an index with content needs its ids");
  }

  /** Enters the ids of a loaded index; yields after each slice. Not to be used before it has ended. */
  *fill(ids: Uint8Array | undefined): Generator<void> {
    if (!ids) return;
    if (ids.length !== this.positions * uuidBytes)
      throw new LimError("index_refused", `${ids.length} bytes of ids for ${this.positions} positions`);
    this.ids.writeAll(ids);
    const free: number[] = [];
    for (let position = 0; position < this.positions; position++) {
      if (this.ids.isZero(position)) {
        this.removed[position] = 1;
        free.push(position);
      } else if (!this.ids.linkNew(position))
        throw new LimError("index_refused", `face ${this.ids.textOf(position)} is in the ids twice`);
      if (position % vectorIndexLimits.fillSliceIds === vectorIndexLimits.fillSliceIds - 1) yield;
    }
    if (this.index.reusesPositions) this.freed.retire(free);
    if (this.count !== this.index.count)
      throw new LimError(
        "index_refused",
        `ids name ${this.count} faces, the engine holds ${this.index.count}`,
      );
  }

  get count(): number {
    return this.ids.live;
  }

  has(faceId: string): boolean {
    return this.ids.find(faceId) !== undefined;
  }

  addNew(
    faceIds: Uint8Array,
    vectors: Float32Array | "spooled",
    options: Cancellable & { threads?: number } = {},
  ): Promise<void> {
    return this.alone(async () => {
      const isSpooled = vectors === "spooled";
      const rows = isSpooled ? faceIds.length / uuidBytes : vectors.length / this.index.dim;
      assertIdBytes(faceIds, Math.floor(rows));
      // What was spooled lies where the next new positions are.
      const taken = this.take(rows, this.positions, !isSpooled);
      // Linked one by one, so that a duplicate within the batch is found as one that was there already.
      let linked = 0;
      try {
        for (const position of taken) {
          const id = faceIds.subarray(linked * uuidBytes, (linked + 1) * uuidBytes);
          if (isZeroId(faceIds, linked)) throw new LimError("bad_input", "the all-zero face id is reserved");
          if (this.ids.findBytes(faceIds, linked) !== undefined)
            throw new LimError("bad_input", `face ${readUuid(id)} is in the index already or named twice`);
          this.ids.write(position, id);
          this.ids.link(position);
          linked++;
        }
        if (rows === 0) return;
        if (!isSpooled) await this.index.add(Uint32Array.from(taken), vectors, options);
        else if (this.index.addSpooled) await this.index.addSpooled(rows, options);
        else throw new LimError("bad_input", "the index was not created with createSpooled");
      } catch (thrown) {
        for (const position of taken.slice(0, linked)) this.ids.unlink(position);
        this.abandon(taken);
        throw thrown;
      }
      this.occupy(taken);
    });
  }

  apply(change: KeyedChange, options: Cancellable = {}): Promise<AppliedCounts> {
    return this.alone(async () => {
      const [plan] = await this.plan([change], options);
      if (plan === undefined) throw new LimError("internal", "a change without a plan");
      if (plan.positions.length + plan.remove.length === 0) return plan.counts;
      const { positions, vectors, remove } = plan;
      try {
        await this.index.change({ add: { positions, vectors }, remove: Uint32Array.from(remove) }, options);
      } catch (thrown) {
        this.abandon(plan.taken);
        throw thrown;
      }
      this.finish(plan);
      return plan.counts;
    });
  }

  async applyInSteps(
    changes: readonly KeyedChange[],
    options: Cancellable & { onApplied: (change: number, counts: AppliedCounts) => void },
  ): Promise<void> {
    const { signal, onApplied } = options;
    if (!this.index.changeInSteps || changes.length === 1) {
      const named = new Set<string>();
      for (const change of changes) this.distinct(change, named);
      for (const [number, change] of changes.entries())
        onApplied(number, await this.apply(change, { signal }));
      return;
    }
    await this.alone(async () => {
      const plans = await this.plan(changes, options);
      let applied = 0;
      try {
        await this.index.changeInSteps?.(
          plans.map(({ positions, vectors, remove }) => ({
            add: { positions, vectors },
            remove: Uint32Array.from(remove),
          })),
          {
            signal,
            onApplied: (number) => {
              const plan = plans[number] as Plan;
              applied = number + 1;
              this.finish(plan);
              onApplied(number, plan.counts);
            },
          },
        );
      } catch (thrown) {
        this.abandon(plans.slice(applied).flatMap(({ taken }) => taken));
        throw thrown;
      }
    });
  }

  async search(
    queries: Float32Array,
    options: Cancellable & { limit: number; ef: number; threshold?: number },
  ): Promise<Match[][]> {
    const { limit, ef, threshold = 0, signal } = options;
    const ticket = this.freed.enter();
    try {
      const found = await this.index.search(queries, { k: limit, ef, signal });
      const answers: Match[][] = [];
      for (let query = 0; query < found.counts.length; query++) {
        const matches: Match[] = [];
        const faces = new Set<string>();
        const start = query * found.k;
        for (let i = start; i < start + (found.counts[query] ?? 0); i++) {
          const similarity = found.similarities[i] ?? 0;
          if (similarity < threshold) break;
          const faceId = this.ids.textOf(found.positions[i] ?? 0);
          if (faces.has(faceId)) continue;
          faces.add(faceId);
          matches.push([faceId, similarity]);
        }
        answers.push(matches);
      }
      return answers;
    } finally {
      this.freed.leave(ticket);
    }
  }

  exportIds(): Uint8Array {
    const { slots } = this.index;
    const out = new Uint8Array(slots * uuidBytes);
    for (let position = 0; position < slots; position++)
      if (this.removed[position] !== 1) out.set(this.ids.idBytes(position), position * uuidBytes);
    return out;
  }

  close(): Promise<void> {
    return this.index.close();
  }

  /** What each change does to the engine and to the table of ids, where it meets what those before leave. */
  private async plan(changes: readonly KeyedChange[], options: Cancellable): Promise<Plan[]> {
    const named = new Set<string>();
    const wanted = changes.map((change) => this.distinct(change, named));
    const unchanged = await this.unchangedOf(
      wanted.flatMap(({ upserts }) => upserts),
      options,
    );
    const plans: Plan[] = [];
    let row = 0;
    let next = this.positions;
    for (const { upserts, removals } of wanted) {
      const first = row;
      row += upserts.length;
      const moved = upserts.filter((_, i) => !unchanged.has(first + i));
      const plan = this.planOne(moved, removals, next);
      plan.counts.unchanged += upserts.length - moved.length;
      plans.push(plan);
      for (const position of plan.taken) next = Math.max(next, position + 1);
    }
    return plans;
  }

  private planOne(
    upserts: readonly { faceId: string; vector: Float32Array; position: number | undefined }[],
    removals: readonly (number | undefined)[],
    nextPosition: number,
  ): Plan {
    const { dim, reusesPositions } = this.index;
    const counts: AppliedCounts = { added: 0, replaced: 0, removed: 0, unchanged: 0 };
    const remove: number[] = [];
    for (const { position } of upserts) {
      if (position === undefined) counts.added++;
      else {
        counts.replaced++;
        if (!reusesPositions) remove.push(position);
      }
    }
    for (const position of removals) {
      if (position === undefined) counts.unchanged++;
      else {
        counts.removed++;
        remove.push(position);
      }
    }
    const keptPosition = (position: number | undefined) => (reusesPositions ? position : undefined);
    const moving = upserts.filter(({ position }) => keptPosition(position) === undefined);
    const taken = this.take(moving.length, nextPosition);
    const vectors = new Float32Array(upserts.length * dim);
    const positions = new Uint32Array(upserts.length);
    let next = 0;
    upserts.forEach(({ faceId, vector, position }, i) => {
      vectors.set(vector, i * dim);
      const kept = keptPosition(position);
      const at = kept ?? taken[next++] ?? 0;
      positions[i] = at;
      if (kept === undefined) this.ids.writeText(at, faceId);
    });
    return { counts, positions, vectors, remove, taken };
  }

  /** In the turn in which the engine's change became visible, or soon after. */
  private finish({ remove, taken }: Plan): void {
    for (const position of remove) {
      this.ids.unlink(position);
      this.removed[position] = 1;
    }
    if (this.index.reusesPositions) this.freed.retire(remove);
    for (const position of taken) this.ids.link(position);
    this.occupy(taken);
  }

  private distinct(change: KeyedChange, named: Set<string>) {
    const claim = (faceId: string) => {
      const position = this.ids.find(faceId);
      const key = faceId.toLowerCase().replaceAll("-", "");
      if (named.has(key)) throw new LimError("bad_input", `face ${faceId} is named twice`);
      if (/^0+$/.test(key)) throw new LimError("bad_input", "the all-zero face id is reserved");
      named.add(key);
      return position;
    };
    const upserts = change.upserts.map(({ faceId, vector }) => {
      if (vector.length !== this.index.dim)
        throw new LimError("bad_input", `vector of face ${faceId} has ${vector.length} dimensions`);
      return { faceId, vector, position: claim(faceId) };
    });
    return { upserts, removals: change.removals.map(claim) };
  }

  /** Rows of `upserts` whose vector is the indexed one, bit by bit. */
  private async unchangedOf(
    upserts: readonly { vector: Float32Array; position: number | undefined }[],
    options: Cancellable,
  ): Promise<Set<number>> {
    const unchanged = new Set<number>();
    const rows: number[] = [];
    const positions: number[] = [];
    upserts.forEach(({ position }, row) => {
      if (position === undefined) return;
      rows.push(row);
      positions.push(position);
    });
    if (rows.length === 0) return unchanged;
    const { dim } = this.index;
    const held = await this.index.read(Uint32Array.from(positions), options);
    rows.forEach((row, i) => {
      const offset = i * dim;
      if (upserts[row]?.vector.every((value, d) => value === held[offset + d])) unchanged.add(row);
    });
    return unchanged;
  }

  /** Positions for new vectors: those that are free again where `mayReuse`, then new ones from `next` on. */
  private take(rows: number, next = this.positions, mayReuse = true): number[] {
    const taken = mayReuse ? this.freed.take(rows) : [];
    this.grow(next + rows);
    for (let position = next; taken.length < rows; position++) taken.push(position);
    return taken;
  }

  private occupy(taken: readonly number[]): void {
    for (const position of taken) {
      this.removed[position] = 0;
      this.positions = Math.max(this.positions, position + 1);
    }
    if (this.positions !== this.index.slots)
      throw new LimError(
        "engine_failed",
        `the engine has used ${this.index.slots} positions, ${this.positions} are known: it was changed past its ids`,
      );
  }

  /** Positions that a failed change used up in the engine belong to nobody; a search may have seen some of them. */
  private abandon(taken: readonly number[]): void {
    this.positions = Math.max(this.positions, this.index.slots);
    this.grow(this.positions);
    const used = taken.filter((position) => position < this.positions);
    for (const position of used) this.removed[position] = 1;
    if (this.index.reusesPositions) this.freed.retire(used);
  }

  private grow(positions: number): void {
    if (positions <= this.removed.length) return;
    const grown = new Uint8Array(Math.max(positions, Math.ceil(this.removed.length * 1.5)));
    grown.set(this.removed);
    this.removed = grown;
  }

  private alone<T>(work: () => Promise<T>): Promise<T> {
    const { maxQueuedCalls } = vectorIndexLimits;
    if (this.waitingChanges >= maxQueuedCalls)
      return Promise.reject(new LimError("overloaded", `${maxQueuedCalls} changes wait for this index`));
    this.waitingChanges++;
    const result = this.lastChange.then(work).finally(() => {
      this.waitingChanges--;
    });
    this.lastChange = result.catch(() => undefined);
    return result;
  }
}
