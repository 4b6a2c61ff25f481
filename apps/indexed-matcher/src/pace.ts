/** A loop's pause that ends early when it is woken or aborted. A wake during a round shortens the next pause. */
export class Pace {
  #woken = false;
  #end: (() => void) | undefined;

  wake(): void {
    this.#woken = true;
    this.#end?.();
  }

  async pause(periodMs: number, signal: AbortSignal): Promise<void> {
    if (!this.#woken && !signal.aborted)
      await new Promise<void>((resolve) => {
        const end = () => {
          clearTimeout(timer);
          signal.removeEventListener("abort", end);
          this.#end = undefined;
          resolve();
        };
        const timer = setTimeout(end, periodMs);
        signal.addEventListener("abort", end, { once: true });
        this.#end = end;
      });
    this.#woken = false;
  }
}

/** Doubling waits between attempts at one thing. */
export class Backoff {
  readonly #firstMs: number;
  readonly #mostMs: number;
  readonly #entries = new Map<string, { attempts: number; notBeforeMs: number; reason: string }>();

  constructor(options: { firstMs: number; mostMs: number }) {
    this.#firstMs = options.firstMs;
    this.#mostMs = options.mostMs;
  }

  isBlocked(key: string, nowMs: number): boolean {
    return (this.#entries.get(key)?.notBeforeMs ?? 0) > nowMs;
  }

  /** True where this reason is new for the key, i.e. worth a line in the log. */
  failed(key: string, reason: string, nowMs: number): boolean {
    const before = this.#entries.get(key);
    const attempts = (before?.attempts ?? 0) + 1;
    const waitMs = Math.min(this.#mostMs, this.#firstMs * 2 ** Math.min(attempts - 1, 30));
    this.#entries.set(key, { attempts, notBeforeMs: nowMs + waitMs, reason });
    return before?.reason !== reason;
  }

  succeeded(key: string): void {
    this.#entries.delete(key);
  }

  /** Forgets keys that are no more. */
  keepOnly(keys: ReadonlySet<string>): void {
    for (const key of this.#entries.keys()) if (!keys.has(key)) this.#entries.delete(key);
  }
}
