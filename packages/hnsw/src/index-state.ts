import type { Layout } from "./layout.ts";
import type { FileArgument, FileStep } from "./protocol.ts";
import type { RowsFile } from "./rows-file.ts";

/** An index as files see it. */
export interface IndexState {
  memory: WebAssembly.Memory;
  layout: Layout;
  /** Slots in use: every slot below was written, none at or above. */
  used: number;
  /** A slot is live iff born ≤ committedVersion < died. */
  committedVersion: number;
  /** Where rows are held in a file. */
  rowsFile: RowsFile | undefined;
}

/** Runs `runFilePart` of file/worker-side.ts in some thread of the pool. Calls may run at the same time. */
export type RunInPool = (step: FileStep, argument: FileArgument) => Promise<unknown>;

/** What loading needs of the runtime. */
export interface LoadHost {
  /** Slices at a time. */
  threads: number;
  /** Threads that the layout must have room for. */
  instances: number;
  /** A memory of at least this size; it may hold an earlier index's bytes. Given back by the caller of loadIndex if that fails. */
  takeMemory(sizeBytes: number): WebAssembly.Memory;
  /** Opens the memory to the pool's threads. The control block must have been written. */
  open(memory: WebAssembly.Memory, layout: Layout, rowsFile: RowsFile | undefined): RunInPool;
}
