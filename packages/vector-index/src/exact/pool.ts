import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { LimError } from "@lim/contracts";
import { vectorIndexLimits } from "../limits.ts";
import type { Chunk, ScanResult, ScanTask } from "./scan.ts";
import type { ExactReply, ExactRequest } from "./worker.ts";

/** Memory of one exact index, as the pool sees it. */
export interface ChunkSource {
  readonly dim: number;
  readonly chunkRows: number;
  readonly chunks: readonly Chunk[];
}

/** One query as it waits: it is answered as of `version`, over `rows` rows. */
export interface WaitingQuery {
  source: ChunkSource;
  query: Float32Array;
  limit: number;
  threshold: number;
  rows: number;
  version: number;
  done: (result: ScanResult) => void;
  failed: (error: LimError) => void;
}

interface Scanner {
  worker: Worker;
  /** Chunks that this thread has been given, by index. */
  given: Map<ChunkSource, { indexId: number; chunks: number }>;
  batch: WaitingQuery[] | undefined;
}

const maxThreads = Math.max(1, Math.min(2, availableParallelism()));

/** Threads that all exact indexes of a process share; started by the first search, ended with the last index. */
class ScanPool {
  private scanners: Scanner[] = [];
  private waiting: WaitingQuery[] = [];
  private users = 0;
  private nextIndexId = 1;

  register(): void {
    this.users++;
  }

  /** Ends what the index still has waiting; with the last index the threads end too. */
  async release(source: ChunkSource): Promise<void> {
    const closed = new LimError("aborted", "the index was closed");
    const own = this.waiting.filter((query) => query.source === source);
    this.waiting = this.waiting.filter((query) => query.source !== source);
    for (const query of own) query.failed(closed);
    for (const scanner of this.scanners) {
      const given = scanner.given.get(source);
      scanner.given.delete(source);
      if (given) scanner.worker.postMessage({ op: "forget", indexId: given.indexId } satisfies ExactRequest);
    }
    this.users--;
    if (this.users === 0) await this.terminateThreads();
  }

  /** Ends all threads; what they were at fails, and the next search starts new ones. */
  async terminateThreads(): Promise<void> {
    const ending = this.scanners;
    // Taken out first, so that a search that begins meanwhile gets a thread that lives.
    this.scanners = [];
    await Promise.all(ending.map((scanner) => scanner.worker.terminate()));
  }

  /** Queues queries of one call; all or none. */
  enqueue(queries: readonly WaitingQuery[]): void {
    if (this.waiting.length + queries.length > vectorIndexLimits.maxWaitingExactQueries)
      throw new LimError(
        "overloaded",
        `more than ${vectorIndexLimits.maxWaitingExactQueries} queries wait for exact search`,
      );
    for (const query of queries) this.waiting.push(query);
    this.pump();
  }

  /** Takes out those that still wait; returns how many. */
  cancel(queries: ReadonlySet<WaitingQuery>): number {
    const before = this.waiting.length;
    this.waiting = this.waiting.filter((query) => !queries.has(query));
    return before - this.waiting.length;
  }

  private pump(): void {
    while (this.waiting.length > 0) {
      const idle = this.scanners.find((scanner) => !scanner.batch) ?? this.start();
      if (!idle) return;
      this.send(idle, this.takeBatch());
    }
  }

  /** Queries at the head that see the same version of the same index: one pass over the data answers them. */
  private takeBatch(): WaitingQuery[] {
    const head = this.waiting[0] as WaitingQuery;
    const most = Math.min(
      vectorIndexLimits.exactBatchQueries,
      Math.max(1, Math.floor(vectorIndexLimits.exactBatchProducts / Math.max(1, head.rows))),
      // Leaves a share for the other thread.
      Math.max(1, Math.ceil(this.waiting.length / maxThreads)),
    );
    let count = 1;
    while (count < most) {
      const next = this.waiting[count];
      if (next?.source !== head.source || next.version !== head.version) break;
      count++;
    }
    return this.waiting.splice(0, count);
  }

  private send(scanner: Scanner, batch: WaitingQuery[]): void {
    const { source, rows, version } = batch[0] as WaitingQuery;
    let given = scanner.given.get(source);
    if (!given) {
      given = { indexId: this.nextIndexId++, chunks: 0 };
      scanner.given.set(source, given);
    }
    const newChunks = source.chunks.slice(given.chunks);
    given.chunks = source.chunks.length;
    const queries = new Float32Array(batch.length * source.dim);
    batch.forEach((waiting, i) => {
      queries.set(waiting.query, i * source.dim);
    });
    const task: ScanTask = {
      dim: source.dim,
      chunkRows: source.chunkRows,
      rows,
      version,
      queries,
      limits: Uint32Array.from(batch, (waiting) => waiting.limit),
      thresholds: Float64Array.from(batch, (waiting) => waiting.threshold),
    };
    scanner.batch = batch;
    scanner.worker.ref();
    const request: ExactRequest = { op: "scan", indexId: given.indexId, newChunks, task };
    scanner.worker.postMessage(request, [queries.buffer]);
  }

  private start(): Scanner | undefined {
    if (this.scanners.length >= maxThreads) return undefined;
    const worker = new Worker(
      new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js", import.meta.url),
      // Flags of the process that make no sense for a thread (--input-type) would end it.
      { name: "lim-exact", execArgv: [] },
    );
    worker.unref();
    const scanner: Scanner = { worker, given: new Map(), batch: undefined };
    this.scanners.push(scanner);
    worker.on("message", (reply: ExactReply) => {
      const batch = scanner.batch ?? [];
      scanner.batch = undefined;
      worker.unref();
      batch.forEach((query, i) => {
        const result = reply.ok ? reply.results[i] : undefined;
        if (result) query.done(result);
        else
          query.failed(new LimError("engine_failed", reply.ok ? "exact search lost a query" : reply.detail));
      });
      this.pump();
    });
    const lost = (detail: string) => {
      this.scanners = this.scanners.filter((other) => other !== scanner);
      const batch = scanner.batch ?? [];
      scanner.batch = undefined;
      for (const query of batch) query.failed(new LimError("engine_failed", detail));
      this.pump();
    };
    worker.on("error", (cause) => lost(`exact search's thread failed: ${String(cause)}`));
    worker.on("exit", (code) => lost(`exact search's thread ended with exit code ${code}`));
    return scanner;
  }
}

export const scanPool = new ScanPool();
