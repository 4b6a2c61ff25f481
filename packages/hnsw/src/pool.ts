import { availableParallelism } from "node:os";
import { badInput } from "./errors.ts";
import { defaultMaxQueuedCalls, defaultSpareMemoryBytes, maxThreads } from "./limits.ts";
import { Scheduler } from "./scheduler.ts";

export interface HnswPoolOptions {
  /** 1 to 16; default: as many as the machine runs at once. */
  threads?: number | undefined;
  /** Calls that may wait: searches of all indexes, and changes of each. More are refused as `overloaded`. */
  maxQueuedCalls?: number | undefined;
  /** Memory of closed indexes that is kept for the next ones, in bytes; that of the last one even if it is more. 0: none. */
  spareMemoryBytes?: number | undefined;
}

const schedulers = new WeakMap<HnswPool, Scheduler>();

function whole(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most)
    throw badInput(`${name} must be a whole number from ${least} to ${most}`);
  return value;
}

/** Threads that do the work of any number of indexes. They start with the first call and do not hold the process. */
export class HnswPool {
  readonly threads: number;

  constructor(options: HnswPoolOptions = {}) {
    const most = Number.MAX_SAFE_INTEGER;
    this.threads = whole(
      "threads",
      options.threads ?? Math.max(1, Math.min(maxThreads, availableParallelism())),
      1,
      maxThreads,
    );
    const calls = whole("maxQueuedCalls", options.maxQueuedCalls ?? defaultMaxQueuedCalls, 1, most);
    const spare = whole("spareMemoryBytes", options.spareMemoryBytes ?? defaultSpareMemoryBytes, 0, most);
    schedulers.set(this, new Scheduler(this.threads, calls, spare));
  }

  /** What is kept of closed indexes for the next ones: resident, but free. */
  get spareMemoryBytes(): number {
    return schedulerOf(this).memories.spareBytes;
  }

  /** Ends the threads. Calls that were not answered are rejected as `closed`, and so are later ones. */
  async close(): Promise<void> {
    await schedulerOf(this).close();
  }
}

export function schedulerOf(pool: HnswPool): Scheduler {
  const scheduler = schedulers.get(pool);
  if (scheduler === undefined) throw badInput("not a pool");
  return scheduler;
}

let shared: HnswPool | undefined;

/** The pool of all indexes that were given none. */
export function sharedPool(): HnswPool {
  if (shared === undefined || schedulerOf(shared).closed) shared = new HnswPool();
  return shared;
}
