/**
 * Hands items from one reader to one inserter in order. The reader runs ahead as fast as it can until
 * `maxQueuedBytes` wait; only then does `push` wait too. Whoever fails calls `fail`, and the other is told.
 */
export class BatchQueue<Item extends { byteLength: number }> {
  readonly #maxQueuedBytes: number;
  #items: Item[] = [];
  #queuedBytes = 0;
  #ended = false;
  #failure: { reason: unknown } | undefined;
  #waiters: (() => void)[] = [];

  constructor(options: { maxQueuedBytes: number }) {
    this.#maxQueuedBytes = options.maxQueuedBytes;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Resolves once there was room. An item larger than the whole limit passes when it is alone. */
  async push(item: Item): Promise<void> {
    const { byteLength } = item;
    while (this.#queuedBytes > 0 && this.#queuedBytes + byteLength > this.#maxQueuedBytes)
      await this.#change();
    this.#throwIfFailed();
    this.#items.push(item);
    this.#queuedBytes += byteLength;
    this.#notify();
  }

  end(): void {
    this.#ended = true;
    this.#notify();
  }

  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#items = [];
    this.#queuedBytes = 0;
    this.#notify();
  }

  /** Next item, or undefined once the reader has ended and all were taken. */
  async take(): Promise<Item | undefined> {
    while (this.#items.length === 0 && !this.#ended && !this.#failure) await this.#change();
    this.#throwIfFailed();
    return this.takeNow(Number.POSITIVE_INFINITY);
  }

  /** Next item where one of at most `maxBytes` waits. */
  takeNow(maxBytes: number): Item | undefined {
    const next = this.#items[0];
    if (next === undefined || next.byteLength > maxBytes) return undefined;
    this.#items.shift();
    this.#queuedBytes -= next.byteLength;
    this.#notify();
    return next;
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure.reason;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #notify(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }
}
