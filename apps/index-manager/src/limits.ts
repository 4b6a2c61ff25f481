/** Named limits of the manager alone. */
export const managerLimits = {
  /** Indexers asked at the same time. */
  parallelIndexerCalls: 16,
  /** An indexer that has not answered `GET /state` by then counts as silent in this lookup. */
  stateTimeoutMs: 2_000,
  /** A lookup waits this long for answers; who answers later counts in the next one, and holds up nobody. */
  lookupWaitMs: 300,
  /** Indexers with an open question or command; past it, those asked longest ago go first in the next lookups. */
  maxOpenQuestions: 256,
  /** A dispatch or stop not answered by then is left to the next lookup, which sees what came of it. */
  commandTimeoutMs: 5_000,
  maxIndexerAnswerBytes: 1024 * 1024,
  /** Tasks that one lookup can dispatch: more indexers than this are not served at once. */
  queueWindow: 256,
  /** Attempts of one task that its indexers refused or handed back; past it they count as attempts. */
  maxRefusedDispatches: 10,
  /** Tasks of which a master remembers such attempts. */
  maxSparedTasks: 10_000,
  /** An indexer that refused or failed a dispatch gets no other for this long. */
  avoidIndexerMs: 2_000,
  /** Pause after a plan that failed, and between questions whether one is due. */
  planRetryMs: 5_000,
  planTickMs: 1_000,
  /** Tasks of a plan that are on their way to Redis at the same time. */
  parallelCreates: 64,
  /** A new master's first run of retention waits this long, or its period where that is shorter. */
  firstRetentionAfterMs: 30_000,
  /** Records that one run of retention removes at most; the next run goes on. */
  maxTasksPerRetention: 10_000,
  /** Lists whose feed one run of retention shortens at most, and tries at the same time. */
  maxFeedsPerRetention: 1_000,
  parallelCompactions: 2,
  /** Ids in the answer of a dry run. */
  maxIdsPerDryRun: 1_000,
  /** A failure that goes on is logged again after this long. */
  repeatFailureLogMs: 60_000,
  /** Most tasks, indexes or ids in one request or answer of the HTTP API. */
  maxTasksPerAnswer: 1_000,
  maxTasksPerRemoval: 1_000,
  maxIndexesPerAnswer: 1_000,
  maxDecisionsPerAnswer: 10_000,
  maxIdsPerFilter: 100,
  maxIdempotencyKeyChars: 200,
  /** Clients that follow a task by server-sent events at the same time, and how often a followed task is read. */
  maxProgressStreams: 256,
  progressPollMs: 250,
  /** A comment on a silent stream, so that proxies keep it open. */
  progressHeartbeatMs: 15_000,
} as const;
