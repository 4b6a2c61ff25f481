/** Named limits of the manager alone. */
export const managerLimits = {
  /** Indexers asked at the same time. */
  parallelIndexerCalls: 16,
  /** An indexer that has not answered `GET /state` by then counts as silent in this lookup. */
  stateTimeoutMs: 2_000,
  /** A dispatch or stop not answered by then is left to the next lookup, which sees what came of it. */
  commandTimeoutMs: 5_000,
  maxIndexerAnswerBytes: 1024 * 1024,
  /** Pending tasks looked at in one lookup: more indexers than this are not served at once. */
  queueWindow: 256,
  /** Dispatches of one task that its indexers refused; past it they count as attempts. */
  maxRefusedDispatches: 10,
  /** An indexer that refused or failed a dispatch gets no other for this long. */
  avoidIndexerMs: 2_000,
  /** Pause after a plan that failed, and between questions whether one is due. */
  planRetryMs: 5_000,
  planTickMs: 1_000,
  /** Queries for removals of lists at the same time. */
  parallelCountQueries: 4,
  /** A failure that goes on is logged again after this long. */
  repeatFailureLogMs: 60_000,
  /** Most tasks or ids in one request or answer of the HTTP API. */
  maxTasksPerAnswer: 1_000,
  maxIdsPerFilter: 100,
} as const;
