// A dropped shared memory is given back late, so a process that replaces its indexes would grow without bound. Retired
// memories are kept and used again.
import { HnswError } from "./errors.ts";
import { memoryLimitBytes, pageBytes } from "./layout.ts";

export interface PooledMemory {
  readonly id: number;
  readonly memory: WebAssembly.Memory;
  /** The most that was written in any of its lives: what it holds of the machine's memory. */
  touchedBytes: number;
}

let lastId = 0;

const pagesFor = (sizeBytes: number): number => Math.ceil(sizeBytes / pageBytes);

export function growTo(memory: WebAssembly.Memory, sizeBytes: number): void {
  const missing = pagesFor(sizeBytes) - memory.buffer.byteLength / pageBytes;
  if (missing <= 0) return;
  try {
    memory.grow(missing);
  } catch (cause) {
    throw new HnswError("full", `no memory of ${sizeBytes} bytes can be had`, { cause });
  }
}

export class MemoryPool {
  readonly #spareBytes: number;
  readonly #onDrop: (id: number) => void;
  #closed = false;
  /** Oldest first. */
  #spare: PooledMemory[] = [];

  constructor(spareBytes: number, onDrop: (id: number) => void) {
    this.#spareBytes = spareBytes;
    this.#onDrop = onDrop;
  }

  get spareBytes(): number {
    return this.#spare.reduce((sum, { touchedBytes }) => sum + touchedBytes, 0);
  }

  get spares(): number {
    return this.#spare.length;
  }

  /**
   * A memory of at least `sizeBytes`: the smallest spare one that is large enough, else the largest, grown, else a new
   * one. A spare one still holds the bytes of its last index.
   */
  take(sizeBytes: number): PooledMemory {
    let best: PooledMemory | undefined;
    for (const one of this.#spare) {
      const size = one.memory.buffer.byteLength;
      const bestSize = best?.memory.buffer.byteLength ?? 0;
      const better =
        best === undefined ||
        (size >= sizeBytes
          ? bestSize < sizeBytes || size < bestSize
          : bestSize < sizeBytes && size > bestSize);
      if (better) best = one;
    }
    if (best !== undefined) {
      growTo(best.memory, sizeBytes);
      this.#spare = this.#spare.filter((one) => one !== best);
      return best;
    }
    try {
      const memory = new WebAssembly.Memory({
        initial: pagesFor(sizeBytes),
        maximum: memoryLimitBytes / pageBytes,
        shared: true,
      });
      lastId++;
      return { id: lastId, memory, touchedBytes: 0 };
    } catch (cause) {
      throw new HnswError("full", `no memory of ${sizeBytes} bytes can be had`, { cause });
    }
  }

  /**
   * No thread may be at work in it any more. It is kept even if it alone is more than what may be spare: whoever replaces
   * one large index again and again would otherwise drop one large memory after the other.
   */
  giveBack(memory: PooledMemory): void {
    this.#spare.push(memory);
    const least = this.#closed || this.#spareBytes === 0 ? 0 : 1;
    while (this.#spare.length > least && (this.#closed || this.spareBytes > this.#spareBytes)) {
      const dropped = this.#spare.shift();
      if (dropped) this.#onDrop(dropped.id);
    }
  }

  /** What is given back from now on is dropped. */
  close(): void {
    this.#closed = true;
    for (const { id } of this.#spare) this.#onDrop(id);
    this.#spare = [];
  }
}
