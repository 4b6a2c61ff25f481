import { ChangeQueue } from "./change-queue.ts";
import { change, type InsertOptions, insertSpooled, remove, upsert } from "./changes.ts";
import type { GraphReport } from "./check.ts";
import type { IndexCore } from "./core.ts";
import { badInput, HnswError } from "./errors.ts";
import { saveIndex } from "./file/index.ts";
import type { Metric } from "./layout.ts";
import { maxThreads } from "./limits.ts";
import { closeCore, createCore, type LoadIndexOptions, loadCore, runnerFor } from "./opening.ts";
import {
  type Cancellable,
  checkKeys,
  checkRows,
  type HnswOptions,
  type RowsOption,
  wholeNumber,
} from "./options.ts";
import { readRows } from "./rows.ts";
import type { SearchOptions, SearchResult } from "./searches.ts";
import { changeInSteps } from "./steps.ts";
import { fullSweep, housekeeping, searchesEnded } from "./sweeps.ts";

export interface UpsertOptions extends Cancellable {
  /** Threads that insert at the same time. 1 = the same graph every time. Default: those of the pool. */
  threads?: number | undefined;
  /** Called with the rows done so far, after each slice. */
  onProgress?: ((rows: number) => void) | undefined;
}

export interface Change {
  upsert?: { keys: Uint32Array; vectors: Float32Array } | undefined;
  remove?: Uint32Array | undefined;
}

const cores = new WeakMap<HnswIndex, IndexCore>();

/** For tests of the inside. */
export function coreOf(index: HnswIndex): IndexCore {
  const core = cores.get(index);
  if (core === undefined) throw badInput("not an index");
  return core;
}

/**
 * Vectors under uint32 keys (0xffffffff is none), searched by an HNSW graph in memory that threads share. Changes of one
 * index run one after another in the order of the calls; searches run beside them and see exactly the changes whose
 * promise had settled when they were called. Every method may throw or reject with an `HnswError`.
 */
export class HnswIndex {
  readonly dim: number;
  readonly metric: Metric;
  readonly m: number;
  readonly efConstruction: number;
  readonly seed: number;
  readonly rows: RowsOption;
  readonly maxSlots: number;
  readonly #core: IndexCore;
  readonly #changes: ChangeQueue;
  #closing: Promise<void> | undefined;

  private constructor(core: IndexCore) {
    const { layout, attachment, scheduler } = core;
    this.dim = layout.dim;
    this.metric = layout.metric;
    this.m = layout.m;
    this.efConstruction = layout.efConstruction;
    this.seed = layout.seed;
    this.rows = attachment.rowsFile === undefined ? layout.rows : { file: attachment.rowsFile.path };
    this.maxSlots = layout.maxSlots;
    this.#core = core;
    this.#changes = new ChangeQueue(scheduler.maxQueuedCalls, () => housekeeping(core));
    cores.set(this, core);
  }

  static async create(options: HnswOptions & Cancellable): Promise<HnswIndex> {
    return new HnswIndex(await createCore(options));
  }

  /** Reads an index that `save` wrote. `refused` where the file is not whole or not sound. */
  static async load(path: string, options: LoadIndexOptions = {}): Promise<HnswIndex> {
    return new HnswIndex(await loadCore(path, options));
  }

  /** Keys that a search begun now can return. */
  get size(): number {
    return this.#core.keys.size;
  }
  /** Slots in use, those of removed vectors included until a sweep. */
  get slots(): number {
    const { slots } = this.#core;
    return slots.used - slots.free;
  }
  /** Slots that fit before the memory grows. */
  get capacity(): number {
    return this.#core.slots.capacity;
  }
  /** What the index holds of the machine's memory, estimated. */
  get memoryBytes(): number {
    const { memory, keys, slots } = this.#core;
    return memory.touchedBytes + keys.sizeBytes + 8 * (slots.free + slots.dead);
  }

  has(key: number): boolean {
    this.#core.ensureUsable();
    return this.#core.keys.get(key) >= 0;
  }

