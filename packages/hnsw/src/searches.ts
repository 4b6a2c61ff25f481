// Searches of one index: they wait here for a thread, in the order of the calls, and travel in batches.
import { checkVectors } from "./check-vectors.ts";
import { abortedError, badInput, errorFrom, HnswError, throwIfAborted } from "./errors.ts";
import { type Layout, maxBatchQueries, maxResults } from "./layout.ts";
import {
  autoExactEfShare,
  autoExactSize,
  defaultEf,
  maxCallResults,
  minDefaultDepth,
  noWord,
} from "./limits.ts";
import { type Cancellable, wholeNumber } from "./options.ts";
import type { SearchItem, SearchMode, SearchReply } from "./protocol.ts";
import type { Scheduler, SearchSource } from "./scheduler.ts";
import type { Attachment, PostedJob } from "./thread.ts";

export interface SearchOptions extends Cancellable {
  /** Results of a query, at most. */
  k: number;
  /** Candidates that the graph's search keeps: more find more. Default 64; k at least. */
  ef?: number | undefined;
  /** How many of the best are ranked again by full precision; 0 = none. Default: 2 k, at least 32, at most ef. */
  depth?: number | undefined;
  /** Allowed keys as a bitmap: bit k & 7 of byte k >> 3. Read at the call. */
  filter?: Uint8Array | undefined;
  /**
   * true = all vectors are compared, by 8 bits, then re-ranked; "rows" = by the full-precision rows in memory; false =
   * by the graph, and where it leads to fewer than there are, by comparing all. Default: that, unless the vectors or
   * those that the filter allows are few.
   */
  exact?: boolean | "rows" | undefined;
}

export interface SearchResult {
  k: number;
  /** Results of each query. */
  counts: Uint32Array;
  /** queries × k, nearest first; 0xffffffff after a query's last. */
  keys: Uint32Array;
  /** Dot product (cosine, ip: larger is nearer) or squared distance (l2); NaN after a query's last. */
  scores: Float32Array;
}

/** What a search may see, fixed at its call. */
export interface Snapshot {
  version: number;
  slots: number;
  live: number;
}

interface Call {
  number: number;
  queries: Float32Array;
  count: number;
  item: Omit<SearchItem, "count">;
  result: SearchResult;
  /** Queries that were handed to threads, and answers that are due. */
  taken: number;
  running: number;
  answered: number;
  settled: boolean;
  resolve(): void;
  reject(error: HnswError): void;
}

/** Searches that have not ended: what they can still meet must not be used again. */
export class SearchLedger {
  /** Version of each; in the order of their numbers, so that versions ascend. */
  readonly #running = new Map<number, number>();
  #next = 1;
  #waiters: { after: number; resolve: () => void }[] = [];
  readonly #ended: () => void;

  constructor(ended: () => void) {
    this.#ended = ended;
  }
  /** Number of the next search. */
  get next(): number {
    return this.#next;
  }
  /** Every search below has ended. */
  get oldest(): number {
    for (const number of this.#running.keys()) return number;
    return this.#next;
  }
  /** Lowest version that some search sees; undefined when none runs. */
  get oldestVersion(): number | undefined {
    for (const version of this.#running.values()) return version;
    return undefined;
  }
  begin(version: number): number {
    this.#running.set(this.#next, version);
    return this.#next++;
  }
  end(number: number): void {
    this.#running.delete(number);
    const { oldest } = this;
    const ready = this.#waiters.filter(({ after }) => after <= oldest);
    this.#waiters = this.#waiters.filter(({ after }) => after > oldest);
    for (const { resolve } of ready) resolve();
    this.#ended();
  }
  /** Resolves once every search numbered below `after` has ended. */
  drained(after: number): Promise<void> {
    if (after <= this.oldest) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ after, resolve }));
  }
}

let lastFilter = 0;

export class SearchQueue implements SearchSource {
  readonly #scheduler: Scheduler;
  readonly #attachment: Attachment;
  readonly #layout: Layout;
  readonly #ledger: SearchLedger;
  #calls: Call[] = [];
  #waiting = 0;

