// How an index comes to be and goes: its memory, its working file, its threads.
import { type FileHandle, open, unlink } from "node:fs/promises";
import { IndexCore, pause } from "./core.ts";
import { engineModule } from "./engine.ts";
import { asHnswError, badInput, HnswError, throwIfAborted } from "./errors.ts";
import { loadIndex } from "./file/index.ts";
import type { IndexState, RunInPool } from "./index-state.ts";
import { type Layout, layOut, memoryBytesFor, segmentSlots, writeControl } from "./layout.ts";
import { keysPerStep } from "./limits.ts";
import type { PooledMemory } from "./memory-pool.ts";
import {
  type Cancellable,
  checkPool,
  type HnswOptions,
  type LoadedRowsOption,
  rowsOf,
  shapeOf,
  wholeNumber,
} from "./options.ts";
import { type HnswPool, schedulerOf, sharedPool } from "./pool.ts";
import type { RowsFile } from "./rows-file.ts";
import type { Scheduler } from "./scheduler.ts";
import { type Attachment, newAttachment } from "./thread.ts";

async function started(pool: HnswPool | undefined): Promise<Scheduler> {
  const scheduler = schedulerOf(pool ?? sharedPool());
  scheduler.ensureOpen();
  scheduler.start(await engineModule());
  return scheduler;
}

async function openRows(file: RowsFile | undefined, isNew: boolean): Promise<FileHandle | undefined> {
  if (file === undefined) return undefined;
  try {
    if (isNew) return await open(file.path, "w+", file.mode === "private" ? 0o600 : 0o666);
    return await open(file.path, file.mode === "in place" ? "r" : "r+");
  } catch (error) {
    throw asHnswError(error);
  }
}

export async function createCore(options: HnswOptions & Cancellable): Promise<IndexCore> {
  const { file, ...shape } = shapeOf(options);
  throwIfAborted(options.signal);
  const scheduler = await started(options.pool);
  const layout = layOut({ ...shape, instances: scheduler.instances });
  const capacity = wholeNumber("capacity", options.capacity ?? segmentSlots, 0, layout.maxSlots);
  const rowsHandle = await openRows(file, true);
  try {
    throwIfAborted(options.signal);
    scheduler.ensureOpen();
    const memory = scheduler.memories.take(memoryBytesFor(layout, capacity));
    writeControl(memory.memory, layout);
    return new IndexCore(scheduler, newAttachment(memory, layout, file), rowsHandle);
  } catch (error) {
    await letGo(rowsHandle, file);
    throw error;
  }
}

/** Closes the file of rows, and deletes it unless it is someone else's. */
async function letGo(handle: FileHandle | undefined, file: RowsFile | undefined): Promise<void> {
  if (handle === undefined || file === undefined) return;
  await handle.close();
  if (file.mode !== "in place") await unlink(file.path).catch(() => undefined);
}

export interface LoadIndexOptions extends Cancellable {
  pool?: HnswPool | undefined;
  /** Default: as they were when the index was saved. */
  rows?: LoadedRowsOption | undefined;
  /** Where `save` wrote the rows, if not into the same file. */
  rowsPath?: string | undefined;
  capacity?: number | undefined;
}

/** A step of saving or loading in some thread. */
export function runnerFor(
  scheduler: Scheduler,
  attachment: Attachment,
  signal: AbortSignal | undefined,
): RunInPool {
  return async (step, argument) => {
    let result: unknown;
    await scheduler.work({
      attachment,
      threads: 1,
      writes: false,
      signal,
      job: () => ({ op: "file", index: attachment.id, step, argument }),
      answered: (value) => {
        result = value;
        return true;
      },
    });
    return result;
  };
}

export async function loadCore(path: string, options: LoadIndexOptions): Promise<IndexCore> {
  if (typeof path !== "string" || path === "") throw badInput("path is missing");
  checkPool(options.pool);
  if (options.rows !== undefined) rowsOf(options.rows, options.rowsPath);
  throwIfAborted(options.signal);
  const scheduler = await started(options.pool);
  const taken: PooledMemory[] = [];
  const attachments: Attachment[] = [];
  const attach = (memory: WebAssembly.Memory, layout: Layout, rowsFile: RowsFile | undefined) => {
    const pooled = taken.find((one) => one.memory === memory);
    if (pooled === undefined) throw new HnswError("failed", "a memory that is not the pool's");
    const attachment = newAttachment(pooled, layout, rowsFile);
    attachments.push(attachment);
    return attachment;
  };
  let rowsHandle: FileHandle | undefined;
  let rowsFile: RowsFile | undefined;
  try {
    const state = await loadIndex(
      path,
      {
        rows: options.rows,
        rowsPath: options.rowsPath,
        capacity: options.capacity,
        signal: options.signal,
      },
      {
        threads: scheduler.threads,
        instances: scheduler.instances,
        takeMemory: (sizeBytes) => {
          const pooled = scheduler.memories.take(sizeBytes);
          taken.push(pooled);
          return pooled.memory;
        },
        open: (memory, layout, rowsFile) =>
          runnerFor(scheduler, attach(memory, layout, rowsFile), options.signal),
      },
    );
    rowsFile = state.rowsFile;
    rowsHandle = await openRows(rowsFile, false);
    const last = attachments.at(-1);
    const fits =
      last?.memory.memory === state.memory &&
      last.layout === state.layout &&
      last.rowsFile === state.rowsFile;
    const attachment = fits && last !== undefined ? last : attach(state.memory, state.layout, state.rowsFile);
    for (const one of attachments) if (one !== attachment) await scheduler.detach(one);
    return await adopted(scheduler, attachment, rowsHandle, state, options);
  } catch (error) {
    await letGo(rowsHandle, rowsFile);
    for (const attachment of attachments) await scheduler.detach(attachment);
    for (const memory of taken) {
      // How much of it was written by then is not known.
      memory.touchedBytes = memory.memory.buffer.byteLength;
      scheduler.memories.giveBack(memory);
    }
    throw asHnswError(error);
  }
}

async function adopted(
  scheduler: Scheduler,
  attachment: Attachment,
  rowsHandle: FileHandle | undefined,
  state: IndexState,
  options: LoadIndexOptions,
): Promise<IndexCore> {
  const core = new IndexCore(scheduler, attachment, rowsHandle);
  try {
    if (options.capacity !== undefined)
      core.slots.reserve(wholeNumber("capacity", options.capacity, 0, core.layout.maxSlots));
    core.committed = state.committedVersion;
    core.keys.reserve(state.used);
    const enter = (slot: number) => {
      const key = core.slots.keyOf(slot);
      if (core.keys.set(key, slot) >= 0) throw new HnswError("refused", `key ${key} is there twice`);
    };
    await core.slots.adopt(state.used, enter, keysPerStep, async () => {
      await pause();
      throwIfAborted(options.signal);
      scheduler.ensureOpen();
    });
    return core;
  } catch (error) {
    core.searches.close(new HnswError("closed", "the index was not loaded"));
    throw error;
  }
}

/** Gives the memory back to the pool once no thread uses it, and deletes the file of rows unless it was saved. */
export async function closeCore(core: IndexCore): Promise<void> {
  const { scheduler, attachment, memory, rowsHandle, spool } = core;
  await scheduler.detach(attachment);
  scheduler.memories.giveBack(memory);
  await spool?.idle();
  if (spool?.isSaved) await rowsHandle?.close();
  else await letGo(rowsHandle, attachment.rowsFile);
}
