import { throwIfAborted } from "../errors.ts";
import type { FilePlan, Section } from "./format.ts";

/**
 * What a thread reads or writes before it is asked again: between two slices other work of the pool gets its turn, and a
 * search that comes while an index is loaded waits for one of them.
 */
const sliceBytes = 1024 * 1024;

export interface Slice {
  from: number;
  to: number;
}

/** Consecutive chunks of a file, about `sliceBytes` at a time; sections for which `wanted` is false are left out. */
export function* slicesOf(
  plan: FilePlan,
  wanted: (section: Section) => boolean = () => true,
): Generator<Slice> {
  for (const section of plan.sections) {
    if (!wanted(section)) continue;
    const bytes = section.itemBytes * section.itemsPerChunk;
    const chunks = Math.max(1, Math.floor(sliceBytes / bytes));
    const end = section.firstChunk + section.chunks;
    for (let from = section.firstChunk; from < end; from += chunks)
      yield { from, to: Math.min(end, from + chunks) };
  }
}

/**
 * Runs the slices, as many at a time as there are threads. After a failure no further ones are begun, and those that
 * run are awaited: they use a memory that is given back.
 */
export async function inParallel(
  { threads, signal }: { threads: number; signal: AbortSignal | undefined },
  slices: readonly Slice[],
  run: (slice: Slice) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  let failed = false;
  const work = async (): Promise<void> => {
    for (let slice = slices[next++]; slice !== undefined && !failed; slice = slices[next++]) {
      try {
        throwIfAborted(signal);
        await run(slice);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: Math.min(threads, slices.length) }, work));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}
