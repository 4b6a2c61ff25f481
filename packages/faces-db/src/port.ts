import type { SkippedCounts } from "@lim/contracts";

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

/** A list as planning sees it. Revisions are safe integers; a list without any change has revision 0. */
export interface ListState {
  listId: string;
  historyId: string;
  name: string;
  revision: number;
  faceCount: number;
  removedTotal: number;
  /** Smallest kept revision; 0 where nothing was compacted away. */
  oldestKeptRevision: number;
}

export interface DescriptorBatch {
  count: number;
  /** count × 16 bytes. */
  faceIds: Uint8Array;
  /** count × dim, unit norm. */
  vectors: Float32Array;
}

/** One REPEATABLE READ view of a list. `batches` may be iterated once; leaving the loop early ends the transaction. */
export interface ListSnapshot {
  listId: string;
  historyId: string;
  revision: number;
  /** Linked faces, with or without a usable descriptor. */
  faceCount: number;
  removedTotal: number;
  batches: AsyncIterable<DescriptorBatch>;
  /** Complete once `batches` has ended. */
  skipped: SkippedCounts;
  close(): Promise<void>;
}

/** How fast a snapshot is read at most, so that writers beside it keep their share of the machine. */
export interface SnapshotPace {
  bytesPerS: number;
  /** As long as it tells true the snapshot is read as fast as it comes, for instance because too little waits for whom it is read. */
  inHurry?: (() => boolean) | undefined;
}

/** Why a feed cannot be followed from a revision: rebuild (or reload) is the remedy. */
export type FeedGap = "compacted" | "other_history" | "ahead_of_list" | "list_deleted";

/** Faces changed in (fromRevision, toRevision], each once, with the state they have now. */
export interface FaceChanges {
  kind: "changes";
  fromRevision: number;
  toRevision: number;
  /** Newest revision of the list in the same view; equal to toRevision when the feed is drained. */
  headRevision: number;
  upserts: { faceId: string; vector: Float32Array }[];
  /** Unlinked, deleted, or without a usable descriptor of the version. */
  removals: string[];
  skipped: SkippedCounts;
}

/** What there is instead of changes. */
export type NoChanges = { kind: "up_to_date"; headRevision: number } | { kind: "gap"; gap: FeedGap };

/** At most `maxFaces` distinct faces. */
export type ChangePacket = FaceChanges | NoChanges;

/** Consecutive packets of one view: the first begins where was asked from, each next one where the last ended. */
export type ChangePackets = { kind: "packets"; packets: FaceChanges[] } | NoChanges;

export interface ImportRow {
  /** Line (1-based) or row of the source, for reports. */
  line: number;
  faceId?: string;
  externalId?: string;
  vector: Float32Array;
}
export interface ImportFault {
  line: number;
  reason: string;
}
export interface ImportProgress {
  /** Rows of the source that are committed, good and bad. */
  doneRows: number;
  imported: number;
  bad: number;
}
export interface ImportResult extends ImportProgress {
  /** Rows that an earlier, interrupted run had committed. */
  resumedFromRow: number;
  /** First `maxReportedFaults` faults. */
  faults: ImportFault[];
}

export interface ImportOptions extends Cancellable {
  listId: string;
  descriptorVersion: number;
  dim: number;
  accountId?: string;
  /** Identifies the source (e.g. a hash of path and content): a second run with the same key resumes after the last committed chunk. */
  sourceKey: string;
  rows: AsyncIterable<ImportRow | ImportFault>;
  /** Rows a transaction; default 1000. */
  chunkRows?: number;
  onProgress?: (progress: ImportProgress) => void;
}

/** Postgres schema `faces`: design section 3. Every method throws LimError (postgres_unavailable, list_not_found, bad_input, retry_transaction). */
export interface FacesDb {
  /** Applies missing migrations under an advisory lock: several starters are harmless. */
  migrate(options?: Cancellable): Promise<{ applied: string[] }>;
  ping(options?: Cancellable): Promise<void>;

