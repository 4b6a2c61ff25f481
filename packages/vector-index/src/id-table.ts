import { LimError, readUuid, uuidBytes, writeUuid } from "@lim/contracts";

const empty = -1;
const tombstone = -2;

/**
 * Face ids of positions, and the way back: 16 bytes a position and an open-addressing table of positions (4 bytes
 * a slot, at most half full), about 28 bytes a face where a Map of strings takes over 100.
 */
export class IdTable {
  /** Positions whose id is known by `find`. */
  live = 0;
  private bytes: Uint8Array;
  private words: Uint32Array;
  private table: Int32Array;
  private used = 0;
  private readonly scratch = new Uint8Array(uuidBytes);
  private readonly scratchWords = new Uint32Array(this.scratch.buffer);

  constructor(capacity: number) {
    this.bytes = new Uint8Array(Math.max(capacity, 16) * uuidBytes);
    this.words = new Uint32Array(this.bytes.buffer);
    this.table = new Int32Array(tableSize(capacity)).fill(empty);
  }

  get byteLength(): number {
    return this.bytes.byteLength + this.table.byteLength;
  }

  /** Position of a face, undefined where it has none. Throws `bad_input` on text that is no UUID. */
  find(faceId: string): number | undefined {
    writeUuid(faceId, this.scratch);
    return this.lookUp(this.scratchWords, 0);
  }

  findBytes(ids: Uint8Array, row: number): number | undefined {
    this.scratch.set(ids.subarray(row * uuidBytes, (row + 1) * uuidBytes));
    return this.lookUp(this.scratchWords, 0);
  }

  textOf(position: number): string {
    return readUuid(this.bytes, position * uuidBytes);
  }

  idBytes(position: number): Uint8Array {
    return this.bytes.subarray(position * uuidBytes, (position + 1) * uuidBytes);
  }

  /** Writes the id of a position without making it findable: see `link`. */
  write(position: number, id: Uint8Array): void {
    this.reserve(position + 1);
    this.bytes.set(id, position * uuidBytes);
  }

  writeText(position: number, faceId: string): void {
    writeUuid(faceId, this.scratch);
    this.write(position, this.scratch);
  }

  /** Copies ids of positions 0, 1, … without making them findable: see `linkNew`. */
  writeAll(ids: Uint8Array): void {
    this.reserve(Math.ceil(ids.length / uuidBytes));
    this.bytes.set(ids);
  }

  isZero(position: number): boolean {
    const { words } = this;
    const at = position * 4;
    return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0 && words[at + 3] === 0;
  }

  /** As `link`, but false, and nothing changes, where another position is found for the id already. */
  linkNew(position: number): boolean {
    if ((this.used + 1) * 2 > this.table.length) this.rehash();
    const slot = this.slotOf(this.words, position * 4);
    if ((this.table[slot] as number) !== empty) return false;
    this.used++;
    this.live++;
    this.table[slot] = position;
    return true;
  }

  /** Makes `find` return this position for its id, instead of an earlier one if there was. */
  link(position: number): void {
    if ((this.used + 1) * 2 > this.table.length) this.rehash();
    const slot = this.slotOf(this.words, position * 4);
    if ((this.table[slot] as number) === empty) {
      this.used++;
      this.live++;
    }
    this.table[slot] = position;
  }

  unlink(position: number): void {
    const slot = this.slotOf(this.words, position * 4);
    if (this.table[slot] !== position) return;
    this.table[slot] = tombstone;
    this.live--;
  }

  private lookUp(key: Uint32Array, at: number): number | undefined {
    const held = this.table[this.slotOf(key, at)] as number;
    return held < 0 ? undefined : held;
  }

  /** The slot that holds the key, or the empty one where its chain ends. */
  private slotOf(key: Uint32Array, at: number): number {
    const mask = this.table.length - 1;
    let slot = hash(key, at) & mask;
    for (;;) {
      const held = this.table[slot] as number;
      if (held === empty) return slot;
      if (held >= 0 && this.equal(held * 4, key, at)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  private equal(own: number, key: Uint32Array, at: number): boolean {
    const { words } = this;
    return (
      words[own] === key[at] &&
      words[own + 1] === key[at + 1] &&
      words[own + 2] === key[at + 2] &&
      words[own + 3] === key[at + 3]
    );
  }

  private reserve(positions: number): void {
    if (positions * uuidBytes <= this.bytes.length) return;
    const grown = new Uint8Array(
      Math.max(positions, Math.ceil((this.bytes.length / uuidBytes) * 1.5)) * uuidBytes,
    );
    grown.set(this.bytes);
    this.bytes = grown;
    this.words = new Uint32Array(grown.buffer);
  }

  private rehash(): void {
    const old = this.table;
    this.table = new Int32Array(tableSize(this.live + 1)).fill(empty);
    this.used = 0;
    this.live = 0;
    for (const position of old) {
      if (position < 0) continue;
      this.table[this.slotOf(this.words, position * 4)] = position;
      this.used++;
      this.live++;
    }
  }
}

function tableSize(entries: number): number {
  let size = 64;
  while (size < entries * 3) size *= 2;
  return size;
}

function hash(key: Uint32Array, at: number): number {
  let mixed = 0x9e3779b9;
  for (let i = 0; i < 4; i++) {
    mixed = Math.imul(mixed ^ (key[at + i] as number), 0x85ebca6b);
    mixed ^= mixed >>> 15;
  }
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

export function assertIdBytes(ids: Uint8Array, rows: number): void {
  if (ids.length !== rows * uuidBytes)
    throw new LimError(
      "bad_input",
      `${ids.length} bytes of ids for ${rows} rows, expected ${rows * uuidBytes}`,
    );
}

export function isZeroId(ids: Uint8Array, row: number): boolean {
  for (let i = row * uuidBytes; i < (row + 1) * uuidBytes; i++) if (ids[i] !== 0) return false;
  return true;
}
