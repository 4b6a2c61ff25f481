// Hands jobs to threads. Searches have as many as the pool; slices of whatever writes, checks, saves or loads use those too
// while nobody searches. Beside searches they have one thread of their own, to which the system gives what the others leave,
// and those of the pool that are idle but for two.
import { HnswError } from "./errors.ts";
import { maxBatchQueries } from "./layout.ts";
import {
  besideNiceness,
  maxBatchesPerThread,
  maxSlicesBeside,
  minBatchQueries,
  searchQuietMs,
  sliceBytes,
  spareStagings,
  threadsKeptForSearches,
} from "./limits.ts";
import { MemoryPool } from "./memory-pool.ts";
import type { Job } from "./protocol.ts";
import { type Attachment, type PostedJob, Thread } from "./thread.ts";

/** Where searches of one index wait. */
export interface SearchSource {
  /** Queries that no thread has. */
  readonly waiting: number;
  take(maxQueries: number): PostedJob | undefined;
  /** Rejects what waits. */
  close(error: HnswError): void;
}

export interface WorkOptions {
  attachment: Attachment;
  /** Threads that may be at it at the same time. */
  threads: number;
  /** Whether a failure in the middle leaves the index broken. */
  writes: boolean;
  /** One slice; `beside` = it runs beside searches and holds none of them up, so it need not end early for them. */
  job(beside: boolean): Job;
  /** Answer of one slice; true = there is nothing more to start. */
  answered(value: unknown): boolean;
  /** Makes running slices end soon. */
  stop?(): void;
  signal?: AbortSignal | undefined;
}

interface Work extends WorkOptions {
  running: number;
  exhausted: boolean;
  error: HnswError | undefined;
  broken: boolean;
  settle(): void;
}

/** A thread broke while it wrote: the index cannot be trusted any more. */
export class BrokenWrite extends HnswError {}

/** Threads that may have an index of a pool open, each with a number below this. */
export const instancesOf = (threads: number): number => threads + 1;

export interface Staging {
  readonly rows: Float32Array;
}

export class Scheduler {
  readonly threads: number;
  readonly maxQueuedCalls: number;
  readonly memories: MemoryPool;
  /** Search calls that were not answered yet. */
  calls = 0;
  readonly #yieldWord = new Int32Array(new SharedArrayBuffer(4));
  readonly #threads: Thread[] = [];
  /** For work while searches come in. */
  readonly #beside: Thread;
  readonly #sources = new Set<SearchSource>();
  #works: Work[] = [];
  readonly #waiters = new Map<number, (() => void)[]>();
  readonly #stagings: Staging[] = [];
  #module: WebAssembly.Module | undefined;
  #due = false;
  #closed = false;
  #lastSearchMs = Number.NEGATIVE_INFINITY;

  constructor(threads: number, maxQueuedCalls: number, spareMemoryBytes: number) {
    this.threads = threads;
    this.maxQueuedCalls = maxQueuedCalls;
    this.memories = new MemoryPool(spareMemoryBytes, (id) => {
      for (const thread of this.#all()) thread.drop(id);
    });
    const freed = () => this.schedule();
    for (let i = 0; i < threads; i++) this.#threads.push(new Thread(i, this.#yieldWord, freed));
    this.#beside = new Thread(threads, this.#yieldWord, freed, besideNiceness);
  }

  get instances(): number {
    return instancesOf(this.threads);
  }

  *#all(): Generator<Thread> {
    yield* this.#threads;
    yield this.#beside;
  }

  get closed(): boolean {
    return this.#closed;
  }

  start(module: WebAssembly.Module): void {
    this.ensureOpen();
    this.#module = module;
  }

  ensureOpen(): void {
    if (this.#closed) throw new HnswError("closed", "the pool was closed");
  }

  addSource(source: SearchSource): void {
    this.#sources.add(source);
  }

  removeSource(source: SearchSource): void {
    this.#sources.delete(source);
  }

  noteSearch(): void {
    this.#lastSearchMs = performance.now();
    this.schedule();
  }

  /** Once the callers of this turn have all been heard, so that their queries travel together. */
  schedule(): void {
    if (this.#due || this.#closed) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      if (!this.#closed) this.#dispatch();
    });
  }

  /** Runs slices until one says that nothing is left. Rejects with the first error, once no slice runs any more. */
  work(options: WorkOptions): Promise<void> {
    this.ensureOpen();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const work: Work = {
      ...options,
      running: 0,
      exhausted: false,
      error: undefined,
      broken: false,
      settle: () => {
        options.signal?.removeEventListener("abort", onAbort);
        if (work.error?.code === "closed") reject(work.error);
        else if (work.broken && work.writes) reject(new BrokenWrite("failed", work.error?.message ?? "trap"));
        else if (work.error) reject(work.error);
        else resolve();
      },
    };
    const onAbort = () =>
      this.#stop(work, new HnswError("aborted", "aborted by the caller", { cause: options.signal?.reason }));
    if (options.signal?.aborted) onAbort();
    else options.signal?.addEventListener("abort", onAbort, { once: true });
    this.#works.push(work);
    this.#settleIfDone(work);
    this.schedule();
    return promise;
  }

