import type {
  BuildMode,
  ErrorBody,
  LabelKeyValue,
  MatchReply,
  MatchRequestFields,
  Priority,
  Progress,
  SkippedCounts,
  Task,
  TaskTrigger,
} from "@lim/contracts";

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

/**
 * A connection for commands that answer at once (bounded retries and time), and blocking ones made from it, one
 * for each blocking reader.
 */
export interface RedisConnection {
  /** Answers to PING in time. */
  ping(options?: Cancellable): Promise<void>;
  /** Throws redis_unavailable or bad_settings with the remedy, e.g. an eviction policy other than noeviction. */
  checkServer(options?: Cancellable): Promise<{ version: string }>;
  /** Redis' clock in milliseconds, and how far the local clock is ahead of it. */
  time(options?: Cancellable): Promise<{ redisMs: number; localAheadMs: number }>;
  close(): Promise<void>;
}

/** Names of keys: one place, one spelling (design section 5). */
export interface KeyNames {
  masterLock: string;
  matchStreamPrefix: string;
  matcherLockPrefix: string;
  consumerGroup: string;
}

// ---- leader election ----

export interface Leadership {
  /** Fencing epoch: every guarded write compares it for equality. */
  epoch: number;
  /** Fires when the lease was lost, could not be renewed before its deadline, or is being released. */
  signal: AbortSignal;
}

/**
 * Redlock used for liveness only: acquire, extend at ttl/3, release; a monotonic deadline; correctness rests on the
 * epoch. `run` loops until the signal fires: waits for the lock, claims an epoch, runs `lead` with it; when `lead`
 * returns or its leadership ends, it stands for election again.
 */
export interface LeaderElection {
  run(lead: (leadership: Leadership) => Promise<void>, options: { signal: AbortSignal }): Promise<void>;
  isLeader(): boolean;
}

// ---- tasks ----

export type Refusal = "unknown_task" | "wrong_status" | "stale_attempt" | "stale_epoch";
export type Transition<T = object> = ({ ok: true } & T) | { ok: false; refusal: Refusal };

/** Half-open: from `gteMs` up to and without `ltMs`, milliseconds since 1970. */
export interface TimeRange {
  gteMs?: number;
  ltMs?: number;
}

/** Filters narrow each other down. A task without a start or an end is in no range of it. */
export interface TaskFilter {
  taskIds?: readonly string[];
  statuses?: readonly Task["status"][];
  listId?: string;
  indexer?: string;
  createTime?: TimeRange;
  startTime?: TimeRange;
  endTime?: TimeRange;
}

/** `nextCursor` is opaque; undefined on the last page. */
export interface TaskPage {
  tasks: Task[];
  nextCursor: string | undefined;
}

/** An idempotency key of a caller with what it stands for: any text that is equal for equal requests. */
export interface Idempotency {
  key: string;
  fingerprint: string;
}

export type Created =
  | { created: Task }
  /** The same key and fingerprint came before: its task as it is now. */
  | { replayed: Task }
  /** The key stands for another request, or its task was removed. */
  | { keyTaken: string }
  /** Id of the label's open task. */
  | { conflict: string }
  | { refusal: "stale_epoch" };

/**
 * Tasks, their queue and the open task of each label. Every transition is one Lua script that compares status,
 * attempt and epoch; a stale word changes nothing and says why it was refused.
 */
export interface TaskStore {
  /**
   * `epoch` for planned tasks only: a planner that was replaced creates nothing. Refuses a second open task of a label.
   * Priority `default` where none is named. An idempotency key is remembered for `limits.idempotencyKeyTtlMs`.
   */
  create(
    task: {
      taskId: string;
      listId: string;
      mode: BuildMode;
      trigger: TaskTrigger;
      priority?: Priority;
      epoch?: number;
      idempotency?: Idempotency;
    },
    options?: Cancellable,
  ): Promise<Created>;
  get(taskId: string, options?: Cancellable): Promise<Task | undefined>;
  /**
   * Newest first, at most `limit` (1 to 1,000). What is created or removed between pages neither repeats nor hides
   * another task. Throws bad_input for a cursor that it did not give out.
   */
  find(filter: TaskFilter, options: Cancellable & { limit: number; cursor?: string }): Promise<TaskPage>;
  /** Pending tasks in dispatch order, those that wait for another attempt included; `count` is that of the whole queue. */
  queue(options: Cancellable & { limit: number; cursor?: string }): Promise<TaskPage & { count: number }>;
  /**
   * The first `limit` pending tasks that may be dispatched now, by priority, then first in, first out. `waiting` counts
   * those whose `not_before` has not come, by Redis' clock; `oldestWaitMs` is the longest that one of `tasks` has been pending.
   */
  ready(
    options: Cancellable & { limit: number },
  ): Promise<{ tasks: Task[]; queued: number; waiting: number; oldestWaitMs: number }>;
  /** Open task of each of the labels that has one. */
  openTasks(labels: readonly string[], options?: Cancellable): Promise<Map<string, string>>;
  /** Tasks in status indexing. */
  indexing(options?: Cancellable): Promise<Task[]>;

