import { isLimError, LimError } from "@lim/contracts";
import type { LabelLocks, Log } from "@lim/coordination";
import type { IndexStorage, PublishedIndex, StorageListing } from "@lim/index-storage";
import { type DropDeps, dropThenLoad } from "./drop-then-load.ts";
import { Gate } from "./gate.ts";
import type { IndexHolder } from "./index-holder.ts";
import type { IndexSource } from "./index-source.ts";
import type { LabelSlot } from "./label-slot.ts";
import { catchUp, type LoaderDeps, loadIndex } from "./loader.ts";
import type { MatcherMetrics } from "./metrics.ts";
import { Backoff, Pace } from "./pace.ts";
import type { Publisher } from "./publisher.ts";
import { type LabelPlan, planReconcile } from "./reconcile-plan.ts";
import type { Registry } from "./registry.ts";

/** Indexes that are loaded at a time. */
const maxParallelLoads = 2;
const labelLockTtlMs = 10_000;
const loadRetryFirstMs = 2_000;
const loadRetryMostMs = 300_000;

export interface ReconcilerOptions extends LoaderDeps {
  storage: Pick<IndexStorage, "list" | "find" | "isMarkedRemoved">;
  source: IndexSource;
  registry: Registry;
  publisher: Publisher;
  locks: LabelLocks;
  metrics: MatcherMetrics;
  log: Log;
  periodMs: number;
  descriptorVersion: number;
  dim: number;
  /** Absent where an index must fit beside the one that it replaces. */
  dropThenLoad?: Pick<DropDeps, "isServedElsewhere" | "settled">;
}

