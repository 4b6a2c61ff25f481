import { LimError } from "@lim/contracts";

/** One deadline and one cancellation for a whole call. */
export class Deadline {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  readonly #endsAtMs: number;
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #stops: readonly AbortSignal[];
  readonly #onStop: () => void;
  #leavesWork = false;

  /** `stops` cancel the call: the caller's own signal, and the closing of the plugin. */
  constructor(timeoutMs: number, stops: readonly AbortSignal[]) {
    this.signal = this.#controller.signal;
    this.timeoutMs = timeoutMs;
    this.#endsAtMs = performance.now() + timeoutMs;
    this.#timer = setTimeout(() => {
      this.#controller.abort(new LimError("request_expired", `not answered within ${timeoutMs} ms`));
    }, timeoutMs);
    this.#stops = stops;
    this.#onStop = () => {
      const reason = stops.find((stop) => stop.aborted)?.reason;
      this.#controller.abort(
        reason instanceof LimError ? reason : new LimError("aborted", "cancelled by the caller"),
      );
    };
    for (const stop of stops) {
      if (stop.aborted) this.#onStop();
      stop.addEventListener("abort", this.#onStop, { once: true });
    }
  }

  get leftMs(): number {
    return Math.max(0, this.#endsAtMs - performance.now());
  }

  /** The promise's outcome, or the deadline's or the cancellation's error as soon as it comes. */
  async race<T>(promise: Promise<T>): Promise<T> {
    if (this.signal.aborted) {
      promise.catch(() => {});
      throw this.signal.reason;
    }
    return new Promise<T>((resolve, reject) => {
      const onAbort = () => reject(this.signal.reason);
      this.signal.addEventListener("abort", onAbort, { once: true });
      promise.then(resolve, reject).finally(() => this.signal.removeEventListener("abort", onAbort));
    });
  }

  /** Resolves after `ms`; rejects as soon as the call is over. */
  async pause(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    await this.race(over).finally(() => clearTimeout(timer));
  }

  /** Why the call ended, where the deadline or a cancellation was behind an error that it caused. */
  explain(thrown: unknown): LimError {
    return this.signal.aborted ? LimError.from(this.signal.reason) : LimError.from(thrown);
  }

  /** Two paths run: what the other still does when the call has its answer is cancelled. */
  leavesWork(): void {
    this.#leavesWork = true;
  }

  end(): void {
    clearTimeout(this.#timer);
    for (const stop of this.#stops) stop.removeEventListener("abort", this.#onStop);
    if (this.#leavesWork) this.#controller.abort(new LimError("aborted", "answered otherwise"));
  }
}
