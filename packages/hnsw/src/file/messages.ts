// What the steps of saving and loading ask of a thread of the pool: the arguments and answers of `runFilePart`.
import type { EngineExports } from "../exports.ts";
import type { Layout } from "../layout.ts";
import type { FileArgument } from "../protocol.ts";
import type { RowsFile } from "../rows-file.ts";
import type { FileHeader } from "./format.ts";

/** What files use of the engine. Addresses and sizes in bytes; checks return 0 or the number of the rule broken. */
export interface FileExports extends EngineExports {
  readonly faultSlot: WebAssembly.Global<number>;
  checksum(from: number, bytes: number, seed: bigint): bigint;
  markKeyed(slots: number): number;
  markVisible(slots: number, version: number): number;
  highestMarked(slots: number): bigint;
  isMarked(slot: number): number;
  validate(from: number, to: number, slots: number, top: number): number;
  settle(from: number, to: number, top: number): void;
  isFiniteRow(from: number, bytes: number, halves: boolean): number;
  narrowRows(from: number, slot: number, count: number): void;
  scatterLinks(from: number, level: number, first: number, count: number): void;
  gatherLinks(into: number, level: number, first: number, count: number, slots: number): void;
  gather(into: number, from: number, bytes: number, slot: number, count: number, empty: number): void;
}

export interface SurveyArgument extends FileArgument {
  what: "survey";
  used: number;
  version: number;
}
/** Live slots, and the entry point, as a header has them. */
export interface Survey {
  live: number;
  entrySlot: number;
  entryLevel: number;
}

export interface WriteArgument extends FileArgument {
  what: "write";
  layout: Layout;
  fd: number;
  header: FileHeader;
  version: number;
  /** Chunks [from, to). */
  from: number;
  to: number;
  /** Where rows are in a file beside the memory. */
  rowsFile: RowsFile | undefined;
  /** `fd` is that very file: rows are there already, but for what is to be zero. */
  inPlace: boolean;
}

export interface SumArgument extends FileArgument {
  what: "sum";
  table: BigUint64Array;
}

export interface TableArgument extends FileArgument {
  what: "table";
  fd: number;
  header: FileHeader;
}

export interface ReadArgument extends FileArgument {
  what: "read";
  layout: Layout;
  fd: number;
  header: FileHeader;
  from: number;
  to: number;
  /** Checksums of these chunks. */
  sums: BigUint64Array;
  /** Where rows go: a descriptor, else into memory where the layout holds rows, else they are verified only. */
  rowsFd: number | undefined;
  checkRows: boolean;
}

export interface ValidateArgument extends FileArgument {
  what: "validate";
  layout: Layout;
  header: FileHeader;
  /** Slots [from, to). */
  from: number;
  to: number;
}

/** One index in one thread. */
export interface Place {
  exports: FileExports;
  bytes: Uint8Array;
  /** Room for one chunk: that for results, which no search uses meanwhile. */
  bounce: number;
}

export type SaveArgument = SurveyArgument | WriteArgument | SumArgument;
export type LoadArgument = TableArgument | ReadArgument | ValidateArgument;
