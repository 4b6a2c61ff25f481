// Rows that are written to their file before they are inserted: what waits for its turn is in no memory.
import type { FileHandle } from "node:fs/promises";
import { asHnswError, badInput, HnswError, throwIfAborted } from "./errors.ts";
import { rowAtInFile } from "./file/format.ts";
import type { Layout } from "./layout.ts";
import { spoolWriteBytes } from "./limits.ts";

export class Spool {
  readonly #handle: FileHandle;
  readonly #layout: Layout;
  #rows = 0;
  #last: Promise<unknown> = Promise.resolve();
  #isSealed = false;
  #isSaved = false;

  constructor(handle: FileHandle, layout: Layout) {
    this.#handle = handle;
    this.#layout = layout;
  }

  /** Rows that the file holds, from slot 0 on. */
  get rows(): number {
    return this.#rows;
  }

  /** The file is a saved one: it stays, and takes no more rows. */
  get isSaved(): boolean {
    return this.#isSaved;
  }

  markSaved(): void {
    this.#isSaved = true;
  }

  /** Refuses further rows; resolves once none is being written. */
  async seal(): Promise<void> {
    this.#isSealed = true;
    await this.#last;
  }

  unseal(): void {
    this.#isSealed = false;
  }

  /** Resolves once nothing is being written. */
  async idle(): Promise<void> {
    await this.#last;
  }

  /** Behind those that are there; calls write one after another. A failure leaves the file's rows as they were. */
  async append(vectors: Float32Array, signal: AbortSignal | undefined): Promise<void> {
    const written = this.#last.then(() => this.#write(vectors, signal));
    this.#last = written.catch(() => undefined);
    try {
      await written;
    } catch (error) {
      throw asHnswError(error);
    }
  }

  async #write(vectors: Float32Array, signal: AbortSignal | undefined): Promise<void> {
    const { dim, paddedDim, maxSlots } = this.#layout;
    const count = vectors.length / dim;
    if (this.#isSaved || this.#isSealed) throw badInput("the file of rows was saved and takes no more");
    if (this.#rows + count > maxSlots)
      throw new HnswError("full", `the index holds ${maxSlots} slots at most`);
    const rowBytes = 4 * paddedDim;
    const step = Math.max(1, Math.floor(spoolWriteBytes / rowBytes));
    for (let from = 0; from < count; from += step) {
      throwIfAborted(signal);
      const to = Math.min(count, from + step);
      const rows = vectors.subarray(from * dim, to * dim);
      const bytes = dim === paddedDim ? rows : padded(rows, dim, paddedDim);
      await this.#writeAll(bytes, rowAtInFile(this.#rows + from, rowBytes));
    }
    this.#rows += count;
  }

  async #writeAll({ buffer, byteOffset, byteLength }: Float32Array, position: number): Promise<void> {
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    for (let done = 0; done < byteLength; ) {
      const { bytesWritten } = await this.#handle.write(bytes, done, byteLength - done, position + done);
      if (bytesWritten === 0) throw new HnswError("failed", "a write to a file took nothing");
      done += bytesWritten;
    }
  }
}

function padded(rows: Float32Array, dim: number, paddedDim: number): Float32Array {
  const wide = new Float32Array((rows.length / dim) * paddedDim);
  for (let at = 0, row = 0; at < rows.length; at += dim, row += paddedDim)
    wide.set(rows.subarray(at, at + dim), row);
  return wide;
}
