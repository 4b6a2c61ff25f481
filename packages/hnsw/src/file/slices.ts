import type { FilePlan, Section } from "./format.ts";

/** What a thread reads or writes before it is asked again: between two slices other work of the pool gets its turn. */
const sliceBytes = 8 * 1024 * 1024;

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