  /** pending → indexing; leaves the queue; the returned attempt is previous + 1. */
  dispatch(
    input: { taskId: string; indexer: string; epoch: number },
    options?: Cancellable,
  ): Promise<Transition<{ attempt: number }>>;
  progress(
    input: { taskId: string; attempt: number; epoch: number; progress: Progress },
    options?: Cancellable,
  ): Promise<Transition>;
  /** indexing → success | error, once. */
  finish(
    input: {
      taskId: string;
      attempt: number;
      epoch: number;
      error: ErrorBody | null;
      endTime: string;
      skipped?: SkippedCounts | null;
    },
    options?: Cancellable,
  ): Promise<Transition>;
  /**
   * indexing → pending at the front of its priority, not to be dispatched for `delayMs` (Redis' clock), or → error
   * `attempts_exhausted` with `reason` after maxAttempts.
   */
  requeue(
    input: {
      taskId: string;
      attempt: number;
      epoch: number;
      reason: ErrorBody;
      maxAttempts: number;
      delayMs: number;
    },
    options?: Cancellable,
  ): Promise<Transition<{ status: "pending" | "error" }>>;
  /**
   * Recreates a lost record in status indexing from what an indexer reports. Refused as wrong_status where a record
   * exists or the label has another open task, as unknown_task where the task was removed while it was open.
   */
  adopt(
    input: {
      taskId: string;
      listId: string;
      mode: BuildMode;
      attempt: number;
      indexer: string;
      startTime: string;
      epoch: number;
    },
    options?: Cancellable,
  ): Promise<Transition>;
  /** Deletes records whatever their status. Who removes a running one cancels it at its indexer. */
  remove(taskIds: readonly string[], options?: Cancellable): Promise<Task[]>;

  /**
   * Ended tasks past their retention: all but the `keep` that ended last, and all that ended before `endedBeforeMs`
   * (milliseconds since 1970). `taskIds` is cut at 1,000, oldest first; the counts are not.
   */
  expired(
    options: Cancellable & { keep: number; endedBeforeMs: number },
  ): Promise<{ ended: number; expired: number; taskIds: string[] }>;

  /**
   * Notes which labels miss their list now: new ones since this moment (Redis' clock), those no longer named are
   * forgotten. Returns since when each has been missing, in milliseconds. Refused when the epoch is stale.
   */
  noteMissingLists(
    input: { labels: readonly string[]; epoch: number },
    options?: Cancellable,
  ): Promise<Transition<{ sinceMs: Map<string, number> }>>;
  missingLists(options?: Cancellable): Promise<Map<string, number>>;

  /** Whether this epoch is still the newest: what cannot be fenced by a script asks right before it acts. */
  isCurrent(input: { epoch: number }, options?: Cancellable): Promise<boolean>;

  lastPlanMs(options?: Cancellable): Promise<number | undefined>;
  /** Refused when the epoch is stale. */
  setLastPlanMs(input: { lastPlanMs: number; epoch: number }, options?: Cancellable): Promise<Transition>;
}

// ---- dead letters ----

/** Match requests that were delivered too often: bounded by number where they are written, by age here. */
export interface DeadLetters {
  /** All, and those older than `olderThanMs` by Redis' clock. */
  count(options: Cancellable & { olderThanMs: number }): Promise<{ all: number; old: number }>;
  /** Removes those older than that; returns how many. */
  trim(options: Cancellable & { olderThanMs: number }): Promise<number>;
}

