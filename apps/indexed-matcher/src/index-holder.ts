import { type IndexMeta, LimError } from "@lim/contracts";
import type { AppliedCounts, KeyedChange, KeyedIndex } from "@lim/vector-index";

/**
 * One loaded index with its readers counted. Who made it holds the first reference; after `retire` nobody gets in,
 * and the index is closed when the last reader has left.
 */
export class IndexHolder {
  readonly meta: IndexMeta;
  readonly keyed: KeyedIndex;
  readonly sizeBytes: number;
  #revision: number;
  #references = 1;
  #retired = false;
  #failed = false;
  readonly #admit: (addedFaces: number) => void;
  /** Why the index may not grow, so that it stays at its revision; undefined where it may. */
  heldBack: string | undefined;
  #settleClosed: (closing: Promise<void>) => void = () => {};
  readonly closed: Promise<void>;

  /** `admit` is asked before faces are added, and throws where there is no room for so many. */
  constructor(opened: {
    meta: IndexMeta;
    keyed: KeyedIndex;
    sizeBytes: number;
    admit?: (addedFaces: number) => void;
  }) {
    this.#admit = opened.admit ?? (() => {});
    this.meta = opened.meta;
    this.keyed = opened.keyed;
    this.sizeBytes = opened.sizeBytes;
    this.#revision = opened.meta.revision;
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
  }

  /** The content holds every change up to here, and possibly changes past it that are being applied. */
  get revision(): number {
    return this.#revision;
  }

  /** As of the keyed index, unless it would have to grow and may not: then it rejects and nothing has changed. */
  async apply(change: KeyedChange): Promise<AppliedCounts> {
    this.#admitGrowth([change]);
    return this.keyed.apply(change);
  }

  /** As of the keyed index. Where there is no room for all of them, those that find some are applied. */
  async applyInSteps(
    changes: readonly KeyedChange[],
    options: { signal: AbortSignal; onApplied: (change: number, counts: AppliedCounts) => void },
  ): Promise<void> {
    try {
      this.#admitGrowth(changes);
    } catch {
      for (const [number, change] of changes.entries()) {
        options.signal.throwIfAborted();
        options.onApplied(number, await this.apply(change));
      }
      return;
    }
    await this.keyed.applyInSteps(changes, options);
  }

  #admitGrowth(changes: readonly KeyedChange[]): void {
    let added = 0;
    for (const { upserts } of changes) for (const { faceId } of upserts) if (!this.keyed.has(faceId)) added++;
    try {
      if (added > 0) this.#admit(added);
      this.heldBack = undefined;
    } catch (thrown) {
      this.heldBack = LimError.from(thrown).detail;
      throw thrown;
    }
  }

  /** Called once all changes up to `revision` are applied. */
  advance(revision: number): void {
    if (revision < this.#revision)
      throw new LimError("internal", `revision ${revision} is below the served ${this.#revision}`);
    this.#revision = revision;
  }

  /** Its engine failed: the registry replaces it by a new object. */
  get failed(): boolean {
    return this.#failed;
  }

  fail(): void {
    this.#failed = true;
  }

  get readers(): number {
    return this.#references - (this.#retired ? 0 : 1);
  }

  /** False once retired: the caller looks up the label's new holder. */
  acquire(): boolean {
    if (this.#retired) return false;
    this.#references++;
    return true;
  }

  /** Ends one acquire. */
  release(): void {
    if (this.#references === 0)
      throw new LimError("internal", "an index was released more often than acquired");
    this.#references--;
    if (this.#references === 0) this.#settleClosed(this.keyed.close());
  }

  /** Gives up the first reference. Idempotent; `closed` tells when the index is gone. */
  retire(): void {
    if (this.#retired) return;
    this.#retired = true;
    this.release();
  }
}
