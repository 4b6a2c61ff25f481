import { abortedError, HnswError, throwIfAborted } from "./errors.ts";

interface Entry {
  run(): Promise<void>;
  reject(error: HnswError): void;
}

/** Changes of one index: one after another, in the order of the calls. */
export class ChangeQueue {
  readonly #maxQueued: number;
  /** Runs after every change, before the next: nobody waits for it but the next. */
  readonly #housekeeping: () => Promise<void>;
  #entries: Entry[] = [];
  #running: Promise<void> | undefined;
  #closed: HnswError | undefined;

  constructor(maxQueued: number, housekeeping: () => Promise<void>) {
    this.#maxQueued = maxQueued;
    this.#housekeeping = housekeeping;
  }

  get idle(): boolean {
    return this.#running === undefined;
  }

  run<T>(signal: AbortSignal | undefined, task: () => Promise<T>): Promise<T> {
    throwIfAborted(signal);
    if (this.#closed) throw this.#closed;
    if (this.#entries.length >= this.#maxQueued)
      throw new HnswError("overloaded", `${this.#entries.length} changes wait already`);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const onAbort = () => {
      if (signal === undefined) return;
      this.#entries = this.#entries.filter((one) => one !== entry);
      reject(abortedError(signal));
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    const entry: Entry = {
      run: async () => {
        // From here on the task heeds the signal itself.
        signal?.removeEventListener("abort", onAbort);
        await task().then(resolve, reject);
      },
      reject,
    };
    this.#entries.push(entry);
    this.#running ??= this.#drain();
    return promise;
  }

  /** Rejects what waits; resolves once nothing runs any more. */
  async close(error: HnswError): Promise<void> {
    this.#closed ??= error;
    for (const entry of this.#entries.splice(0)) entry.reject(error);
    await this.#running;
  }

  async #drain(): Promise<void> {
    // The caller goes on first: a change begins in a turn of its own.
    await Promise.resolve();
    for (let entry = this.#entries.shift(); entry !== undefined; entry = this.#entries.shift()) {
      await entry.run();
      await this.#housekeeping();
    }
    this.#running = undefined;
  }
}
