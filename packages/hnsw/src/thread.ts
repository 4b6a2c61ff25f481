import { Worker } from "node:worker_threads";
import { errorFrom, HnswError } from "./errors.ts";
import type { Layout } from "./layout.ts";
import type { PooledMemory } from "./memory-pool.ts";
import type { FromThread, Job, ToThread, WorkerStart } from "./protocol.ts";
import type { RowsFile } from "./rows-file.ts";

/** An index as threads open it. */
export interface Attachment {
  readonly id: number;
  readonly memory: PooledMemory;
  readonly layout: Layout;
  readonly rowsFile: RowsFile | undefined;
}

export interface PostedJob {
  readonly attachment: Attachment;
  readonly job: Job;
  readonly transfer?: ArrayBuffer[];
  /** The piece of work that this is a slice of. */
  readonly owner?: object;
  done(value: unknown): void;
  /** `died` = the thread is gone, in the middle of the job perhaps; `trap` = the sandbox trapped. */
  failed(error: HnswError, broken: boolean): void;
}

let lastAttachment = 0;
export function newAttachment(
  memory: PooledMemory,
  layout: Layout,
  rowsFile: RowsFile | undefined,
): Attachment {
  lastAttachment++;
  return { id: lastAttachment, memory, layout, rowsFile };
}

/** One worker: started with its first job, again after it died; holds the process only while it has jobs. */
export class Thread {
  readonly number: number;
  readonly #yieldWord: Int32Array;
  readonly #freed: () => void;
  readonly #niceness: number;
  #worker: Worker | undefined;
  #dying = false;
  readonly #jobs: PostedJob[] = [];
  #opened = new Set<number>();
  #memories = new Set<number>();

  constructor(number: number, yieldWord: Int32Array, freed: () => void, niceness = 0) {
    this.number = number;
    this.#yieldWord = yieldWord;
    this.#freed = freed;
    this.#niceness = niceness;
  }

  get jobs(): readonly PostedJob[] {
    return this.#jobs;
  }

  /** Whether it takes jobs: not while it is being ended. */
  get ready(): boolean {
    return !this.#dying;
  }

  get idle(): boolean {
    return this.ready && this.#jobs.length === 0;
  }

  /** Ends it in the middle of whatever it does; once it has stopped its jobs fail as those of a thread that died. */
  kill(): void {
    if (this.#worker === undefined || this.#dying) return;
    this.#dying = true;
    void this.#worker.terminate();
  }

  /** False where the system has no thread to give; then it is worth trying again. */
  start(module: WebAssembly.Module): boolean {
    try {
      this.#worker ??= this.#start(module);
      return true;
    } catch {
      return false;
    }
  }

  post(module: WebAssembly.Module, posted: PostedJob): void {
    this.#worker ??= this.#start(module);
    const { attachment } = posted;
    if (!this.#opened.has(attachment.id)) {
      const { id, memory, layout, rowsFile } = attachment;
      this.#send({
        op: "open",
        index: id,
        memoryId: memory.id,
        memory: this.#memories.has(memory.id) ? undefined : memory.memory,
        layout,
        rowsFile,
      });
      this.#opened.add(id);
      this.#memories.add(memory.id);
    }
    this.#send(posted.job, posted.transfer);
    if (this.#jobs.push(posted) === 1) this.#worker.ref();
  }

  forget(attachment: Attachment): void {
    if (this.#opened.delete(attachment.id)) this.#send({ op: "close", index: attachment.id });
  }

  drop(memoryId: number): void {
    if (this.#memories.delete(memoryId)) this.#send({ op: "drop", memoryId });
  }

  async terminate(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    if (worker !== undefined) {
      this.#abandon(new HnswError("closed", "the pool was closed"));
      await worker.terminate();
    }
  }

  #send(message: ToThread, transfer: ArrayBuffer[] = []): void {
    this.#worker?.postMessage(message, transfer);
  }

  #start(module: WebAssembly.Module): Worker {
    const file = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js";
    const workerData: WorkerStart = {
      module,
      thread: this.number,
      yieldWord: this.#yieldWord,
      niceness: this.#niceness,
    };
    // The process' own flags may not fit a worker (--input-type, --test).
    const worker = new Worker(new URL(file, import.meta.url), { workerData, execArgv: [], name: "hnsw" });
    worker.on("message", (message: FromThread) => {
      if (this.#worker === worker) this.#answered(message);
    });
    // After the listener, with which the process is held again.
    worker.unref();
    // Only when it has stopped does it no longer write: whatever went wrong, its exit counts.
    let cause: unknown;
    const ends = (error: unknown) => {
      cause ??= error;
      if (this.#worker === worker) this.kill();
    };
    worker.on("error", ends);
    worker.on("messageerror", ends);
    worker.on("exit", (code) => this.#ended(worker, cause ?? code));
    return worker;
  }

  #answered(message: FromThread): void {
    const posted = this.#jobs.shift();
    if (this.#jobs.length === 0) this.#worker?.unref();
    if (message.ok) posted?.done(message.value);
    else posted?.failed(errorFrom(message.error), message.error.trap);
    this.#freed();
  }

  #ended(worker: Worker, cause: unknown): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    this.#dying = false;
    this.#abandon(new HnswError("failed", "a thread of the engine died", { cause }));
    this.#freed();
  }

  #abandon(error: HnswError): void {
    this.#opened = new Set();
    this.#memories = new Set();
    for (const posted of this.#jobs.splice(0)) posted.failed(error, true);
  }
}
