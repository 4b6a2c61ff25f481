import type { BuildMode, EngineName, IndexMeta, SkippedCounts } from "@lim/contracts";
import type { KeyedIndex } from "@lim/vector-index";

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

/** A published index as a listing sees it: its meta was read and validated, its files were not. */
export interface PublishedIndex {
  indexId: string;
  label: string;
  meta: IndexMeta;
  sizeBytes: number;
}

/** A listing. Folders that are no readable index are told apart and never hide the others. */
export interface StorageListing {
  /** Newest first within a label: by (revision, create_time, index_id). */
  indexes: PublishedIndex[];
  refused: { label: string; indexId: string; reason: string }[];
}

/** What the builder knows and meta.json needs beyond what storage measures itself (files, recall, count, slots). */
export interface StagedContent {
  label: string;
  historyId: string;
  descriptorVersion: number;
  revision: number;
  engine: EngineName;
  params: { m: number; efConstruction: number };
  mode: BuildMode;
  baseIndexId?: string;
  removedSinceRebuild: number;
  skipped: SkippedCounts;
}

/**
 * One attempt at publishing index_id = task_id. The staging folder's mtime is its heartbeat: `touch` it while
 * building, at least once a minute. Exactly one of publish and discard ends it; both are safe to repeat.
 */
export interface Staging {
  readonly indexId: string;
  readonly attempt: number;
  readonly path: string;
  touch(): Promise<void>;
  /**
   * Saves the engine's files and ids, reopens them in a new object, probes it (known vectors must be found; recall@10 of a
   * sample against exact search is measured), hashes, fsyncs, writes meta last, then renames atomically and fsyncs
   * the parent. `onPhase` hears verify, store and publish with done and total.
   * Errors: verification_failed, disk_full, build_cancelled (removal mark), index_id_conflict, storage_unavailable.
   * A verified index with the same id and the same content already there counts as success.
   */
  publish(
    keyed: KeyedIndex,
    content: StagedContent,
    options: Cancellable & {
      onPhase?: (phase: "verify" | "store" | "publish", done: number, total: number) => void;
      /** Phases measured so far by the builder, ms; storage adds its own. */
      phases: Record<string, number>;
    },
  ): Promise<PublishedIndex>;
  discard(): Promise<void>;
}

/** A verified index in memory. The caller owns `keyed` and closes it. */
export interface OpenedIndex {
  meta: IndexMeta;
  keyed: KeyedIndex;
}

export interface CollectReport {
  staging: string[];
  trash: string[];
  marks: string[];
}

/** The on-disk index format: design section 4. */
export interface IndexStorage {
  readonly root: string;
  stage(options: Cancellable & { label: string; indexId: string; attempt: number }): Promise<Staging>;
  list(options?: Cancellable & { label?: string }): Promise<StorageListing>;
  /** Undefined where there is none. Throws index_refused where it cannot be read. */
  find(options: Cancellable & { indexId: string; label?: string }): Promise<PublishedIndex | undefined>;
  /**
   * Meta validated → sizes and hashes verified (over a private copy, so that what is loaded is what was
   * hashed) → loaded into a new object → count, dim and a probe checked.
   * Throws index_refused, or not_found where it vanished meanwhile.
   */
  open(options: Cancellable & { label: string; indexId: string }): Promise<OpenedIndex>;
  /** Reads every byte and compares it with meta, without loading. Throws index_refused. */
  verify(options: Cancellable & { label: string; indexId: string }): Promise<IndexMeta>;
  /** Leaves a removal mark first, so that a late attempt cannot publish the id again; then renames into .trash/. */
  remove(options: Cancellable & { indexId: string }): Promise<{ removed: boolean }>;
  /** Only the mark: the id must never appear. */
  markRemoved(options: Cancellable & { indexId: string }): Promise<void>;
  isMarkedRemoved(options: Cancellable & { indexId: string }): Promise<boolean>;
  /** Collects silent staging (15 min), trash past its grace and old marks. Safe beside live builds. */
  collect(options?: Cancellable & { dryRun?: boolean; nowMs?: number }): Promise<CollectReport>;
}

/** Newest servable index of a label: highest (revision, create_time) of the descriptor version. */
export type NewestOf = (
  listing: StorageListing,
  label: string,
  descriptorVersion: number,
) => PublishedIndex | undefined;
