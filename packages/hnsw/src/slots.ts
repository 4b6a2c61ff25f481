// Which slots are in use: those below the high-water mark that are not free. A slot that was removed is dead until a
// sweep took it out of the graph, then retired until every search begun before has ended, then free.
import { HnswError } from "./errors.ts";
import { addressOf, type Layout, memoryBytesFor, residentBytesFor, segmentSlots } from "./layout.ts";
import { keysPerStep, noWord } from "./limits.ts";
import { growTo, type PooledMemory } from "./memory-pool.ts";

const segmentMask = segmentSlots - 1;

interface Retired {
  slots: Uint32Array;
  /** Searches numbered below may still meet them. */
  after: number;
}

export class Slots {
  readonly layout: Layout;
  readonly #memory: PooledMemory;
  #words: Uint32Array;
  readonly #firstWord: number;
  readonly #segmentWords: number;
  #used = 0;
  #free: number[] = [];
  #dead: number[] = [];
  #retired: Retired[] = [];

  constructor(memory: PooledMemory, layout: Layout) {
    this.layout = layout;
    this.#memory = memory;
    this.#words = new Uint32Array(memory.memory.buffer);
    this.#firstWord = layout.segmentsAt / 4;
    this.#segmentWords = layout.segmentBytes / 4;
  }

  /** High-water mark. */
  get used(): number {
    return this.#used;
  }
  get dead(): number {
    return this.#dead.length;
  }
  get retired(): number {
    return this.#retired.reduce((sum, { slots }) => sum + slots.length, 0);
  }
  get free(): number {
    return this.#free.length;
  }
  /** Slots that the memory holds as it is. */
  get capacity(): number {
    const bytes = this.#memory.memory.buffer.byteLength - this.layout.segmentsAt;
    return Math.min(this.layout.maxSlots, Math.floor(bytes / this.layout.segmentBytes) * segmentSlots);
  }
  /** Slots that can be allocated before anything is swept. */
  get available(): number {
    return this.layout.maxSlots - this.#used + this.#free.length;
  }

  #word(array: "key" | "born" | "died", slot: number): number {
    const segment = this.#firstWord + Math.floor(slot / segmentSlots) * this.#segmentWords;
    return segment + this.layout.at[array] / 4 + (slot & segmentMask);
  }
  keyOf = (slot: number): number => this.#words[this.#word("key", slot)] as number;
  bornOf(slot: number): number {
    return this.#words[this.#word("born", slot)] as number;
  }
  diedOf(slot: number): number {
    return this.#words[this.#word("died", slot)] as number;
  }
  setBorn(slot: number, version: number): void {
    Atomics.store(this.#words, this.#word("born", slot), version);
  }
  setDied(slot: number, version: number): void {
    Atomics.store(this.#words, this.#word("died", slot), version);
  }

  isVisible(slot: number, version: number): boolean {
    return this.bornOf(slot) <= version && version < this.diedOf(slot);
  }

  /** Gives slots to keys, born with `version`; `full` when they are too many. Nothing is given then. */
  allocate(keys: ArrayLike<number>, version: number): Uint32Array {
    const count = keys.length;
    if (count > this.available)
      throw new HnswError("full", `the index holds ${this.layout.maxSlots} slots at most; none are left`);
    const fresh = Math.max(0, count - this.#free.length);
    this.#extend(this.#used + fresh);
    const slots = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      const slot = this.#free.pop() ?? this.#used++;
      slots[i] = slot;
      this.#words[this.#word("key", slot)] = keys[i] as number;
      this.setDied(slot, noWord);
      this.setBorn(slot, version);
    }
    return slots;
  }

  /** A free slot again, at once: for slots that no link leads to. */
  release(slot: number): void {
    this.setBorn(slot, noWord);
    this.setDied(slot, 0);
    this.#words[this.#word("key", slot)] = noWord;
    this.#free.push(slot);
  }

  /** Ends a slot's life with `version`; nothing frees it before `bury`. */
  bury(slot: number): void {
    this.#dead.push(slot);
  }

  /** Slots that no search of `version` or later sees. */
  deadAt(version: number): number {
    return this.#dead.reduce((sum, slot) => sum + (this.diedOf(slot) <= version ? 1 : 0), 0);
  }

  /** Those that a sweep of `version` took out wait until the searches numbered below `after` have ended. */
  retireDead(version: number, after: number): void {
    const swept = this.#dead.filter((slot) => this.diedOf(slot) <= version);
    if (swept.length === 0) return;
    this.#dead = this.#dead.filter((slot) => this.diedOf(slot) > version);
    for (let from = 0; from < swept.length; from += keysPerStep)
      this.#retired.push({ slots: Uint32Array.from(swept.slice(from, from + keysPerStep)), after });
  }

  /** Frees what no search numbered below `oldest` can meet, about `most` slots. Whether there are more. */
  freeRetired(oldest: number, most: number): boolean {
    let freed = 0;
    for (;;) {
      const batch = this.#retired[0];
      if (batch === undefined || batch.after > oldest) return false;
      if (freed >= most) return true;
      for (const slot of batch.slots) this.release(slot);
      freed += batch.slots.length;
      this.#retired.shift();
    }
  }

  /** Grows the memory for `slots` slots in all, and makes new segments empty. */
  #extend(slots: number): void {
    this.reserve(slots);
    const segments = Math.ceil(slots / segmentSlots);
    for (let segment = Math.ceil(this.#used / segmentSlots); segment < segments; segment++)
      this.#empty(segment, 0);
    this.#noteTouched(slots);
  }

  reserve(slots: number): void {
    growTo(this.#memory.memory, memoryBytesFor(this.layout, Math.min(slots, this.layout.maxSlots)));
    if (this.#words.buffer !== this.#memory.memory.buffer)
      this.#words = new Uint32Array(this.#memory.memory.buffer);
  }

  /** A memory that was used before holds anything: words of slots that are not in use say so. */
  #empty(segment: number, from: number): void {
    const buffer = this.#memory.memory.buffer;
    const slot = segment * segmentSlots + from;
    const array = (name: "lock" | "born" | "died" | "key") =>
      new Uint32Array(buffer, addressOf(this.layout, name, slot, 4), segmentSlots - from);
    array("lock").fill(0);
    array("born").fill(noWord);
    array("died").fill(0);
    array("key").fill(noWord);
  }

  #noteTouched(slots: number): void {
    const sizeBytes = residentBytesFor(this.layout, slots);
    this.#memory.touchedBytes = Math.max(this.#memory.touchedBytes, sizeBytes);
  }

  /** Takes over what a file filled: live slots go to `each`, the others are free. In steps, `pause` between them. */
  async adopt(used: number, each: (slot: number) => void, step: number, pause: () => Promise<void>) {
    this.#used = used;
    this.#noteTouched(used);
    if (used % segmentSlots !== 0) this.#empty(Math.floor(used / segmentSlots), used % segmentSlots);
    for (let slot = 0; slot < used; slot++) {
      if (slot % step === step - 1) await pause();
      if (slot % segmentSlots === 0)
        new Uint32Array(
          this.#memory.memory.buffer,
          addressOf(this.layout, "lock", slot, 4),
          segmentSlots,
        ).fill(0);
      if (this.diedOf(slot) === noWord && this.bornOf(slot) !== noWord) each(slot);
      else this.release(slot);
    }
    this.#free.reverse();
  }
}
