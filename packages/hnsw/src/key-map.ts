const shardBits = 8;
const shards = 1 << shardBits;
const empty = 0;
const firstSize = 8;
const maxLoad = 0.8;
const growth = 1.5;
/** Entries that are reserved for a key: tables fill unevenly, by about the root of what they hold. */
const reserveShare = 1.4;

function mix(key: number): number {
  let h = key ^ (key >>> 16);
  h = Math.imul(h, 0x7feb352d);
  h ^= h >>> 15;
  h = Math.imul(h, 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * Slot of a key. Only slots are held (keys lie with the slots), 4 bytes each at a load between 0.53 and 0.8. Many small
 * tables by hash, so that none takes long to grow.
 */
export class KeyMap {
  readonly #keyOf: (slot: number) => number;
  /** Slot + 1, or 0. */
  readonly #tables: Uint32Array[] = [];
  readonly #counts = new Uint32Array(shards);
  #size = 0;

  constructor(keyOf: (slot: number) => number) {
    this.#keyOf = keyOf;
    for (let i = 0; i < shards; i++) this.#tables.push(new Uint32Array(firstSize));
  }

  get size(): number {
    return this.#size;
  }

  get sizeBytes(): number {
    return this.#tables.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Makes room for about `count` keys at once. For an empty map: growing later takes several times as long. */
  reserve(count: number): void {
    if (this.#size > 0) return;
    const wanted = Math.ceil((count / shards) * reserveShare) + firstSize;
    for (let i = 0; i < shards; i++) this.#tables[i] = new Uint32Array(wanted);
  }

  /** -1 when there is none. */
  get(key: number): number {
    const hash = mix(key);
    const table = this.#table(hash);
    for (let i = home(hash, table.length); ; i = i + 1 === table.length ? 0 : i + 1) {
      const entry = table[i] as number;
      if (entry === empty) return -1;
      if (this.#keyOf(entry - 1) === key) return entry - 1;
    }
  }

  /** Returns the slot that the key had before, or -1. */
  set(key: number, slot: number): number {
    const hash = mix(key);
    const shard = hash >>> (32 - shardBits);
    let table = this.#table(hash);
    if ((this.#counts[shard] as number) + 1 > table.length * maxLoad) table = this.#grow(shard);
    for (let i = home(hash, table.length); ; i = i + 1 === table.length ? 0 : i + 1) {
      const entry = table[i] as number;
      if (entry === empty) {
        table[i] = slot + 1;
        this.#counts[shard] = (this.#counts[shard] as number) + 1;
        this.#size++;
        return -1;
      }
      if (this.#keyOf(entry - 1) === key) {
        table[i] = slot + 1;
        return entry - 1;
      }
    }
  }

  /** Returns the slot that the key had, or -1. The slot's key must still be there. */
  delete(key: number): number {
    const hash = mix(key);
    const table = this.#table(hash);
    const size = table.length;
    let at = home(hash, size);
    for (; ; at = at + 1 === size ? 0 : at + 1) {
      const entry = table[at] as number;
      if (entry === empty) return -1;
      if (this.#keyOf(entry - 1) === key) break;
    }
    const slot = (table[at] as number) - 1;
    // What follows moves up unless it lies at or after its home: no holes, no tombstones.
    for (let i = at + 1 === size ? 0 : at + 1; ; i = i + 1 === size ? 0 : i + 1) {
      const entry = table[i] as number;
      if (entry === empty) break;
      const from = home(mix(this.#keyOf(entry - 1)), size);
      if ((i - from + size) % size < (i - at + size) % size) continue;
      table[at] = entry;
      at = i;
    }
    table[at] = empty;
    const shard = hash >>> (32 - shardBits);
    this.#counts[shard] = (this.#counts[shard] as number) - 1;
    this.#size--;
    return slot;
  }

  #table(hash: number): Uint32Array {
    return this.#tables[hash >>> (32 - shardBits)] as Uint32Array;
  }

  #grow(shard: number): Uint32Array {
    const before = this.#tables[shard] as Uint32Array;
    const table = new Uint32Array(Math.ceil(before.length * growth));
    for (const entry of before) {
      if (entry === empty) continue;
      let i = home(mix(this.#keyOf(entry - 1)), table.length);
      while (table[i] !== empty) i = i + 1 === table.length ? 0 : i + 1;
      table[i] = entry;
    }
    this.#tables[shard] = table;
    return table;
  }
}

/** By the bits that do not choose the table. */
function home(hash: number, size: number): number {
  return Math.floor((((hash << shardBits) >>> 0) / 2 ** 32) * size);
}
