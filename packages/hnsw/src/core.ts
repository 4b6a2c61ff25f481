import type { FileHandle } from "node:fs/promises";
import { asHnswError, HnswError } from "./errors.ts";
import { KeyMap } from "./key-map.ts";
import type { Layout } from "./layout.ts";
import { keysPerStep } from "./limits.ts";
import type { PooledMemory } from "./memory-pool.ts";
import { BrokenWrite, type Scheduler } from "./scheduler.ts";
import { SearchLedger, SearchQueue, type Snapshot } from "./searches.ts";
import { Slots } from "./slots.ts";
import { Spool } from "./spool.ts";
import type { Attachment } from "./thread.ts";

/** What the parts of an index share on the main thread. */
export class IndexCore {
  readonly scheduler: Scheduler;
  readonly attachment: Attachment;
  readonly layout: Layout;
  readonly memory: PooledMemory;
  readonly slots: Slots;
  readonly keys: KeyMap;
  readonly ledger: SearchLedger;
  readonly searches: SearchQueue;
  /** File of full-precision rows. */
  readonly rowsHandle: FileHandle | undefined;
  /** Where rows are written to that file before they are inserted. */
  readonly spool: Spool | undefined;
  /** Newest version that searches may see. */
  committed = 0;
  closed = false;
  /** Why no further work is taken. */
  failure: HnswError | undefined;

  constructor(scheduler: Scheduler, attachment: Attachment, rowsHandle: FileHandle | undefined) {
    this.scheduler = scheduler;
    this.attachment = attachment;
    this.layout = attachment.layout;
    this.memory = attachment.memory;
    this.rowsHandle = rowsHandle;
    this.spool =
      rowsHandle !== undefined && attachment.rowsFile?.mode === "spooled"
        ? new Spool(rowsHandle, attachment.layout)
        : undefined;
    const slots = new Slots(attachment.memory, attachment.layout);
    this.slots = slots;
    this.keys = new KeyMap(slots.keyOf);
    const ledger: SearchLedger = new SearchLedger(() => this.freeSome());
    this.ledger = ledger;
    this.searches = new SearchQueue(scheduler, attachment, ledger);
  }

  ensureUsable(): void {
    if (this.closed) throw new HnswError("closed", "the index was closed");
    if (this.failure) throw this.failure;
    this.scheduler.ensureOpen();
  }

  snapshot(): Snapshot {
    return { version: this.committed, slots: this.slots.used, live: this.keys.size };
  }

  #freeing = false;
  /** Frees what no search can meet any more, in steps. */
  freeSome(): void {
    if (this.#freeing || this.closed) return;
    if (!this.slots.freeRetired(this.ledger.oldest, keysPerStep)) return;
    this.#freeing = true;
    setImmediate(() => {
      this.#freeing = false;
      this.freeSome();
    });
  }

  /** As `freeSome`; resolves once all of it is free. */
  async freeAll(): Promise<void> {
    while (this.slots.freeRetired(this.ledger.oldest, keysPerStep)) await pause();
  }

  /** What went wrong in a change, for its caller. Where the graph may be half written, no further work is taken. */
  failedBy(error: unknown): HnswError {
    if (!(error instanceof BrokenWrite)) return asHnswError(error);
    this.failure ??= new HnswError("failed", `a change broke off in the engine: ${error.message}`);
    return this.failure;
  }
}

/** Lets the event loop turn. */
export const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
