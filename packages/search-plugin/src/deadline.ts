import { LimError } from "@lim/contracts";

type Ended = (reason: LimError) => void;

/** One deadline and one cancellation for a whole call. */
export class Deadline {
  readonly timeoutMs: number;
  readonly #endsAtMs: number;
  readonly #timer: NodeJS.Timeout;
  readonly #caller: AbortSignal | undefined;
  readonly #waiting = new Set<Ended>();
  /** Most calls end without anybody having asked for it. */
  #controller: AbortController | undefined;
  #reason: LimError | undefined;
  #needsSignal: boolean;

  /** `caller` cancels the call. */
  constructor(timeoutMs: number, caller: AbortSignal | undefined) {
    this.timeoutMs = timeoutMs;
    this.#endsAtMs = performance.now() + timeoutMs;
    this.#timer = setTimeout(() => {
      this.stop(new LimError("request_expired", `not answered within ${timeoutMs} ms`));
    }, timeoutMs);
    this.#caller = caller;
    this.#needsSignal = caller !== undefined;
    if (caller?.aborted) this.#onAbort();
    caller?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get leftMs(): number {
    return Math.max(0, this.#endsAtMs - performance.now());
  }

  /** Why the call is over; undefined while it is not. */
  get reason(): LimError | undefined {
    return this.#reason;
  }

  /** Fires with the end of the call, and where two paths ran when its answer is there. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#reason) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** For work that knows the deadline by itself: what else may end the call, where anything may. */
  get cancellation(): { signal: AbortSignal } | undefined {
    return this.#needsSignal ? { signal: this.signal } : undefined;
  }

  stop(reason: LimError): void {
    if (this.#reason) return;
    this.#reason = reason;
    this.#controller?.abort(reason);
    for (const ended of this.#waiting) ended(reason);
    this.#waiting.clear();
  }

  /** The promise's outcome, or the deadline's or the cancellation's error as soon as it comes. */
  async race<T>(promise: Promise<T>): Promise<T> {
    if (this.#reason) {
      promise.catch(() => {});
      throw this.#reason;
    }
    return new Promise<T>((resolve, reject) => {
      this.#waiting.add(reject);
      promise.then(
        (value) => {
          this.#waiting.delete(reject);
          resolve(value);
        },
        (thrown: unknown) => {
          this.#waiting.delete(reject);
          reject(thrown);
        },
      );
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
    return this.#reason ?? LimError.from(thrown);
  }

  /** Two paths may run: what the other still does when the call has its answer is cancelled. */
  expectTwoPaths(): void {
    this.#needsSignal = true;
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener("abort", this.#onAbort);
  }

  /** The call has its answer, and the other path is still at it. */
  cancelRest(): void {
    this.#controller?.abort(new LimError("aborted", "answered otherwise"));
  }

  readonly #onAbort = (): void => {
    const reason = this.#caller?.reason;
    this.stop(reason instanceof LimError ? reason : new LimError("aborted", "cancelled by the caller"));
  };
}
