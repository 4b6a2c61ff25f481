import type { HnswIndex } from "@lim/hnsw";
import type { Latency } from "./figures.ts";
import type { Writer, WriterArgs, WriterFigures } from "./protocol.ts";
import { readRows } from "./vector-file.ts";

/** Rows of one call of the writer. */
const callRows: Record<Writer, number> = { none: 0, bulk: 1_000, packets: 10 };

/** Latencies of one searcher while one thread adds as fast as it can (or while nobody writes). */
export async function besideWriter(
  index: HnswIndex,
  args: WriterArgs,
  search: () => Promise<Latency>,
): Promise<WriterFigures> {
  const vectors = readRows(args.rowsPath, index.dim, args.from, args.count);
  let isSearching = true;
  let added = 0;
  const write = async () => {
    const step = callRows[args.writer];
    if (step === 0) return;
    for (let at = 0; isSearching; at = (at + step) % args.count) {
      const count = Math.min(step, args.count - at);
      const keys = Uint32Array.from({ length: count }, (_, i) => args.from + at + i);
      const rows = vectors.subarray(at * index.dim, (at + count) * index.dim);
      await index.upsert(keys, rows, { threads: 1 });
      added += count;
    }
  };
  const startedMs = performance.now();
  const writing = write();
  try {
    const latency = await search();
    const addedPerS = (added / (performance.now() - startedMs)) * 1000;
    return { ...latency, addedPerS };
  } finally {
    isSearching = false;
    await writing;
  }
}
