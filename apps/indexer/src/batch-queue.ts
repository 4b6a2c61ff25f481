import type { DescriptorBatch } from "@lim/faces-db";

/**
 * Hands batches from one reader to one inserter in order. The reader runs ahead as fast as it can until
 * `maxQueuedBytes` wait; only then does `push` wait too. Whoever fails calls `fail`, and the other is told.
 */
export class BatchQueue<Batch extends DescriptorBatch = DescriptorBatch> {
  readonly #maxQueuedBytes: number;
  #batches: Batch[] = [];
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

  /** Resolves once there was room. A batch larger than the whole limit passes when it is alone. */
  async push(batch: Batch): Promise<void> {
    const bytes = bytesOf(batch);
    while (this.#queuedBytes > 0 && this.#queuedBytes + bytes > this.#maxQueuedBytes) await this.#change();
    this.#throwIfFailed();
    this.#batches.push(batch);
    this.#queuedBytes += bytes;
    this.#notify();
  }

  end(): void {
    this.#ended = true;
    this.#notify();
  }

  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#batches = [];
    this.#queuedBytes = 0;
    this.#notify();
  }

  /** Next batch, or undefined once the reader has ended and all were taken. */
  async take(): Promise<Batch | undefined> {
    while (this.#batches.length === 0 && !this.#ended && !this.#failure) await this.#change();
    this.#throwIfFailed();
    const batch = this.#batches.shift();
    if (batch) this.#queuedBytes -= bytesOf(batch);
    this.#notify();
    return batch;
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

function bytesOf(batch: DescriptorBatch): number {
  return batch.vectors.byteLength + batch.faceIds.byteLength;
}
