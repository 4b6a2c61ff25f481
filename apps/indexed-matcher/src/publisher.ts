import type { LabelAnnouncer, Log, MatchConsumer } from "@lim/coordination";
import type { Registry } from "./registry.ts";

/** While a label is being refreshed, its key is set at most this often. */
const announceEveryMs = 300;

/**
 * Tells the outside what the registry holds: the streams that are read, and the label keys. A key is set only after
 * its label's stream is read, and withdrawn before reading ends (I8).
 */
export class Publisher {
  readonly #registry: Registry;
  readonly #consumer: Pick<MatchConsumer, "setLabels">;
  readonly #announcer: LabelAnnouncer;
  readonly #log: Log;
  readonly #reading = new Set<string>();
  readonly #announced = new Set<string>();
  readonly #timers = new Map<string, NodeJS.Timeout>();
  #turn: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: {
    registry: Registry;
    consumer: Pick<MatchConsumer, "setLabels">;
    announcer: LabelAnnouncer;
    log: Log;
  }) {
    this.#registry = options.registry;
    this.#consumer = options.consumer;
    this.#announcer = options.announcer;
    this.#log = options.log;
  }

  /** Reads the label's stream, then sets its key. */
  async serve(label: string): Promise<void> {
    this.#reading.add(label);
    await this.#setLabels();
    this.#announced.add(label);
    await this.announce(label);
  }

  /** Withdraws the key, then stops reading; resolves when the label's running batch has ended. */
  async withdraw(label: string): Promise<void> {
    this.#announced.delete(label);
    this.#clearTimer(label);
    await this.#announcer.withdraw(label).catch((thrown: unknown) => {
      this.#log.warn(
        { label, reason: String(thrown) },
        "label key expires by itself, Redis did not take its end",
      );
    });
    this.#reading.delete(label);
    await this.#setLabels();
  }

  /** Sets the label's key to what is served now. */
  async announce(label: string): Promise<void> {
    this.#clearTimer(label);
    const holder = this.#registry.slot(label)?.current;
    if (this.#closed || !holder || !this.#announced.has(label)) return;
    const { meta, keyed, revision } = holder;
    await this.#announcer.announce(label, {
      index_id: meta.index_id,
      revision,
      descriptor_version: meta.descriptor_version,
      dim: meta.dim,
      count: keyed.count,
      engine: meta.engine.name,
    });
  }

  /** The same within `announceEveryMs`, once however often it is asked for. */
  announceSoon(label: string): void {
    if (this.#closed || this.#timers.has(label)) return;
    this.#timers.set(
      label,
      setTimeout(() => void this.announce(label), announceEveryMs),
    );
  }

  /** Withdraws every key. Reading goes on until the consumer is closed. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const label of [...this.#timers.keys()]) this.#clearTimer(label);
    await this.#announcer.close();
  }

  #setLabels(): Promise<void> {
    const result = this.#turn.then(async () => {
      if (this.#closed) return;
      await this.#consumer.setLabels([...this.#reading]);
    });
    this.#turn = result.catch(() => {});
    return result;
  }

  #clearTimer(label: string): void {
    clearTimeout(this.#timers.get(label));
    this.#timers.delete(label);
  }
}
