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

/** Labels whose feed is read at a time; each takes a connection to Postgres, and a second one for moments. */
export const maxParallelPasses = 4;
/** Revisions that a pass covers at most: then labels that wait for a place, and swaps, have their turn. */
export const maxPassRevisions = 2_000;
/** Looks that are asked for between two periods take at most this share of the time, however many lists there are. */
const lookTimeShare = 0.1;
const retryFirstMs = 500;
const retryMostMs = 30_000;

type RefreshDb = Pick<FacesDb, "listStates" | "countChanges" | "readPackets">;

/**
 * Keeps every served index at its list's newest revision: one query tells the revisions of all lists, then each label
 * that is behind loops packets of ten. Matching goes on meanwhile; between two packets searches have their turn.
 */
export class Refresher {
  readonly #db: RefreshDb;
  readonly #registry: Registry;
  readonly #publisher: Pick<Publisher, "announce" | "announceSoon">;
  readonly #metrics: MatcherMetrics;
  readonly #log: Log;
  readonly #periodMs: number;
  readonly #onUnservable: () => void;
  readonly #pace = new Pace();
  readonly #passes = new Map<string, Promise<void>>();
  /** By label: the number of its last pass. The one whose last pass was longest ago goes first. */
  readonly #turns = new Map<string, number>();
  readonly #backoff = new Backoff({ firstMs: retryFirstMs, mostMs: retryMostMs });
  #nextTurn = 1;
  /** Labels are behind that found no place in the last look. */
  #isCrowded = false;
  #failing = false;

  constructor(options: {
    db: RefreshDb;
    registry: Registry;
    publisher: Pick<Publisher, "announce" | "announceSoon">;
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
    const rest = new Pace();
    while (!signal.aborted) {
      const startedMs = performance.now();
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
      const restMs = (performance.now() - startedMs) * (1 / lookTimeShare - 1);
      await rest.pause(Math.min(restMs, this.#periodMs), signal);
      await this.#pace.pause(Math.max(0, this.#periodMs - restMs), signal);
    }
    await Promise.all(this.#passes.values());
  }

  async #look(signal: AbortSignal): Promise<void> {
    // A pass may move a revision while the query runs, so "ahead" is judged by the revisions from before it.
    const before = new Map<LabelSlot, { holder: IndexHolder; revision: number }>();
    for (const slot of this.#registry.slots())
      if (slot.current) before.set(slot, { holder: slot.current, revision: slot.current.revision });
    const labels = new Set([...before.keys()].map((slot) => slot.label));
    this.#backoff.keepOnly(labels);
    for (const label of this.#turns.keys()) if (!labels.has(label)) this.#turns.delete(label);
    if (labels.size === 0) return;
    const states = await this.#db.listStates({ listIds: [...labels], signal });
    this.#metrics.revisionsRead();
    const stateOf = new Map(states.map((state) => [state.listId, state]));
    const turnOf = ({ label }: LabelSlot) => this.#turns.get(label) ?? 0;
    this.#isCrowded = false;
    for (const [slot, { holder, revision }] of [...before].toSorted(([a], [b]) => turnOf(a) - turnOf(b)))
      if (slot.current === holder) this.#judge(slot, revision, stateOf.get(slot.label), signal);
  }

  #judge(slot: LabelSlot, revisionBefore: number, state: ListState | undefined, signal: AbortSignal): void {
    const holder = slot.current;
    if (!holder) return;
    const gap = gapOf(holder.meta.history_id, revisionBefore, state);
    // Also of a stale label, so that it can be seen how far it is behind.
    if (state && !gap) slot.headRevision = Math.max(slot.headRevision, state.revision);
    if (slot.gap) return;
    if (gap) {
      this.#markGap(slot, gap);
      return;
    }
    if (holder.revision >= slot.headRevision || holder.failed) return;
    if (this.#passes.has(slot.label) || this.#backoff.isBlocked(slot.label, performance.now())) return;
    if (this.#passes.size >= maxParallelPasses) {
      this.#isCrowded = true;
      return;
    }
    const refresh = this.#refresh(slot, signal).finally(() => {
      this.#passes.delete(slot.label);
      // Labels that found no room, or fell behind meanwhile, wait no further period.
      this.wake();
    });
    this.#passes.set(slot.label, refresh);
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
      // A turn ends with each pass, so that neither a swap nor another label waits behind an endless stream of changes.
      let goesOn = true;
      while (goesOn) {
        this.#turns.set(slot.label, this.#nextTurn++);
        goesOn = (await slot.exclusive(() => this.#pass(slot, signal))) && !this.#isCrowded;
      }
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

  /** One pass up to the revision known at its start, or as far as a pass goes. True where there is more. */
  async #pass(slot: LabelSlot, signal: AbortSignal): Promise<boolean> {
    const lease = slot.acquire();
    if (!lease) return false;
    const { holder } = lease;
    const { label } = slot;
    try {
      if (holder.revision >= slot.headRevision || holder.failed) return false;
      const toRevision = Math.min(slot.headRevision, holder.revision + maxPassRevisions);
      let progress: SyncProgress | undefined;
      const counting = this.#db
        .countChanges({ listId: label, sinceRevision: holder.revision, toRevision, signal })
        .then((rows) => {
          progress = new SyncProgress(rows);
          this.#log.info({ label }, `Refresh index for: ${label}`);
        });
      // Heard by who waits for it; reading may fail before.
      counting.catch(() => {});
      const gap = await followFeed(this.#db, holder, {
        toRevision,
        maxFaces: limits.refreshPacketFaces,
        signal,
        applyAfter: counting,
        onPacket: (packet, applied) => {
          slot.headRevision = Math.max(slot.headRevision, packet.headRevision);
          const additions = { added: packet.upserts.length - applied.replaced, replaced: applied.replaced };
          const isLast = packet.toRevision >= toRevision;
          progress?.fetched({ ...additions, removed: packet.removals.length }, isLast);
          this.#log.info({ label, revision: packet.toRevision }, progress?.line() ?? "");
          this.#metrics.refreshed(applied);
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