  /** Ends what writes to an index. */
  cancel(attachment: Attachment, error: HnswError): void {
    for (const work of [...this.#works]) if (work.attachment === attachment) this.#stop(work, error);
  }

  /** Resolves once no thread has a job of this index; then threads forget it. */
  async detach(attachment: Attachment): Promise<void> {
    const has = ({ jobs }: Thread) => jobs.some((posted) => posted.attachment === attachment);
    while ([...this.#all()].some(has))
      await new Promise<void>((resolve) => {
        const waiters = this.#waiters.get(attachment.id) ?? [];
        waiters.push(resolve);
        this.#waiters.set(attachment.id, waiters);
      });
    for (const thread of this.#all()) thread.forget(attachment);
  }

  /** For tests: a thread that dies. */
  killThread(number: number): void {
    [...this.#all()][number]?.kill();
  }

  takeStaging(floats: number): Staging {
    const at = this.#stagings.findIndex(({ rows }) => rows.length >= floats);
    const spare = at < 0 ? undefined : this.#stagings.splice(at, 1)[0];
    return spare ?? { rows: new Float32Array(new SharedArrayBuffer(floats * 4)) };
  }

  giveStaging(staging: Staging): void {
    if (staging.rows.byteLength > sliceBytes) return;
    this.#stagings.unshift(staging);
    this.#stagings.length = Math.min(this.#stagings.length, spareStagings);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const error = new HnswError("closed", "the pool was closed");
    for (const work of [...this.#works]) this.#stop(work, error);
    for (const source of [...this.#sources]) source.close(error);
    await Promise.all([...this.#all()].map((thread) => thread.terminate()));
    this.memories.close();
    this.#wake();
  }

  #dispatch(): void {
    this.#wake();
    if (this.#module === undefined) return;
    const isQuiet = performance.now() - this.#lastSearchMs > searchQuietMs;
    // Where the system has no further thread to give, work takes turns with searches.
    const isBeside = !isQuiet && this.#works.length > 0 && this.#beside.start(this.#module);
    // On a machine of many cores one thread beside searches would leave the others with nothing to do.
    const kept = isBeside ? threadsKeptForSearches : 0;
    for (const thread of this.#threads)
      if (thread.idle && !this.#startSearch(thread) && this.#idleThreads() > kept) this.#startWork(thread);
    while (isBeside && this.#beside.ready && this.#beside.jobs.length < maxSlicesBeside)
      if (!this.#startWork(this.#beside)) break;
    for (const thread of this.#threads)
      while (
        thread.ready &&
        thread.jobs.length > 0 &&
        thread.jobs.length < maxBatchesPerThread &&
        thread.jobs.every(({ job }) => job.op === "search") &&
        this.#startSearch(thread)
      );
    Atomics.store(this.#yieldWord, 0, this.#waitingQueries() > 0 ? 1 : 0);
  }

  #idleThreads(): number {
    return this.#threads.reduce((sum, { idle }) => sum + (idle ? 1 : 0), 0);
  }

  #waitingQueries(): number {
    let sum = 0;
    for (const source of this.#sources) sum += source.waiting;
    return sum;
  }

  #startSearch(thread: Thread): boolean {
    // What waits is for the threads that have nothing yet; where all have some, for all.
    const idle = thread.idle ? this.#idleThreads() : this.threads;
    for (const source of this.#sources) {
      if (source.waiting === 0) continue;
      const posted = source.take(
        Math.min(maxBatchQueries, Math.max(minBatchQueries, Math.ceil(source.waiting / idle))),
      );
      if (posted === undefined) continue;
      this.#post(thread, posted);
      // To the end: every index gets its turn.
      if (this.#sources.size > 1) {
        this.#sources.delete(source);
        this.#sources.add(source);
      }
      return true;
    }
    return false;
  }

  /** A slice of the work that waits longest. */
  #startWork(thread: Thread): boolean {
    const work = this.#works.find((one) => !one.exhausted && one.running < one.threads);
    if (work === undefined) return false;
    this.#works = [...this.#works.filter((one) => one !== work), work];
    work.running++;
    const ended = () => {
      work.running--;
    };
    this.#post(thread, {
      attachment: work.attachment,
      owner: work,
      job: work.job(thread === this.#beside),
      done: (value) => {
        ended();
        try {
          if (work.answered(value)) work.exhausted = true;
        } catch (error) {
          work.exhausted = true;
          work.error ??= new HnswError("failed", "an answer could not be taken", { cause: error });
        }
        this.#settleIfDone(work);
      },
      failed: (error, broken) => {
        ended();
        work.broken ||= broken;
        // It may have held locks that others of its work wait for, without end.
        if (broken && work.writes)
          for (const other of this.#all()) if (other.jobs.some(({ owner }) => owner === work)) other.kill();
        this.#stop(work, error);
      },
    });
    return true;
  }

  #stop(work: Work, error: HnswError): void {
    work.error ??= error;
    work.exhausted = true;
    work.stop?.();
    this.#settleIfDone(work);
  }

  #settleIfDone(work: Work): void {
    if (!work.exhausted || work.running > 0 || !this.#works.includes(work)) return;
    this.#works = this.#works.filter((one) => one !== work);
    work.settle();
  }

  #post(thread: Thread, posted: PostedJob): void {
    if (this.#module === undefined) return;
    try {
      thread.post(this.#module, posted);
    } catch (error) {
      posted.failed(new HnswError("failed", "a job could not be posted", { cause: error }), false);
    }
  }

  #wake(): void {
    for (const [id, waiters] of this.#waiters) {
      this.#waiters.delete(id);
      for (const wake of waiters) wake();
    }
  }
}
