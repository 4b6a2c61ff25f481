import { readSync } from "node:fs";
import { HnswError, type PlainError, plainError } from "./errors.ts";
import { autoExactAllowedPerEf } from "./limits.ts";
import type { SearchItem, SearchJob, SearchReply } from "./protocol.ts";
import { type Opened, rowBytesInFile, rowPosition } from "./worker-index.ts";

function countBits(words: Uint32Array): number {
  let bits = 0;
  for (const word of words) {
    let v = word - ((word >>> 1) & 0x55555555);
    v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
    bits += Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  }
  return bits;
}

/** Puts the bitmap where the engine reads it, unless it lies there already. */
function setFilter(opened: Opened, filter: { id: number; bytes: Uint8Array }): void {
  if (opened.filterId === filter.id) return;
  const { exports, memory } = opened;
  const size = filter.bytes.length;
  const at = exports.filterAt.value;
  const target = new Uint8Array(memory.buffer, at, Math.max(size, opened.filterBytes));
  target.set(filter.bytes);
  target.fill(0, size);
  opened.filterId = filter.id;
  opened.filterBytes = size;
  opened.allowed = countBits(new Uint32Array(memory.buffer, at, Math.ceil(size / 4)));
}

function isExact(opened: Opened, item: SearchItem): boolean {
  if (item.mode !== "auto") return item.mode !== "graph";
  return item.filter !== undefined && opened.allowed < item.ef * autoExactAllowedPerEf;
}

/** What there is to be found, at most: keys that the filter allows may be gone. */
function wantedOf(opened: Opened, { live, filter }: SearchItem): number {
  return filter === undefined ? live : Math.min(live, opened.allowed);
}

/** Re-rank by rows in a file. */
function searchWithFile(
  opened: Opened,
  item: SearchItem,
  index: number,
  { rows, exact }: { rows: number; exact: boolean },
): number {
  const { exports, memory, layout } = opened;
  const { k, ef, depth, slots, version } = item;
  const filtered = item.filter !== undefined;
  const n = exports.collect(index, k, ef, depth, slots, version, filtered, exact);
  const rowBytes = rowBytesInFile(layout);
  const scratch = new Uint8Array(memory.buffer, exports.rowScratchAt.value, rowBytes);
  for (let i = 0; i < n; i++) {
    const read = readSync(rows, scratch, 0, rowBytes, rowPosition(layout, exports.candidate(i)));
    if (read !== rowBytes) throw new HnswError("failed", "the file of rows is too short");
    exports.rescore(i, index);
  }
  return exports.finish(n, k);
}

/** `exact`: all are compared, else the graph is followed. */
function searchOne(opened: Opened, item: SearchItem, index: number, exact: boolean): number {
  const { exports, rows } = opened;
  const { k, ef, depth, slots, version } = item;
  const filtered = item.filter !== undefined;
  if (item.mode === "rows") return exports.scanRows(index, k, slots, version, filtered);
  if (rows !== undefined && depth > 0) return searchWithFile(opened, item, index, { rows, exact });
  return exact
    ? exports.scan(index, k, depth, slots, version, filtered)
    : exports.search(index, k, ef, depth, slots, version, filtered);
}

export function runSearch(opened: Opened, job: SearchJob): SearchReply {
  const { exports, memory, layout } = opened;
  const { dim, paddedDim } = layout;
  const total = job.items.reduce((sum, { count, k }) => sum + count * (1 + 2 * k), 0);
  const words = new Uint32Array(total);
  const failures: { item: number; error: PlainError }[] = [];
  const queriesAt = exports.queriesAt.value;
  const queries = new Float32Array(memory.buffer, queriesAt, paddedDim * (job.queries.length / dim));
  const setQuery = (i: number) => queries.set(job.queries.subarray(i * dim, (i + 1) * dim), i * paddedDim);
  for (let i = 0; i * dim < job.queries.length; i++) setQuery(i);
  let query = 0;
  let at = 0;
  job.items.forEach((item, number) => {
    const { count, k } = item;
    try {
      if (item.filter !== undefined) setFilter(opened, item.filter);
      const exact = isExact(opened, item);
      const wanted = wantedOf(opened, item);
      for (let i = 0; i < count; i++) {
        let n = searchOne(opened, item, query + i, exact);
        // Links to what was removed give way to new ones, also where a search of an earlier state would still need them.
        // A walk that came to its end has met all that it could: to compare all costs little more.
        if (!exact && exports.reached.value < wanted) {
          setQuery(query + i);
          n = searchOne(opened, item, query + i, true);
        }
        words[at + i] = n;
        words.set(
          new Uint32Array(memory.buffer, exports.outKeysAt.value, Math.min(n, k)),
          at + count + i * k,
        );
        words.set(
          new Uint32Array(memory.buffer, exports.outScoresAt.value, Math.min(n, k)),
          at + count + (count + i) * k,
        );
      }
    } catch (error) {
      failures.push({ item: number, error: plainError(error) });
    }
    query += count;
    at += count * (1 + 2 * k);
  });
  return { words, failures };
}