  /** In the order of their slots. */
  keys(): Uint32Array {
    this.#core.ensureUsable();
    const { slots, committed, keys } = this.#core;
    const all = new Uint32Array(keys.size);
    for (let slot = 0, n = 0; slot < slots.used && n < all.length; slot++)
      if (slots.isVisible(slot, committed)) all[n++] = slots.keyOf(slot);
    return all;
  }

  /**
   * Adds or replaces, in slices that become visible one after another; of rows with the same key the last counts. The
   * arrays must stay as they are until the promise settles. Aborted, it leaves the slices done so far.
   */
  async upsert(keys: Uint32Array, vectors: Float32Array, options: UpsertOptions = {}): Promise<void> {
    checkRows(keys, vectors, this.dim);
    this.#assertTakesRows(keys.length);
    const own = this.#insertOptions(options);
    await this.#change(own.signal, () => upsert(this.#core, { keys, vectors }, own));
  }

  /**
   * Writes rows behind those in the file of rows, for `insertSpooled`; calls write one after another, beside whatever
   * runs. The array must stay as it is until the promise settles. Rows are looked at when they are inserted.
   */
  async spool(vectors: Float32Array, { signal }: Cancellable = {}): Promise<void> {
    const core = this.#core;
    core.ensureUsable();
    if (core.spool === undefined) throw badInput("the index was not created with rows: { spool }");
    if (!(vectors instanceof Float32Array) || vectors.length % this.dim !== 0)
      throw badInput(`vectors must be a Float32Array of a multiple of ${this.dim} components`);
    await core.spool.append(vectors, signal);
  }

  /**
   * Gives new keys to the spooled rows that are next, in slices as `upsert`. A row that is not finite is `bad_input`.
   * After a failure those that wait can be inserted no more.
   */
  async insertSpooled(keys: Uint32Array, options: UpsertOptions = {}): Promise<void> {
    checkKeys(keys);
    const own = this.#insertOptions(options);
    await this.#change(own.signal, () => insertSpooled(this.#core, keys, own));
  }

  /** Unknown or repeated keys are `bad_input`, and nothing is removed then. */
  async remove(keys: Uint32Array, options: Cancellable = {}): Promise<void> {
    checkKeys(keys);
    await this.#change(options.signal, () => remove(this.#core, keys, options.signal));
  }

  /** All or nothing towards searches, and when it fails. */
  async change({ upsert, remove }: Change, options: Cancellable = {}): Promise<void> {
    const rows = upsert ?? { keys: new Uint32Array(), vectors: new Float32Array() };
    checkRows(rows.keys, rows.vectors, this.dim);
    this.#assertTakesRows(rows.keys.length);
    const removed = remove === undefined ? new Uint32Array() : checkKeys(remove);
    const { signal } = options;
    const { threads } = this.#core.scheduler;
    await this.#change(signal, () => change(this.#core, rows, removed, { threads, signal }));
  }

  /**
   * Changes that become visible one after another, each at once: as `change` of each in turn, but no thread waits between
   * them. `onApplied` is told the number of each in the turn in which it becomes visible, and must not throw. Where it fails or is aborted,
   * those applied stay and nothing of the others is left. No key may be in two of them, or twice in one.
   */
  async changeInSteps(
    changes: readonly Change[],
    { signal, onApplied }: Cancellable & { onApplied?: ((change: number) => void) | undefined } = {},
  ): Promise<void> {
    const steps = changes.map(({ upsert, remove }) => {
      const rows = upsert ?? { keys: new Uint32Array(), vectors: new Float32Array() };
      checkRows(rows.keys, rows.vectors, this.dim);
      this.#assertTakesRows(rows.keys.length);
      return { rows, removed: remove === undefined ? new Uint32Array() : checkKeys(remove) };
    });
    await this.#change(signal, () => changeInSteps(this.#core, steps, { signal, onCommitted: onApplied }));
  }

