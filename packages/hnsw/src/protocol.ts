// Messages between the pool and its threads. A thread opens an index before its first job for it; jobs are answered
// one by one, in order.
import type { PlainError } from "./errors.ts";
import type { Layout } from "./layout.ts";
import type { RowsFile } from "./rows-file.ts";

export interface WorkerStart {
  module: WebAssembly.Module;
  thread: number;
  /** Not 0 while searches wait for a thread: a thread that writes ends its slice. */
  yieldWord: Int32Array;
  /** What the thread lowers its priority by; 0 = not. */
  niceness: number;
}

export interface OpenMessage {
  op: "open";
  index: number;
  memoryId: number;
  /** Sent with the first index in this memory. */
  memory: WebAssembly.Memory | undefined;
  layout: Layout;
  rowsFile: RowsFile | undefined;
}
export interface CloseMessage {
  op: "close";
  index: number;
}
export interface DropMessage {
  op: "drop";
  memoryId: number;
}

/** How a search looks: `auto` leaves it to the thread whether the filter is so narrow that a scan is cheaper. */
export type SearchMode = "auto" | "graph" | "scan" | "rows";
/** Consecutive queries of one call. */
export interface SearchItem {
  count: number;
  k: number;
  ef: number;
  depth: number;
  slots: number;
  version: number;
  /** Vectors that the search may return without its filter. */
  live: number;
  mode: SearchMode;
  filter: { id: number; bytes: Uint8Array } | undefined;
}
export interface SearchJob {
  op: "search";
  index: number;
  /** Queries of all items × dim. */
  queries: Float32Array;
  items: SearchItem[];
}
/** Of each item: its counts, then its keys (count × k), then its scores (the same, float32). */
export interface SearchReply {
  words: Uint32Array<ArrayBuffer>;
  failures: { item: number; error: PlainError }[];
}

/** Words of the control array that the threads of one piece of work share. */
export const nextWord = 0;
export const endWord = 1;
export const workWords = 2;

/** How far an insertion is with a row: from `linkedRow` on links lead to it; all that is written of it is there at `wholeRow`. */
export const linkedRow = 1;
export const wholeRow = 2;

export interface InsertJob {
  op: "insert";
  index: number;
  /** Undefined where they wait in the file of rows: slots are consecutive then. */
  rows: Float32Array | undefined;
  slots: Uint32Array;
  /** Of each row: 0, then `linkedRow`, then `wholeRow`. */
  done: Uint8Array;
  control: Int32Array;
  used: number;
  maxRows: number;
  /** Rows done before heeding the yield word. */
  minRows: number;
}
export interface SweepJob {
  op: "sweep";
  index: number;
  control: Int32Array;
  version: number;
  used: number;
  maxSlots: number;
  minSlots: number;
}
export interface MendJob {
  op: "mend";
  index: number;
  version: number;
  used: number;
}
/** For write jobs: whether nothing is left to take. */
export interface WriteReply {
  finished: boolean;
  count: number;
}

export interface CheckJob {
  op: "check";
  index: number;
  version: number;
  used: number;
}

/** A step of saving or loading: handled by `runFilePart` of file/worker-side.ts. */
export interface FileJob {
  op: "file";
  index: number;
  step: FileStep;
  argument: FileArgument;
}
export type FileStep = "save-part" | "load-part";
/** Whatever can be posted to a thread. */
export type FileArgument = Readonly<Record<string, unknown>>;

export type Job = SearchJob | InsertJob | SweepJob | MendJob | CheckJob | FileJob;
export type ToThread = OpenMessage | CloseMessage | DropMessage | Job;
/** Answers come in the order of the jobs. */
export type FromThread = { ok: true; value: unknown } | { ok: false; error: PlainError };
