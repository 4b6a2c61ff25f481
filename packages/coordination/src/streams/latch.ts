/** A wake-up that is remembered until somebody waited for it, so that none falls between looking and waiting. */
export class LatchedSignal {
  #fired = false;
  #waiters: (() => void)[] = [];

  fire(): void {
    this.#fired = true;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  /** Forgets an earlier wake-up: the caller looks at the state now. */
  reset(): void {
    this.#fired = false;
  }

  /** Resolves when fired, at once where it was since the last reset, or when the signal aborts. */
  wait(signal: AbortSignal): Promise<void> {
    if (this.#fired || signal.aborted) {
      this.#fired = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        resolve();
      };
      signal.addEventListener("abort", done, { once: true });
      this.#waiters.push(done);
    });
  }
}
