import { totalmem } from "node:os";
import { type IndexMeta, LimError } from "@lim/contracts";
import type { EngineAdapter } from "@lim/vector-index";

const bytesPerId = 16;
const mebibyte = 1024 * 1024;

/** The machine's memory, or the cgroup's limit where it is lower. */
export function memoryTotalBytes(): number {
  const constrained = process.constrainedMemory();
  // Without a limit Node says 0, or a figure far above any machine.
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/** Upper estimate of the resident bytes of an index once loaded. */
export function estimateLoadBytes(
  engine: Pick<EngineAdapter, "estimateMemoryBytes">,
  meta: IndexMeta,
): number {
  const params = { m: meta.params.m, efConstruction: meta.params.ef_construction };
  const index = engine.estimateMemoryBytes({ dim: meta.dim, capacity: meta.slots, params });
  return index + meta.slots * bytesPerId;
}

/** Decides before loading whether an index fits; loads under way count with their estimate. */
export class MemoryBudget {
  readonly #limitBytes: number;
  readonly #residentBytes: () => number;
  #reservedBytes = 0;

  constructor(options: { limitBytes: number; residentBytes: () => number }) {
    this.#limitBytes = options.limitBytes;
    this.#residentBytes = options.residentBytes;
  }

  /** Throws `memory_limit`; else the returned function ends the reservation, to be called when the load has ended. */
  reserve(bytes: number): () => void {
    const resident = this.#residentBytes();
    const wanted = resident + this.#reservedBytes + bytes;
    if (wanted > this.#limitBytes) {
      const mib = (count: number) => Math.round(count / mebibyte);
      throw new LimError(
        "memory_limit",
        `${mib(bytes)} MiB to load beside ${mib(resident)} MiB resident and ${mib(this.#reservedBytes)} MiB being loaded ` +
          `would pass ${mib(this.#limitBytes)} MiB; raise LIM_MEMORY_LIMIT_RATIO or give the matcher more memory`,
      );
    }
    this.#reservedBytes += bytes;
    let held = true;
    return () => {
      if (held) this.#reservedBytes -= bytes;
      held = false;
    };
  }
}
