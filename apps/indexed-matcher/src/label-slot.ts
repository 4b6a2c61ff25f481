import { LimError } from "@lim/contracts";
import type { FeedGap } from "@lim/faces-db";
import { HeadMarks } from "./head-marks.ts";
import type { IndexHolder } from "./index-holder.ts";

export interface Lease {
  readonly holder: IndexHolder;
  release(): void;
}

/** One label that this matcher serves or is about to: its current index and who may change it. */
export class LabelSlot {
  readonly label: string;
  #current: IndexHolder | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #waiters = new Set<() => void>();
  #headRevision = 0;
  readonly #headMarks = new HeadMarks();
  /** Why the current index cannot follow its list any more. */
  gap: FeedGap | undefined;
  /** Index that is being loaded beside. */
  loadingId: string | undefined;
  /** Reason of the last load that failed; cleared by one that succeeds. */
  lastError: string | undefined;

  constructor(label: string) {
    this.label = label;
  }

  get current(): IndexHolder | undefined {
    return this.#current;
  }

  /** Newest revision of the list that was heard of, in the history of the current index. */
  get headRevision(): number {
    return this.#headRevision;
  }

  set headRevision(revision: number) {
    this.#headRevision = revision;
    this.#headMarks.hear(revision, performance.now());
  }

  /** For how long changes have been known that the current index lacks; 0 where there are none. */
  get behindMs(): number {
    const sinceMs = this.#headMarks.behindSince(this.#current?.revision ?? 0);
    return sinceMs === undefined ? 0 : performance.now() - sinceMs;
  }

  /** A reader's hold of the current index; undefined where nothing is served. */
  acquire(): Lease | undefined {
    const holder = this.#current;
    if (!holder?.acquire()) return undefined;
    let held = true;
    return {
      holder,
      release() {
        if (!held) return;
        held = false;
        holder.release();
      },
    };
  }

  /** Refresh passes and swaps of one label, one after another. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }

  /**
   * Puts `holder` in the place of the current one, which is retired. Within one history of the list the revision
   * never decreases (I12); another history counts anew, so its revisions cannot be compared.
   */
  swap(holder: IndexHolder): void {
    const old = this.#current;
    if (old && old.meta.history_id === holder.meta.history_id && holder.revision < old.revision)
      throw new LimError(
        "index_behind",
        `index ${holder.meta.index_id} is at revision ${holder.revision}, served is ${old.revision}`,
      );
    this.#current = holder;
    this.gap = undefined;
    this.lastError = undefined;
    if (old && old.meta.history_id !== holder.meta.history_id) this.#forgetHead();
    this.headRevision = Math.max(this.headRevision, holder.revision);
    this.wakeWaiters();
    old?.retire();
  }

  /** Nothing is served from here on. */
  clear(): void {
    const old = this.#current;
    this.#current = undefined;
    this.wakeWaiters();
    old?.retire();
  }

  /** Revisions of another history cannot be compared: what was heard of that one is nothing to be reached in this. */
  #forgetHead(): void {
    this.#headRevision = 0;
    this.#headMarks.clear();
  }

  /** Called when a revision was applied, or when waiting has become pointless. */
  wakeWaiters(): void {
    for (const wake of [...this.#waiters]) wake();
  }

  /** True once the served revision is at least `revision`; false when time or `signal` ended first. */
  waitForRevision(revision: number, options: { timeoutMs: number; signal: AbortSignal }): Promise<boolean> {
    const reached = () => (this.#current?.revision ?? -1) >= revision;
    if (reached()) return Promise.resolve(true);
    if (options.signal.aborted || options.timeoutMs <= 0) return Promise.resolve(false);
    return new Promise((resolve) => {
      const settle = (answer: boolean) => {
        clearTimeout(timer);
        this.#waiters.delete(wake);
        options.signal.removeEventListener("abort", giveUp);
        resolve(answer);
      };
      const wake = () => {
        if (reached()) settle(true);
        else if (!this.#current) settle(false);
      };
      const giveUp = () => settle(false);
      const timer = setTimeout(giveUp, options.timeoutMs);
      options.signal.addEventListener("abort", giveUp, { once: true });
      this.#waiters.add(wake);
    });
  }
}
