import { isLimError, limits } from "@lim/contracts";
import type { Log } from "@lim/coordination";
import type { FacesDb, FeedGap, ListState } from "@lim/faces-db";
import { followFeed } from "./follow-feed.ts";
import type { IndexHolder } from "./index-holder.ts";
import type { LabelSlot } from "./label-slot.ts";
import type { MatcherMetrics } from "./metrics.ts";
import { Backoff, Pace } from "./pace.ts";
import type { Publisher } from "./publisher.ts";
import type { Registry } from "./registry.ts";
import { SyncProgress } from "./sync-progress.ts";

/** Labels whose feed is read at a time; each takes a connection to Postgres. */
export const maxParallelPasses = 4;
const retryFirstMs = 500;
const retryMostMs = 30_000;

/**
 * Keeps every served index at its list's newest revision: one query tells the revisions of all lists, then each label
 * that is behind loops packets of ten. Matching goes on meanwhile; between two packets searches have their turn.
 */
export class Refresher {
  readonly #db: Pick<FacesDb, "listStates" | "countChanges" | "readPacket">;
  readonly #registry: Registry;
  readonly #publisher: Publisher;
  readonly #metrics: MatcherMetrics;
  readonly #log: Log;
  readonly #periodMs: number;
  readonly #onUnservable: () => void;
  readonly #pace = new Pace();
  readonly #passes = new Map<string, Promise<void>>();
  readonly #backoff = new Backoff({ firstMs: retryFirstMs, mostMs: retryMostMs });
  #failing = false;

  constructor(options: {
    db: Pick<FacesDb, "listStates" | "countChanges" | "readPacket">;
    registry: Registry;
    publisher: Publisher;
    metrics: MatcherMetrics;
    log: Log;
    periodMs: number;
    /** A list is gone or an engine has failed: what is loaded must be looked at now. */
    onUnservable: () => void;
  }) {
    this.#db = options.db;
    this.#registry = options.registry;
    this.#publisher = options.publisher;
    this.#metrics = options.metrics;
    this.#log = options.log;
    this.#periodMs = options.periodMs;
    this.#onUnservable = options.onUnservable;
  }

  /** Looks at the revisions now instead of at the next period. */
  wake(): void {
    this.#pace.wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#look(signal);
        if (this.#failing) this.#log.info({}, "refresh goes on");
        this.#failing = false;
      } catch (thrown) {
        if (signal.aborted) break;
        if (!this.#failing)
          this.#log.warn({ reason: String(thrown) }, "revisions cannot be read, serving what is loaded");
        this.#failing = true;
      }
      await this.#pace.pause(this.#periodMs, signal);
    }
    await Promise.all(this.#passes.values());
  }

  async #look(signal: AbortSignal): Promise<void> {
    // A pass may move a revision while the query runs, so "ahead" is judged by the revisions from before it.
    const before = new Map<LabelSlot, { holder: IndexHolder; revision: number }>();
    for (const slot of this.#registry.slots())
      if (slot.current) before.set(slot, { holder: slot.current, revision: slot.current.revision });
    if (before.size === 0) return;
    const listIds = [...before.keys()].map((slot) => slot.label);
    const states = await this.#db.listStates({ listIds, signal });
    const stateOf = new Map(states.map((state) => [state.listId, state]));
    this.#backoff.keepOnly(new Set(listIds));
    for (const [slot, { holder, revision }] of before)
      if (slot.current === holder) this.#judge(slot, revision, stateOf.get(slot.label), signal);
  }

  #judge(slot: LabelSlot, revisionBefore: number, state: ListState | undefined, signal: AbortSignal): void {
    const holder = slot.current;
    if (!holder || slot.gap) return;
    const gap = gapOf(holder.meta.history_id, revisionBefore, state);
    if (gap || !state) {
      this.#markGap(slot, gap ?? "list_deleted");
      return;
    }
    slot.headRevision = Math.max(slot.headRevision, state.revision);
    if (holder.revision >= slot.headRevision || holder.failed) return;
    if (this.#passes.has(slot.label) || this.#passes.size >= maxParallelPasses) return;
    if (this.#backoff.isBlocked(slot.label, performance.now())) return;
    const pass = this.#refresh(slot, signal).finally(() => {
      this.#passes.delete(slot.label);
      // Labels that found no room, or fell behind meanwhile, wait no further period.
      this.wake();
    });
    this.#passes.set(slot.label, pass);
  }

  #markGap(slot: LabelSlot, gap: FeedGap): void {
    slot.gap = gap;
    slot.wakeWaiters();
    if (gap === "list_deleted") this.#onUnservable();
    else
      this.#log.error(
        { label: slot.label, gap, revision: slot.current?.revision },
        "index cannot follow its list any more and is stale, it needs a rebuild",
      );
  }

  async #refresh(slot: LabelSlot, signal: AbortSignal): Promise<void> {
    try {
      // A turn ends with each pass, so that a swap never waits behind an endless stream of changes.
      let goesOn = true;
      while (goesOn) goesOn = await slot.exclusive(() => this.#pass(slot, signal));
      this.#backoff.succeeded(slot.label);
    } catch (thrown) {
      if (signal.aborted || isLimError(thrown, "aborted")) return;
      this.#metrics.refreshFailed();
      const reason = String(thrown);
      if (this.#backoff.failed(slot.label, reason, performance.now()))
        this.#log.warn({ label: slot.label, reason }, "refresh failed, trying again");
      if (slot.current?.failed) this.#onUnservable();
    }
  }

  /** One pass up to the revision known at its start. True where the list has gone on meanwhile. */
  async #pass(slot: LabelSlot, signal: AbortSignal): Promise<boolean> {
    const lease = slot.acquire();
    if (!lease) return false;
    const { holder } = lease;
    const { label } = slot;
    const toRevision = slot.headRevision;
    try {
      if (holder.revision >= toRevision || holder.failed) return false;
      const rows = await this.#db.countChanges({
        listId: label,
        sinceRevision: holder.revision,
        toRevision,
        signal,
      });
      this.#log.info({ label }, `Refresh index for: ${label}`);
      const progress = new SyncProgress(rows);
      const gap = await followFeed(this.#db, holder, {
        toRevision,
        maxFaces: limits.refreshPacketFaces,
        signal,
        onPacket: (packet, applied) => {
          slot.headRevision = Math.max(slot.headRevision, packet.headRevision);
          const additions = { added: packet.upserts.length - applied.replaced, replaced: applied.replaced };
          progress.fetched(
            { ...additions, removed: packet.removals.length },
            packet.toRevision >= toRevision,
          );
          this.#metrics.refreshed(applied);
          this.#log.info({ label, revision: packet.toRevision }, progress.line());
          slot.wakeWaiters();
          this.#publisher.announceSoon(label);
        },
      });
      if (gap) {
        this.#markGap(slot, gap);
        return false;
      }
      this.#log.info(
        { label, revision: holder.revision },
        `Refresh index for: ${label} has finished successfully`,
      );
    } finally {
      lease.release();
    }
    void this.#publisher.announce(label);
    return holder.revision < slot.headRevision;
  }
}

function gapOf(historyId: string, revision: number, state: ListState | undefined): FeedGap | undefined {
  if (!state) return "list_deleted";
  if (state.historyId !== historyId) return "other_history";
  return state.revision < revision ? "ahead_of_list" : undefined;
}