// ---- indexers' registration ----

export interface IndexerRegistry {
  /** Keeps `lim_indexer__<origin>` alive until the signal fires, then removes it. Heals after a flush. */
  announce(options: { origin: string; ttlMs: number; signal: AbortSignal }): Promise<void>;
  origins(options?: Cancellable): Promise<string[]>;
}

// ---- locks of matchers ----

export interface LabelLock {
  /** Fires when the lock was lost or could not be renewed in time. */
  signal: AbortSignal;
  release(): Promise<void>;
}
export interface LabelLocks {
  /** One try: undefined when another holds it. */
  tryAcquire(label: string, options: Cancellable & { ttlMs: number }): Promise<LabelLock | undefined>;
}

// ---- label keys ----

export interface ServedLabel {
  label: string;
  matcherId: string;
  value: LabelKeyValue;
}

/** Announces what this matcher serves: `matching_label__<label>__<matcher_id>` with TTL, and `lim:labels`. */
export interface LabelAnnouncer {
  /** Sets or updates at once; renewed until withdrawn. */
  announce(label: string, value: LabelKeyValue): Promise<void>;
  withdraw(label: string): Promise<void>;
  /** Withdraws all and ends the renewal. */
  close(): Promise<void>;
}

/** Follows what is served, by polling `lim:labels`. Keeps its last view for one TTL when all vanish together or Redis is away. */
export interface LabelWatcher {
  served(label: string): readonly ServedLabel[];
  labels(): ReadonlyMap<string, readonly ServedLabel[]>;
  /** Reads now, e.g. before the first request. */
  refresh(options?: Cancellable): Promise<void>;
  close(): Promise<void>;
}

// ---- match streams ----

/** A request as a matcher gets it. `fields` failed validation where it is an error; the entry can still be answered if it names where to. */
export interface MatchEntry {
  label: string;
  entryId: string;
  deliveries: number;
  /** Milliseconds that the entry had waited when it was read, by Redis' clock. */
  waitedMs: number;
  /** By `performance.now()` of this process. */
  deadlineMs: number;
  rid: string | undefined;
  request: { fields: MatchRequestFields; descriptor: Buffer } | { invalid: string };
}

/**
 * Consumer of the match streams of a changing set of labels, group `lim_matcher`. At least once: what was read and
 * not answered is claimed by others once idle. Prefetches at most two batches; renews what it holds.
 * Expired entries are answered (request_expired) and acknowledged here; entries delivered too often go to the
 * dead-letter stream and their caller is told (dead_lettered). NOGROUP heals.
 */
export interface MatchConsumer {
  /** Labels to read from now on. */
  setLabels(labels: readonly string[]): Promise<void>;
  /**
   * Calls `handle` with batches of one label's entries until the signal fires; several labels in parallel, at most one
   * running batch a label. An entry on its second delivery comes alone. `handle` answers through `reply`; entries
   * that it left unanswered stay pending (and come again).
   */
  run(
    handle: (batch: readonly MatchEntry[]) => Promise<void>,
    options: { signal: AbortSignal },
  ): Promise<void>;
  /** Replies, acknowledges and deletes in one step. */
  reply(answers: readonly { entry: MatchEntry; reply: MatchReply }[]): Promise<void>;
  /** Waits for running batches, then deletes the consumer where its pending list is empty. */
  close(): Promise<void>;
}

export interface MatchRequest {
  label: string;
  rid: string;
  /** With its 8-byte header. */
  descriptor: Buffer;
  limit: number;
  threshold?: number;
  timeoutMs: number;
  minRevision?: number;
  lunaRequestId?: string;
  traceparent?: string;
}

/** Sends match requests and hands each its reply, by rid, from the client's own reply stream. */
export interface MatchClient {
  /** Rejects with request_expired when no reply came within timeoutMs, aborted by signal, redis_unavailable. Re-sending with the same rid is safe. */
  request(request: MatchRequest, options?: Cancellable): Promise<MatchReply>;
  /**
   * Sends a request in flight once more where its entry was lost, or where whoever took it has been silent for a while.
   * What waits unread stays as it is, as a second entry would wait behind it. Returns whether it was sent.
   */
  resend(rid: string): Promise<boolean>;
  close(): Promise<void>;
}
