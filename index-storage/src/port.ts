import type { BuildMode, EngineName, IndexMeta, LimError, SkippedCounts } from "@lim/contracts";
import type { EngineOptions, KeyedIndex } from "@lim/vector-index";
import type { SavedIndex } from "./saved.ts";

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

export type OnPhase = (phase: "verify" | "store" | "publish", done: number, total: number) => void;

export interface SaveOptions extends Cancellable {
  onPhase?: OnPhase;
  /** Phases measured so far by the builder, ms; storage adds its own. */
  phases: Record<string, number>;
}

/**
 * One attempt at publishing index_id = task_id. The staging folder's mtime is its heartbeat: `touch` it while
 * building, at least once a minute. Exactly one of publish (or save and then publishSaved) and discard ends it; all
 * are safe to repeat.
 */
export interface Staging {
  readonly indexId: string;
  readonly attempt: number;
  readonly path: string;
  /** Where the file of vectors will be, for an engine that builds out of it (`EngineAdapter.createSpooled`). */
  readonly vectorsPath: string;
  touch(): Promise<void>;
  /**
   * First half of a publication: writes and hashes the engine's files and the ids, and keeps some known vectors. The
   * caller may then close `keyed`, or end its process, and have the other half done by any process that resumes this
   * attempt with what is returned. Phase: verify, the first of its steps.
   * Vectors that were spooled to `vectorsPath` are finished there.
   * Errors: empty_list, bad_input, disk_full, build_cancelled (removal mark), fenced, storage_unavailable.
   */
  save(keyed: KeyedIndex, content: StagedContent, options: SaveOptions): Promise<SavedIndex>;
  /**
   * Second half: hashes the files again and compares before an engine opens them, reopens them in a new object, probes it
   * (known vectors must be found; recall@10 of a sample against exact search is measured), fsyncs, writes meta last,
   * then renames atomically and fsyncs the parent. Holds a bounded sample in memory and one index, whose file of vectors
   * is read where it lies where the engine can. `onPhase` hears the
   * rest of verify, then store and publish with done and total.
   * Errors: verification_failed, disk_full, build_cancelled (removal mark), index_id_conflict, fenced,
   * storage_unavailable. A verified index with the same id and the same content already there counts as success.
   */
  publishSaved(saved: SavedIndex, options?: Omit<SaveOptions, "phases">): Promise<PublishedIndex>;
  /** `save` and `publishSaved` in one process, with the built index and the reopened one in memory together. */
  publish(keyed: KeyedIndex, content: StagedContent, options: SaveOptions): Promise<PublishedIndex>;
  /**
   * `fenced`, where this attempt's folder was taken away: then that is what any work on its files has failed of,
   * whatever it threw. Undefined where it is still there.
   */
  lossBehind(failure: unknown): Promise<LimError | undefined>;
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
  /**
   * Begins an attempt; one of the same id and number that lies there already is taken away. `work` names its own folder
   * (a UUID, else a random one), so that who ordered the attempt can discard it once its process is gone.
   */
  stage(
    options: Cancellable & { label: string; indexId: string; attempt: number; work?: string },
  ): Promise<Staging>;
  /** Takes away what an attempt left under `work`, also of a removed id; that of any other process stays. */
  discard(
    options: Cancellable & { label: string; indexId: string; attempt: number; work: string },
  ): Promise<void>;
  /**
   * The attempt that another process saved, without touching its files. Throws `fenced` where its work folder was
   * replaced or collected meanwhile, `build_cancelled` where its id was removed.
   */
  resume(options: Cancellable & { saved: SavedIndex }): Promise<Staging>;
  list(options?: Cancellable & { label?: string }): Promise<StorageListing>;
  /** Undefined where there is none. Throws index_refused where it cannot be read. */
  find(options: Cancellable & { indexId: string; label?: string }): Promise<PublishedIndex | undefined>;
  /**
   * Meta validated → sizes and hashes verified (over a private copy, so that what is loaded is what was
   * hashed) → loaded into a new object → count, dim and a probe checked. `rerank`: where full precision is held, if
   * not as the storage was told to load engines.
   * Throws index_refused, or not_found where it vanished meanwhile.
   */
  open(options: Cancellable & EngineOptions & { label: string; indexId: string }): Promise<OpenedIndex>;
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