/**
 * Makes memory equal to the storage: a pass compares, and each label's difference is worked off by a job of its own, so
 * that a long load holds up no other label. A failure keeps what is served and is tried again later and later.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #log: Log;
  readonly #pace = new Pace();
  readonly #jobs = new Map<string, Promise<void>>();
  readonly #gate = new Gate(maxParallelLoads);
  readonly #failures = new Backoff({ firstMs: loadRetryFirstMs, mostMs: loadRetryMostMs });
  readonly #reported = new Set<string>();
  #failing = false;
  #emptied = false;
  #ready = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** True after the first complete pass: everything that could be loaded is served. */
  get ready(): boolean {
    return this.#ready;
  }

  wake(): void {
    this.#pace.wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#pass(signal);
        if (this.#failing) this.#log.info({}, "reconciling goes on");
        this.#failing = false;
        if (!this.#ready) await this.#becomeReady(signal);
      } catch (thrown) {
        if (signal.aborted) break;
        if (!this.#failing)
          this.#log.error(
            { reason: String(thrown) },
            "storage and lists cannot be compared, serving what is loaded",
          );
        this.#failing = true;
      }
      await this.#pace.pause(this.#options.periodMs, signal);
    }
    await Promise.all(this.#jobs.values());
  }

  async #becomeReady(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#jobs.values());
    if (signal.aborted) return;
    this.#ready = true;
    this.#log.info({ labels: this.#options.registry.servedLabels().length }, "ready");
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const { storage, db, registry, descriptorVersion, dim } = this.#options;
    const listing = await storage.list({ signal });
    const labels = new Set([
      ...listing.indexes.map((index) => index.label),
      ...registry.slots().map((slot) => slot.label),
    ]);
    this.#reportLeftOut(listing);
    this.#failures.keepOnly(new Set(listing.indexes.map((index) => index.indexId)));
    if (labels.size === 0) return;
    const lists = await db.listStates({ listIds: [...labels], signal });
    const views = registry.slots().map((slot) => ({
      label: slot.label,
      served: slot.current && { meta: slot.current.meta, failed: slot.current.failed },
    }));
    const plans = planReconcile({ listing, lists, registry: views, descriptorVersion, dim });
    for (const plan of await this.#believed(plans, listing, signal)) this.#start(plan, signal);
    await this.#tidy(plans, listing, signal);
  }

  /** What is served, and what is about to be, stays in the cache folder. */
  async #tidy(plans: readonly LabelPlan[], listing: StorageListing, signal: AbortSignal): Promise<void> {
    // As of an unmounted volume: it says nothing of what is published.
    if (listing.indexes.length === 0) return;
    const served = this.#options.registry.slots().map((slot) => slot.current?.meta.index_id);
    const next = plans.map((plan) => (plan.kind === "unload" ? undefined : plan.candidates[0]?.indexId));
    const wanted = new Set([...served, ...next].filter((indexId) => indexId !== undefined));
    await this.#options.source.tidy({ wanted, published: listing.indexes, signal });
  }

  /**
   * A storage without any index is more likely a volume that is not mounted than everything removed at once: what is
   * served is then given up only where its removal left a mark.
   */
  async #believed(plans: LabelPlan[], listing: StorageListing, signal: AbortSignal): Promise<LabelPlan[]> {
    const isEmpty = listing.indexes.length + listing.refused.length === 0;
    const kept = new Set<string>();
    for (const plan of isEmpty ? plans : []) {
      const indexId = this.#options.registry.slot(plan.label)?.current?.meta.index_id;
      if (plan.kind !== "unload" || plan.reason !== "removed_from_storage" || indexId === undefined) continue;
      if (!(await this.#options.storage.isMarkedRemoved({ indexId, signal }))) kept.add(plan.label);
    }
    if (kept.size > 0 && !this.#emptied)
      this.#log.error(
        { labels: kept.size },
        "the storage is empty, though nothing was removed: is it mounted? Serving what is loaded",
      );
    this.#emptied = kept.size > 0;
    return plans.filter(({ label }) => !kept.has(label));
  }

  /** Folders that are no index, and indexes of another dimension, are told once each. */
  #reportLeftOut(listing: StorageListing): void {
    const { descriptorVersion, dim } = this.#options;
    const strange = listing.indexes
      .filter(({ meta }) => meta.descriptor_version === descriptorVersion && meta.dim !== dim)
      .map(({ label, indexId, meta }) => ({
        label,
        indexId,
        reason: `has dim ${meta.dim}, served is ${dim}`,
      }));
    const leftOut = [...listing.refused, ...strange];
    for (const { label, indexId, reason } of leftOut)
      if (!this.#reported.has(indexId))
        this.#log.error({ label, index_id: indexId, reason }, "index in the storage is left out");
    this.#reported.clear();
    for (const { indexId } of leftOut) this.#reported.add(indexId);
  }

  #start(plan: LabelPlan, signal: AbortSignal): void {
    if (this.#jobs.has(plan.label)) return;
    const job = this.#work(plan, signal)
      .catch((thrown: unknown) => {
        if (!signal.aborted)
          this.#log.error({ label: plan.label, reason: String(thrown) }, `${plan.kind} of a label failed`);
      })
      .finally(() => this.#jobs.delete(plan.label));
    this.#jobs.set(plan.label, job);
  }

  async #work(plan: LabelPlan, signal: AbortSignal): Promise<void> {
    switch (plan.kind) {
      case "unload":
        return this.#unload(plan.label, plan.reason);
      case "load":
        if (plan.dropFirst) await this.#unload(plan.label, "engine_failed");
        return this.#loadFirst(plan.label, plan.candidates, signal);
      case "replace":
        return this.#replace(plan.label, plan.candidates, signal);
    }
  }

  async #unload(label: string, reason: string): Promise<void> {
    const { registry, publisher } = this.#options;
    const indexId = registry.slot(label)?.current?.meta.index_id;
    await publisher.withdraw(label);
    registry.remove(label);
    this.#log.info({ label, index_id: indexId, reason }, "label unloaded");
  }

  /** Several matchers may do this at once: a label that nobody serves yet waits for no lock. */
  async #loadFirst(label: string, candidates: readonly PublishedIndex[], signal: AbortSignal): Promise<void> {
    const { registry, publisher } = this.#options;
    const slot = registry.slotOf(label);
    const holder = await this.#loadOneOf(slot, candidates, signal);
    if (!holder) return;
    slot.swap(holder);
    this.#failures.succeeded(holder.meta.index_id);
    await publisher.serve(label);
    this.#log.info({ label, index_id: holder.meta.index_id, revision: holder.revision }, "label loaded");
  }

  async #replace(label: string, candidates: readonly PublishedIndex[], signal: AbortSignal): Promise<void> {
    const { registry, publisher, locks } = this.#options;
    const slot = registry.slot(label);
    if (!slot?.current || !candidates.some((index) => this.#mayTry(index))) return;
    const lock = await locks.tryAcquire(label, { ttlMs: labelLockTtlMs, signal }).catch((thrown: unknown) => {
      // Its connection tells of it; saying it for each label in each round would bury everything else.
      if (!isLimError(thrown, "redis_unavailable")) throw thrown;
    });
    if (!lock) {
      this.#log.debug({ label }, "another replaces this label's index, or Redis is away: next round");
      return;
    }
    try {
      const both = AbortSignal.any([signal, lock.signal]);
      const from = slot.current.meta.index_id;
      const holder = await this.#loadOneOf(slot, candidates, both, this.#dropOf(slot, both, signal));
      if (!holder) return;
      if (holder !== slot.current && !(await this.#swapIn(slot, holder, both))) return;
      await publisher.announce(label);
      this.#log.info(
        { label, from, index_id: holder.meta.index_id, revision: holder.revision },
        "index replaced",
      );
    } finally {
      await lock.release().catch((thrown: unknown) => {
        this.#log.debug({ label, reason: String(thrown) }, "lock expires by itself");
      });
    }
  }

  /** How an index is loaded that does not fit beside the one served; undefined where it is not. */
  #dropOf(
    slot: LabelSlot,
    whileServed: AbortSignal,
    signal: AbortSignal,
  ): ((index: PublishedIndex) => Promise<IndexHolder>) | undefined {
    const { dropThenLoad: how } = this.#options;
    if (!how) return undefined;
    return async (index) => {
      const holder = await dropThenLoad({ ...this.#options, ...how }, slot, index, { whileServed, signal });
      this.#failures.succeeded(index.indexId);
      return holder;
    };
  }

  /** Refresh of the old index went on during the load: the last steps and the swap are one turn of the label (I12). */
  async #swapIn(slot: LabelSlot, holder: IndexHolder, signal: AbortSignal): Promise<boolean> {
    try {
      await slot.exclusive(async () => {
        const old = slot.current;
        if (old && old.meta.history_id === holder.meta.history_id)
          await catchUp(this.#options.db, slot, holder, old.revision, signal);
        signal.throwIfAborted();
        slot.swap(holder);
      });
      this.#failures.succeeded(holder.meta.index_id);
      return true;
    } catch (thrown) {
      holder.retire();
      if (!signal.aborted) this.#noteFailure(slot, holder.meta.index_id, thrown);
      return false;
    }
  }

  #mayTry(index: PublishedIndex): boolean {
    return !this.#failures.isBlocked(index.indexId, performance.now());
  }

  /** The newest of `candidates` that loads; undefined where none does now. */
  async #loadOneOf(
    slot: LabelSlot,
    candidates: readonly PublishedIndex[],
    signal: AbortSignal,
    drop?: (index: PublishedIndex) => Promise<IndexHolder>,
  ): Promise<IndexHolder | undefined> {
    for (const index of candidates) {
      if (!this.#mayTry(index)) continue;
      const holder = await this.#gate.run(() => this.#loadOne(slot, index, signal, drop));
      if (holder) return holder;
    }
    return undefined;
  }

  /** `drop`: how it is loaded where it does not fit beside what is served. */
  async #loadOne(
    slot: LabelSlot,
    index: PublishedIndex,
    signal: AbortSignal,
    drop?: (index: PublishedIndex) => Promise<IndexHolder>,
  ): Promise<IndexHolder | undefined> {
    const { metrics } = this.#options;
    const startedMs = performance.now();
    slot.loadingId = index.indexId;
    try {
      signal.throwIfAborted();
      const holder = await loadIndex(this.#options, slot, index, signal).catch((thrown: unknown) => {
        if (drop && isLimError(thrown, "memory_limit")) return drop(index);
        throw thrown;
      });
      metrics.loaded(performance.now() - startedMs);
      return holder;
    } catch (thrown) {
      if (!signal.aborted) this.#noteFailure(slot, index.indexId, thrown);
      return undefined;
    } finally {
      slot.loadingId = undefined;
    }
  }

  /** Counted, told once a reason, and tried again later and later. */
  #noteFailure(slot: LabelSlot, indexId: string, thrown: unknown): void {
    const error = LimError.from(thrown);
    // Vanished or stopped: no fault of the index, and the next pass sees what is there then.
    if (error.errorName === "not_found" || error.errorName === "aborted") return;
    this.#options.metrics.loadFailed(error.errorName);
    slot.lastError = error.message;
    if (this.#failures.failed(indexId, error.message, performance.now()))
      this.#log.error(
        { label: slot.label, index_id: indexId, error_code: error.code, reason: error.message },
        slot.current ? "index was not loaded, the one before goes on" : "index was not loaded",
      );
  }
}