  createList(
    options: Cancellable & { listId?: string; name: string; accountId?: string },
  ): Promise<ListState>;
  deleteList(options: Cancellable & { listId: string }): Promise<boolean>;
  findListByName(options: Cancellable & { name: string }): Promise<ListState | undefined>;
  /** All lists, or those asked for (missing ones are absent); one query whatever their number. */
  listStates(
    options?: Cancellable & { listIds?: readonly string[]; minFaceCount?: number },
  ): Promise<ListState[]>;

  /** Faces with descriptors, created or replaced, then linked; one transaction. */
  putFaces(
    options: Cancellable & {
      listIds: readonly string[];
      descriptorVersion: number;
      faces: readonly { faceId: string; vector: Float32Array; externalId?: string }[];
    },
  ): Promise<void>;
  linkFaces(options: Cancellable & { listId: string; faceIds: readonly string[] }): Promise<number>;
  unlinkFaces(options: Cancellable & { listId: string; faceIds: readonly string[] }): Promise<number>;
  deleteFaces(options: Cancellable & { faceIds: readonly string[] }): Promise<number>;
  /** Descriptors by face id; faces without one of the version are absent. */
  descriptorsOf(
    options: Cancellable & { faceIds: readonly string[]; descriptorVersion: number },
  ): Promise<Map<string, Float32Array>>;
  /** External ids by face id (absent where none). */
  externalIdsOf(options: Cancellable & { faceIds: readonly string[] }): Promise<Map<string, string>>;

  openSnapshot(
    options: Cancellable & {
      listId: string;
      descriptorVersion: number;
      dim: number;
      batchRows?: number;
      pace?: SnapshotPace | undefined;
    },
  ): Promise<ListSnapshot>;
  readPacket(
    options: Cancellable & {
      listId: string;
      historyId: string;
      sinceRevision: number;
      descriptorVersion: number;
      dim: number;
      maxFaces?: number;
    },
  ): Promise<ChangePacket>;
  /**
   * As `readPacket`, of many packets at once: at most `maxFaces` faces (default `maxPacketFaces`) in packets of at most
   * `packetFaces` (default 10), and no revision past `toRevision`. Whoever has applied a packet, and those before it, is at its
   * `toRevision`: every face that changed up to there was in them.
   */
  readPackets(
    options: Cancellable & {
      listId: string;
      historyId: string;
      sinceRevision: number;
      toRevision?: number;
      descriptorVersion: number;
      dim: number;
      maxFaces?: number;
      packetFaces?: number;
    },
  ): Promise<ChangePackets>;
  /** Rows of the feed in (since, to] by kind; replacements count as additions and as removals. */
  countChanges(
    options: Cancellable & { listId: string; sinceRevision: number; toRevision: number },
  ): Promise<{ additions: number; removals: number }>;
  /**
   * Removals and replacements in (since, to] of each list, for any number of lists with a bounded number of queries (one for each
   * thousand). Lists that are gone are absent.
   */
  removalsOf(
    options: Cancellable & {
      ranges: readonly { listId: string; sinceRevision: number; toRevision: number }[];
    },
  ): Promise<Map<string, number>>;
  /** Removes feed rows that are older than `keepMs` and at or below `keepFromRevision`; the newest row stays. */
  compactFeed(
    options: Cancellable & { listId: string; keepMs: number; keepFromRevision?: number },
  ): Promise<number>;
  /**
   * Lists whose oldest kept row is older than `keepMs`, at or below `upToRevision` and not the newest: where `compactFeed` with these
   * bounds would remove something. One query for each thousand.
   */
  feedsWithOldRows(
    options: Cancellable & { feeds: readonly { listId: string; upToRevision: number }[]; keepMs: number },
  ): Promise<Set<string>>;
  /** New history_id for every list (after a restore): all indexes are rebuilt. */
  newHistory(options?: Cancellable): Promise<number>;

  importRows(options: ImportOptions): Promise<ImportResult>;
  close(): Promise<void>;
}
