// A thread of the pool: one instance of the engine for each open index.
import { closeSync, openSync, readlinkSync } from "node:fs";
import { constants, getPriority, setPriority } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { checkGraph } from "./check.ts";
import { HnswError, plainError } from "./errors.ts";
import type { EngineExports } from "./exports.ts";
import { runFilePart } from "./file/worker-side.ts";
import { controlAt, maxBatchQueries } from "./layout.ts";
import type { FromThread, Job, OpenMessage, ToThread, WorkerStart } from "./protocol.ts";
import type { Opened } from "./worker-index.ts";
import { runSearch } from "./worker-search.ts";
import { runInsert, runMend, runSweep } from "./worker-write.ts";

const { module, thread, yieldWord, niceness } = workerData as WorkerStart;
if (niceness > 0) lowerPriority(niceness);
const memories = new Map<number, WebAssembly.Memory>();
const indexes = new Map<number, Opened>();

function open(message: OpenMessage): void {
  if (message.memory !== undefined) memories.set(message.memoryId, message.memory);
  const memory = memories.get(message.memoryId);
  if (memory === undefined) return;
  const abort = () => {
    throw new Error("the engine gave up");
  };
  const instance = new WebAssembly.Instance(module, { env: { memory, abort } });
  const exports = instance.exports as unknown as EngineExports;
  exports.attach(controlAt, thread);
  const { layout, rowsFile } = message;
  // Queries and rows are padded with zeros: only the first `dim` of each are written from here on.
  new Float32Array(memory.buffer, exports.queriesAt.value, maxBatchQueries * layout.paddedDim).fill(0);
  indexes.set(message.index, {
    memory,
    exports,
    layout,
    rows:
      rowsFile === undefined ? undefined : openSync(rowsFile.path, rowsFile.mode === "private" ? "r+" : "r"),
    filterId: 0,
    filterBytes: layout.filterBytes,
    allowed: 0,
  });
}

function close(index: number): void {
  const opened = indexes.get(index);
  indexes.delete(index);
  if (opened?.rows !== undefined) closeSync(opened.rows);
}

function run(job: Job, opened: Opened): { value: unknown; transfer: ArrayBuffer[] } {
  switch (job.op) {
    case "search": {
      const value = runSearch(opened, job);
      return { value, transfer: [value.words.buffer] };
    }
    case "insert":
      return { value: runInsert(opened, job, yieldWord), transfer: [] };
    case "sweep":
      return { value: runSweep(opened, job, yieldWord), transfer: [] };
    case "mend":
      return { value: runMend(opened, job), transfer: [] };
    case "check":
      return {
        value: checkGraph(opened.exports, opened.memory, opened.layout, job.used, job.version),
        transfer: [],
      };
    case "file":
      // Steps of files use the room of the filter for a bitmap of their own.
      opened.filterId = 0;
      opened.filterBytes = opened.layout.filterBytes;
      return { value: runFilePart(opened.exports, opened.memory, job.step, job.argument), transfer: [] };
  }
}

/** Of this thread alone: Linux takes the number of a thread where it asks for a process. Elsewhere it stays as it is. */
function lowerPriority(niceness: number): void {
  if (process.platform !== "linux") return;
  try {
    const threadId = Number(readlinkSync("/proc/thread-self").split("/").at(-1));
    const last = constants.priority.PRIORITY_LOW;
    if (threadId > 0) setPriority(threadId, Math.min(last, getPriority(threadId) + niceness));
  } catch {
    // Without /proc, or forbidden: it works like all others.
  }
}

const failedToOpen = new Map<number, unknown>();

parentPort?.on("message", (message: ToThread) => {
  switch (message.op) {
    case "open":
      try {
        open(message);
      } catch (error) {
        failedToOpen.set(message.index, error);
      }
      return;
    case "close":
      failedToOpen.delete(message.index);
      close(message.index);
      return;
    case "drop":
      memories.delete(message.memoryId);
      return;
  }
  let answer: FromThread;
  let transfer: ArrayBuffer[] = [];
  try {
    const opened = indexes.get(message.index);
    if (opened === undefined)
      throw failedToOpen.get(message.index) ?? new HnswError("failed", "the index is not open here");
    const result = run(message, opened);
    answer = { ok: true, value: result.value };
    transfer = result.transfer;
  } catch (error) {
    answer = { ok: false, error: plainError(error) };
  }
  parentPort?.postMessage(answer, transfer);
});
