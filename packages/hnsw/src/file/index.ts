import { HnswError } from "../errors.ts";
import type { IndexState, LoadHost, RunInPool } from "../index-state.ts";
import type { RowKind } from "../layout.ts";

export interface LoadOptions {
  /** As of the file if not given. */
  rows: RowKind | { file: string } | undefined;
  rowsPath: string | undefined;
  capacity: number | undefined;
  signal: AbortSignal | undefined;
}

export async function saveIndex(
  _state: IndexState,
  _path: string,
  _rowsPath: string | undefined,
  _signal: AbortSignal | undefined,
  _runInPool: RunInPool,
): Promise<void> {
  throw new HnswError("failed", "saving is not there yet");
}

/** Live slots come back with born = 0 and died = 0xffffffff, free ones with the words of a free slot. */
export async function loadIndex(_path: string, _options: LoadOptions, _host: LoadHost): Promise<IndexState> {
  throw new HnswError("failed", "loading is not there yet");
}