  /** `queries` = n × dim. Queries of a long list must stay as they are until the promise settles. */
  async search(queries: Float32Array, options: SearchOptions): Promise<SearchResult> {
    this.#core.ensureUsable();
    return this.#core.searches.search(queries, options, this.#core.snapshot());
  }

  /** keys × dim: full precision if rows are held, else what 8 bits hold; of norm 1 under cosine. */
  get(keys: Uint32Array): Float32Array {
    this.#core.ensureUsable();
    return readRows(this.#core, checkKeys(keys));
  }

  /** Repairs links and frees what was removed, now. */
  async sweep(options: Cancellable = {}): Promise<void> {
    await this.#change(options.signal, () => fullSweep(this.#core, options.signal));
  }

  /** Walks every slot, link and level. */
  async check(options: Cancellable = {}): Promise<GraphReport> {
    const core = this.#core;
    return this.#change(options.signal, async () => {
      let report: unknown;
      await core.scheduler.work({
        attachment: core.attachment,
        threads: 1,
        writes: false,
        signal: options.signal,
        job: () => ({
          op: "check",
          index: core.attachment.id,
          version: core.committed,
          used: core.slots.used,
        }),
        answered: (value) => {
          report = value;
          return true;
        },
      });
      return report as GraphReport;
    });
  }

  /**
   * Writes the index to `path`; full-precision rows to `rowsPath`, or into the same file. Where `rowsPath` is the file
   * that rows were spooled to, it is finished where it lies, stays, and takes no more rows.
   */
  async save(path: string, options: Cancellable & { rowsPath?: string | undefined } = {}): Promise<void> {
    if (typeof path !== "string" || path === "") throw badInput("path is missing");
    const core = this.#core;
    const { signal, rowsPath } = options;
    await this.#change(signal, async () => {
      const { spool, slots } = core;
      const wasSaved = spool?.isSaved ?? false;
      // From here on: a row more would lie where the file's end goes.
      await spool?.seal();
      try {
        if (spool !== undefined && spool.rows > slots.used)
          throw badInput(`${spool.rows - slots.used} spooled rows were not inserted`);
        await fullSweep(core, signal);
        await searchesEnded(core, signal);
        const saved = await saveIndex(
          {
            memory: core.memory.memory,
            layout: core.layout,
            used: slots.used,
            committedVersion: core.committed,
            rowsFile: core.attachment.rowsFile,
          },
          { path, rowsPath, isSaved: wasSaved },
          {
            signal,
            threads: core.scheduler.threads,
            runInPool: runnerFor(core.scheduler, core.attachment, signal),
          },
        );
        if (saved.inPlace) spool?.markSaved();
      } finally {
        spool?.unseal();
      }
    });
  }

  /** Ends the index: what waits or changes is rejected as `closed`, running searches are answered. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const core = this.#core;
    const error = new HnswError("closed", "the index was closed");
    core.closed = true;
    core.searches.close(error);
    core.scheduler.cancel(core.attachment, error);
    await this.#changes.close(error);
    await closeCore(core);
  }

  #assertTakesRows(count: number): void {
    const mode = this.#core.attachment.rowsFile?.mode ?? "private";
    if (count === 0 || mode === "private") return;
    throw badInput(mode === "spooled" ? "its rows come by spool alone" : "its file of rows is read only");
  }

  #insertOptions({ threads, signal, onProgress }: UpsertOptions): InsertOptions {
    const most = this.#core.scheduler.threads;
    const wanted = wholeNumber("threads", threads ?? most, 1, maxThreads);
    return { threads: Math.min(wanted, most), signal, onProgress };
  }

  async #change<T>(signal: AbortSignal | undefined, task: () => Promise<T>): Promise<T> {
    this.#core.ensureUsable();
    return this.#changes.run(signal, async () => {
      this.#core.ensureUsable();
      try {
        return await task();
      } catch (error) {
        throw this.#core.failedBy(error);
      }
    });
  }
}
