import { type BuildRequest, LimError, type Progress } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, StagedContent } from "@lim/index-storage";
import type { EngineAdapter, KeyedIndex } from "@lim/vector-index";

export interface JobLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface BuildContext {
  request: BuildRequest;
  /** Name of its folder in the staging; a random one where it is left out. */
  work?: string;
  db: FacesDb;
  storage: IndexStorage;
  engine: EngineAdapter;
  memoryLimitBytes: number;
  /** At which the list is read at most, unless its engine would wait; 0 or left out: no limit. */
  snapshotBytesPerS?: number;
  report: (phase: Progress["phase"], done: number, total: number) => void;
  nowMs: () => number;
  log: JobLog;
  signal: AbortSignal;
}

/** An index that equals the list at `revision`, ready to be published. `keyed` is owned by the receiver. */
export interface BuiltIndex {
  keyed: KeyedIndex;
  content: Pick<
    StagedContent,
    "historyId" | "revision" | "mode" | "baseIndexId" | "removedSinceRebuild" | "skipped"
  >;
  /** Milliseconds of the phases so far. */
  phases: Record<string, number>;
}

export function emptyList(request: BuildRequest): LimError {
  return new LimError(
    "empty_list",
    `list ${request.list_id} has no usable descriptor of version ${request.descriptor_version}`,
  );
}
