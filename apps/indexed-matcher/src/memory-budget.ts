import { totalmem } from "node:os";
import { type IndexMeta, LimError } from "@lim/contracts";
import type { EngineAdapter } from "@lim/vector-index";

const bytesPerId = 16;
const mebibyte = 1024 * 1024;
const mib = (bytes: number) => Math.round(bytes / mebibyte);

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
  slots = meta.slots,
): number {
  const params = { m: meta.params.m, efConstruction: meta.params.ef_construction };
  const index = engine.estimateMemoryBytes({ dim: meta.dim, capacity: slots, params });
  return index + slots * bytesPerId;
}

/** Resident bytes that one more face takes, on average of many. */
export function bytesPerFace(engine: Pick<EngineAdapter, "estimateMemoryBytes">, meta: IndexMeta): number {
  const many = 16_384;
  return (estimateLoadBytes(engine, meta, 2 * many) - estimateLoadBytes(engine, meta, many)) / many;
}

/** Where a process stands. `spareBytes`: resident, but kept of closed indexes for the next ones. */
export interface MemoryState {
  limitBytes: number;
  totalBytes: number;
  residentBytes: number;
  spareBytes: number;
}

export interface MemoryUsage {
  /** Past it nothing is loaded, and no index grows. */
  limit: number;
  /** Of this process, without `spare`. */
  resident: number;
  spare: number;
  /** Of loads under way, estimated. */
  reserved: number;
}

/**
 * Decides before loading whether an index fits, and before a packet of changes whether an index may grow; loads under way
 * count with their estimate. Spare memory is used again by a load, but never by growth: it counts against a ceiling midway
 * between the limit and all there is, so that growth beside it does not meet the end of the memory.
 */
export class MemoryBudget {
  readonly #state: () => MemoryState;
  #reservedBytes = 0;

  constructor(state: () => MemoryState) {
    this.#state = state;
  }

  usage(): MemoryUsage {
    const { limitBytes, residentBytes, spareBytes } = this.#state();
    return {
      limit: Math.floor(limitBytes),
      resident: Math.max(0, Math.ceil(residentBytes - spareBytes)),
      spare: Math.floor(spareBytes),
      reserved: Math.ceil(this.#reservedBytes),
    };
  }

  /**
   * Throws `memory_limit` unless `bytes` more can be loaded, once `freedBytes` are given back; else the returned function
   * ends the reservation, to be called when the load has ended.
   */
  reserve(bytes: number): () => void {
    this.assertFits(bytes);
    return this.reserveAnyway(bytes);
  }

  /** For what had its place before, or was seen to fit once something else was dropped. */
  reserveAnyway(bytes: number): () => void {
    this.#reservedBytes += bytes;
    let held = true;
    return () => {
      if (held) this.#reservedBytes -= bytes;
      held = false;
    };
  }

  /** `freedBytes`: what is given back before. */
  assertFits(bytes: number, freedBytes = 0): void {
    const { limit, resident, spare, reserved } = this.usage();
    const wanted = Math.max(0, resident - freedBytes) + reserved + bytes;
    const beyondSpare = resident + spare + reserved + Math.max(0, bytes - spare - freedBytes);
    if (wanted <= limit && beyondSpare <= this.#ceilingBytes()) return;
    throw new LimError(
      "memory_limit",
      `${mib(bytes)} MiB to load beside ${mib(resident)} MiB resident, ${mib(spare)} MiB spare and ${mib(reserved)} MiB ` +
        `being loaded would pass ${mib(limit)} MiB; raise LIM_MEMORY_LIMIT_RATIO or give the matcher more memory`,
    );
  }

  /** Throws `memory_limit` unless loaded indexes may grow by `bytes`. The text is the same each time. */
  assertMayGrow(bytes: number): void {
    const { limit, resident, spare } = this.usage();
    if (resident + bytes <= limit && resident + spare + bytes <= this.#ceilingBytes()) return;
    throw new LimError(
      "memory_limit",
      `following the list would pass the limit of ${mib(limit)} MiB; raise LIM_MEMORY_LIMIT_RATIO or give the matcher more memory`,
    );
  }

  #ceilingBytes(): number {
    const { limitBytes, totalBytes } = this.#state();
    return (limitBytes + Math.max(limitBytes, totalBytes)) / 2;
  }
}