  constructor(scheduler: Scheduler, attachment: Attachment, ledger: SearchLedger) {
    this.#scheduler = scheduler;
    this.#attachment = attachment;
    this.#layout = attachment.layout;
    this.#ledger = ledger;
    scheduler.addSource(this);
  }

  get waiting(): number {
    return this.#waiting;
  }

  async search(queries: Float32Array, options: SearchOptions, snapshot: Snapshot): Promise<SearchResult> {
    const count = checkQueries(queries, this.#layout.dim);
    const item = itemOf(options, snapshot, this.#layout, this.#attachment.rowsFile !== undefined);
    const { k } = item;
    if (count * k > maxCallResults) throw badInput(`queries × k must not exceed ${maxCallResults}`);
    throwIfAborted(options.signal);
    const scheduler = this.#scheduler;
    scheduler.ensureOpen();
    // Those of a few are copied, so that the caller's array is free again; a long list is checked as it is sent.
    const few = count <= maxBatchQueries;
    if (few) checkVectors("query", queries, this.#layout, 0, count);
    if (scheduler.calls >= scheduler.maxQueuedCalls)
      throw new HnswError("overloaded", `${scheduler.calls} calls wait already`);
    const result: SearchResult = {
      k,
      counts: new Uint32Array(count),
      keys: new Uint32Array(count * k),
      scores: new Float32Array(count * k),
    };
    if (count === 0) return result;
    await this.#enter(few ? queries.slice() : queries, count, item, result, options.signal);
    return result;
  }

  #enter(
    queries: Float32Array,
    count: number,
    item: Call["item"],
    result: SearchResult,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const scheduler = this.#scheduler;
    const onAbort = () => {
      if (signal) this.#drop(call, abortedError(signal));
    };
    const settle = (then: () => void) => {
      if (call.settled) return;
      call.settled = true;
      scheduler.calls--;
      signal?.removeEventListener("abort", onAbort);
      then();
    };
    const call: Call = {
      number: this.#ledger.begin(item.version),
      queries,
      count,
      item,
      result,
      taken: 0,
      running: 0,
      answered: 0,
      settled: false,
      resolve: () => settle(resolve),
      reject: (error) => settle(() => reject(error)),
    };
    scheduler.calls++;
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#calls.push(call);
    this.#waiting += count;
    scheduler.noteSearch();
    return promise;
  }

  /** No more of it is handed out; what threads have of it still runs. */
  #drop(call: Call, error: HnswError): void {
    if (call.taken < call.count) {
      this.#waiting -= call.count - call.taken;
      call.taken = call.count;
      this.#calls = this.#calls.filter((one) => one !== call);
    }
    call.reject(error);
    if (call.running === 0) this.#ledger.end(call.number);
  }

  take(maxQueries: number): PostedJob | undefined {
    const parts: { call: Call; from: number; count: number }[] = [];
    let room = maxQueries;
    for (let call = this.#calls[0]; call !== undefined && room > 0; call = this.#calls[0]) {
      const count = Math.min(room, call.count - call.taken);
      const from = call.taken;
      try {
        if (call.count > maxBatchQueries)
          checkVectors("query", call.queries, this.#layout, from, from + count);
      } catch (error) {
        this.#drop(call, error as HnswError);
        continue;
      }
      parts.push({ call, from, count });
      call.taken += count;
      call.running++;
      this.#waiting -= count;
      room -= count;
      if (call.taken === call.count) this.#calls.shift();
    }
    const { dim } = this.#layout;
    const queries = new Float32Array((maxQueries - room) * dim);
    const items: SearchItem[] = [];
    let at = 0;
    for (const { call, from, count } of parts) {
      queries.set(call.queries.subarray(from * dim, (from + count) * dim), at * dim);
      items.push({ ...call.item, count });
      at += count;
    }
    if (at === 0) return undefined;
    return {
      attachment: this.#attachment,
      job: { op: "search", index: this.#attachment.id, queries, items },
      transfer: [queries.buffer],
      done: (value) => {
        const reply = value as SearchReply;
        let word = 0;
        parts.forEach((part, item) => {
          const failure = reply.failures.find((one) => one.item === item);
          if (failure) this.#drop(part.call, errorFrom(failure.error));
          else fill(part.call.result, part.from, part.count, reply.words, word);
          word += part.count * (1 + 2 * part.call.result.k);
          this.#delivered(part.call, part.count);
        });
      },
      failed: (error) => {
        for (const { call, count } of parts) {
          this.#drop(call, error);
          this.#delivered(call, count);
        }
      },
    };
  }

  #delivered(call: Call, count: number): void {
    call.running--;
    call.answered += count;
    if (call.answered === call.count) call.resolve();
    if (call.running === 0 && call.taken === call.count) this.#ledger.end(call.number);
  }

  close(error: HnswError): void {
    this.#scheduler.removeSource(this);
    for (const call of [...this.#calls]) this.#drop(call, error);
  }
}

function checkQueries(queries: unknown, dim: number): number {
  if (!(queries instanceof Float32Array)) throw badInput("queries must be a Float32Array");
  if (queries.length % dim !== 0) throw badInput(`queries must hold a multiple of ${dim} components`);
  return queries.length / dim;
}

function itemOf(
  options: SearchOptions,
  snapshot: Snapshot,
  layout: Layout,
  hasFile: boolean,
): Omit<SearchItem, "count"> {
  if (typeof options !== "object" || options === null) throw badInput("options are missing");
  const { filter, exact } = options;
  const k = wholeNumber("k", options.k, 1, maxResults);
  const ef = Math.max(k, wholeNumber("ef", options.ef ?? defaultEf, 1, maxResults));
  if (filter !== undefined && !(filter instanceof Uint8Array)) throw badInput("filter must be a Uint8Array");
  if (filter !== undefined && filter.length > layout.filterBytes)
    throw badInput(`a filter has ${layout.filterBytes} bytes at most`);
  if (exact !== undefined && typeof exact !== "boolean" && exact !== "rows")
    throw badInput('exact must be true, false or "rows"');
  if (exact === "rows" && layout.rows === "none") throw badInput("there are no rows in memory");
  const few = snapshot.live < autoExactSize || ef >= snapshot.live * autoExactEfShare;
  const mode: SearchMode =
    exact === "rows" ? "rows" : exact === true ? "scan" : exact === false ? "graph" : few ? "scan" : "auto";
  const usual = Math.max(2 * k, minDefaultDepth);
  const wanted = options.depth ?? (mode === "scan" ? usual : Math.min(ef, usual));
  const depth = wholeNumber("depth", Math.min(wanted, maxResults), 0, maxResults);
  return {
    k,
    ef,
    depth: layout.rows === "none" && !hasFile ? 0 : depth,
    slots: snapshot.slots,
    version: snapshot.version,
    live: snapshot.live,
    mode,
    filter: filter === undefined ? undefined : sharedFilter(filter),
  };
}

/** A copy that all threads can read. */
function sharedFilter(filter: Uint8Array): { id: number; bytes: Uint8Array } {
  const bytes = new Uint8Array(new SharedArrayBuffer(filter.length));
  bytes.set(filter);
  lastFilter++;
  return { id: lastFilter, bytes };
}

function fill(result: SearchResult, from: number, count: number, words: Uint32Array, at: number): void {
  const { k, counts, keys, scores } = result;
  counts.set(words.subarray(at, at + count), from);
  keys.set(words.subarray(at + count, at + count * (1 + k)), from * k);
  const start = words.byteOffset + 4 * (at + count * (1 + k));
  scores.set(new Float32Array(words.buffer, start, count * k), from * k);
  for (let i = 0; i < count; i++) {
    const end = (from + i) * k + (counts[from + i] as number);
    keys.fill(noWord, end, (from + i + 1) * k);
    scores.fill(Number.NaN, end, (from + i + 1) * k);
  }
}
