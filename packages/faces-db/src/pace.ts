import type { SnapshotPace } from "./port.ts";

/** What is due is waited for together: the more comes at once, the less processor time a megabyte takes. */
const leastWaitMs = 20;
/** Late timers and a slow reader are made up for as far back as this. */
const creditMs = 50;
/** Longest wait before it is asked again whether there is any hurry. */
const longestWaitMs = 50;

/** Says for how long to wait so that no more than a number of bytes a second is read. */
export class Pace {
  readonly #options: SnapshotPace;
  readonly #nowMs: () => number;
  /** When what was read so far is due at this pace. */
  #dueMs = Number.NEGATIVE_INFINITY;

  constructor(options: SnapshotPace, nowMs: () => number = () => performance.now()) {
    this.#options = options;
    this.#nowMs = nowMs;
  }

  /** Milliseconds until reading may go on after `bytes` were read; 0 = at once. Ask again, with 0 bytes, once they are over. */
  waitMs(bytes: number): number {
    const { bytesPerS, inHurry } = this.#options;
    const nowMs = this.#nowMs();
    if (inHurry?.()) {
      this.#dueMs = nowMs;
      return 0;
    }
    this.#dueMs = Math.max(this.#dueMs, nowMs - creditMs) + (bytes * 1000) / bytesPerS;
    const aheadMs = this.#dueMs - nowMs;
    return aheadMs < leastWaitMs ? 0 : Math.min(aheadMs, longestWaitMs);
  }
}
