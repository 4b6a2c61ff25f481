import type { EngineExports } from "./exports.ts";
import { rowAtInFile } from "./file/format.ts";
import type { Layout } from "./layout.ts";

/** What a thread holds of an index. */
export interface Opened {
  readonly memory: WebAssembly.Memory;
  readonly exports: EngineExports;
  readonly layout: Layout;
  /** Descriptor of the file of full-precision rows. */
  readonly rows: number | undefined;
  /** Of the bitmap that lies at `filterAt`; 0 = none yet. */
  filterId: number;
  /** Bytes of it that may not be zero. */
  filterBytes: number;
  /** Keys that it allows. */
  allowed: number;
}

export const rowPosition = (layout: Layout, slot: number): number =>
  rowAtInFile(slot, rowBytesInFile(layout));
export const rowBytesInFile = (layout: Layout): number => layout.paddedDim * 4;
