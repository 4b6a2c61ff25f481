import { layOut, type RowKind, residentBytesFor, segmentSlots } from "./layout.ts";
import { defaultEfConstruction, defaultM, defaultSeed, maxThreads, noWord } from "./limits.ts";
import { type HnswOptions, rowsOf, shapeOf, wholeNumber } from "./options.ts";
import { sharedPool } from "./pool.ts";
import { instancesOf } from "./scheduler.ts";

/** Of the key map: 4 bytes at the lowest load. */
const keyBytes = 8;

export interface PlanOptions extends Pick<HnswOptions, "dim" | "m" | "metric" | "rows"> {
  /** Threads of the pool; default: of the shared one. */
  threads?: number | undefined;
  capacity: number;
}

export interface MemoryPlan {
  /** With `capacity` slots in use. */
  memoryBytes: number;
  /** What one more vector adds. */
  bytesPerVector: number;
  /** The most that 4 GiB hold. */
  maxSlots: number;
}

/** Bytes and limits, told in advance. Rows in a file take none of the memory. */
export function planMemory(options: PlanOptions): MemoryPlan {
  const { dim, metric, m } = shapeOf({ dim: options.dim, m: options.m, metric: options.metric });
  const threads = wholeNumber("threads", options.threads ?? sharedPool().threads, 1, maxThreads);
  const rows: RowKind = rowsOf(options.rows ?? "float32").kind;
  const layout = layOut({
    dim,
    metric,
    m: m ?? defaultM,
    efConstruction: defaultEfConstruction,
    seed: defaultSeed,
    rows,
    instances: instancesOf(threads),
  });
  const capacity = wholeNumber("capacity", options.capacity, 0, noWord);
  return {
    memoryBytes: residentBytesFor(layout, capacity) + capacity * keyBytes,
    bytesPerVector: layout.segmentBytes / segmentSlots + keyBytes,
    maxSlots: layout.maxSlots,
  };
}
