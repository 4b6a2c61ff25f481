import type { IndexMeta } from "@lim/contracts";
import type { Cancellable, OpenedIndex, PublishedIndex } from "./port.ts";

/** What happened to one index, for logs and metrics. `shared`: another process of this host had fetched it meanwhile. */
export type CacheEvent =
  | { kind: "hit" | "shared" | "fetched" | "removed"; indexId: string }
  /** Its data files are about to be read from the storage. */
  | { kind: "storage_read"; indexId: string }
  /** An entry was not what was published, and is fetched again. */
  | { kind: "corrupt"; indexId: string; reason: string }
  /** The process that fetched it has died. */
  | { kind: "taken_over"; indexId: string }
  /** The folder is of no use now: opened from the storage. */
  | { kind: "bypassed"; indexId: string; reason: string };

export interface CacheContents {
  entries: number;
  sizeBytes: number;
}

/**
 * Copies of published indexes in a folder that the processes of one host share: the storage's data files are read once
 * per index, however many want it at once. The others wait for the one that fetches; if it dies another takes over
 * within seconds. An entry appears whole, by one rename, and is verified at each opening. Where the folder cannot be
 * used (full, read-only, away) an index is opened from the storage.
 */
export interface IndexCache {
  /** As `IndexStorage.open`. */
  open(options: Cancellable & { label: string; indexId: string }): Promise<OpenedIndex>;
  /** As `IndexStorage.verify`, of the entry, which is fetched where it is missing: a later `open` reads the storage no more. */
  verify(options: Cancellable & { label: string; indexId: string }): Promise<IndexMeta>;
  /**
   * Says which indexes this process serves or wants, and removes what none of this host has used for `unusedMs` and what is
   * not published any more or has a newer entry of its label and descriptor version. Undefined where it was called
   * shortly before, or the folder cannot be used.
   */
  tidy(
    options: Cancellable & { wanted: ReadonlySet<string>; published: readonly PublishedIndex[] },
  ): Promise<CacheContents | undefined>;
}
