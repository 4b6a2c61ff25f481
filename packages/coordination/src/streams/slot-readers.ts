import type { Keys } from "../keys.ts";
import type { Log } from "../log.ts";
import type { RedisConnection } from "../port.ts";
import { slotOf } from "../slots.ts";
import { type ReaderOwner, StreamReader } from "./reader.ts";

interface SlotReader {
  labels: Set<string>;
  reader: StreamReader;
  /** Ends its reading while the others go on. */
  stop: AbortController;
}

/**
 * The readers of a consumer in a Redis Cluster: one for each slot that its streams lie in, as one XREADGROUP reads keys
 * of one slot only. Each has a connection of its own, which follows its slot from node to node.
 */
export class SlotReaders {
  readonly #options: ConstructorParameters<typeof StreamReader>[0];
  readonly #keys: Keys;
  readonly #owner: ReaderOwner;
  readonly #slots = new Map<number, SlotReader>();
  /** What `start` needs while `run` is on. */
  #running: { signal: AbortSignal; reads: Set<Promise<void>>; fail: (thrown: unknown) => void } | undefined;

  constructor(options: {
    redis: RedisConnection;
    keys: Keys;
    consumerName: string;
    owner: ReaderOwner;
    log: Log | undefined;
  }) {
    this.#options = options;
    this.#keys = options.keys;
    this.#owner = options.owner;
  }

  /** See StreamReader. Without a label also: the set of labels changed. */
  wake(label?: string): void {
    if (label !== undefined) {
      this.#slots.get(this.#slotOf(label))?.reader.wake(label);
      return;
    }
    this.#follow();
    for (const { reader } of this.#slots.values()) reader.wake();
  }

  async createGroups(labels: readonly string[]): Promise<void> {
    this.#follow();
    const bySlot = Map.groupBy(labels, (label) => this.#slotOf(label));
    await Promise.all([...bySlot].map(([slot, own]) => this.#slots.get(slot)?.reader.createGroups(own)));
  }

  async run(signal: AbortSignal): Promise<void> {
    const reads = new Set<Promise<void>>();
    try {
      this.#follow();
      await new Promise<void>((resolve, reject) => {
        if (signal.aborted) return resolve();
        signal.addEventListener("abort", () => resolve(), { once: true });
        this.#running = { signal, reads, fail: reject };
        for (const slot of this.#slots.values()) this.#start(slot);
      });
      await Promise.all(reads);
    } finally {
      this.#running = undefined;
    }
  }

  #slotOf(label: string): number {
    return slotOf(this.#keys.matchStream(label));
  }

  /** Brings the readers in line with the owner's labels. */
  #follow(): void {
    const wanted = Map.groupBy(this.#owner.labels(), (label) => this.#slotOf(label));
    for (const [slot, { stop }] of this.#slots) {
      if (wanted.has(slot)) continue;
      this.#slots.delete(slot);
      stop.abort();
    }
    for (const [slot, labels] of wanted) {
      const known = this.#slots.get(slot);
      if (known) known.labels = new Set(labels);
      else this.#add(slot, labels);
    }
  }

  #add(slot: number, labels: readonly string[]): void {
    const added: SlotReader = {
      labels: new Set(labels),
      stop: new AbortController(),
      reader: new StreamReader({
        ...this.#options,
        owner: {
          labels: () => added.labels,
          plan: () => {
            const plan = this.#owner.plan();
            return { ...plan, labels: plan.labels.filter((label) => added.labels.has(label)) };
          },
          take: (label, entries) => this.#owner.take(label, entries),
        },
      }),
    };
    this.#slots.set(slot, added);
    this.#start(added);
  }

  #start({ reader, stop }: SlotReader): void {
    const running = this.#running;
    if (!running || running.signal.aborted) return;
    const read = reader.run(AbortSignal.any([running.signal, stop.signal]));
    running.reads.add(read);
    read.then(() => running.reads.delete(read), running.fail);
  }
}
