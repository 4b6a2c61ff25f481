import type { HeldEntry } from "./entry.ts";

/**
 * What this consumer holds of one label: entries read ahead, suspects (delivered before, each to run alone), and the
 * batch that runs. At most two batches together.
 */
export class LabelHold {
  readonly label: string;
  readonly #batchSize: number;
  readonly #held = new Map<string, HeldEntry>();
  #queue: HeldEntry[] = [];
  #suspects: HeldEntry[] = [];
  #ranSuspect = false;
  /** Read from now on; false while it only finishes what runs. */
  active = true;
  running: Promise<void> | undefined;
  /** A claim for this label is under way. */
  claiming = false;

  constructor(label: string, batchSize: number) {
    this.label = label;
    this.#batchSize = batchSize;
  }

  /** Entries that may still be read ahead. */
  get room(): number {
    return this.#batchSize - this.#queue.length;
  }

  get hasSuspect(): boolean {
    return this.#suspects.length > 0;
  }

  get hasWork(): boolean {
    return this.#queue.length > 0 || this.#suspects.length > 0;
  }

  get isIdle(): boolean {
    return this.running === undefined && !this.hasWork;
  }

  has(entryId: string): boolean {
    return this.#held.has(entryId);
  }

  add(entry: HeldEntry): void {
    this.#held.set(entry.entryId, entry);
    if (entry.deliveries > 1) this.#suspects.push(entry);
    else this.#queue.push(entry);
  }

  /** The next batch: suspects alone, and in turn with the others, so that neither starves. */
  next(): HeldEntry[] {
    const takeSuspect = this.#suspects.length > 0 && (!this.#ranSuspect || this.#queue.length === 0);
    this.#ranSuspect = takeSuspect;
    if (takeSuspect) return this.#suspects.splice(0, 1);
    return this.#queue.splice(0, this.#batchSize);
  }

  /** Answered, or left to be claimed: no longer renewed. */
  release(entryIds: Iterable<string>): void {
    for (const id of entryIds) this.#held.delete(id);
  }

  /** Forgets entries that another consumer has, unless they run already. */
  drop(entryIds: ReadonlySet<string>): void {
    this.#queue = this.#queue.filter((entry) => !entryIds.has(entry.entryId));
    this.#suspects = this.#suspects.filter((entry) => !entryIds.has(entry.entryId));
    this.release(entryIds);
  }

  /** Takes everything that no search has seen. */
  takeUnrun(): HeldEntry[] {
    const unrun = [...this.#suspects, ...this.#queue];
    this.#suspects = [];
    this.#queue = [];
    this.release(unrun.map((entry) => entry.entryId));
    return unrun;
  }

  /** Takes everything whose time is over, also what a search is busy with: nobody waits for its answer. */
  takeExpired(nowMs: number): HeldEntry[] {
    const expired = [...this.#held.values()].filter((entry) => entry.deadlineMs <= nowMs);
    if (expired.length > 0) this.drop(new Set(expired.map((entry) => entry.entryId)));
    return expired;
  }

  heldSince(beforeMs: number): HeldEntry[] {
    return [...this.#held.values()].filter((entry) => entry.touchedAtMs <= beforeMs);
  }
}
