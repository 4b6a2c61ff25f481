import type { EngineName } from "./index-meta.ts";

/** Named limits that several services share. A limit of one service only lives in that service. */
export const limits = {
  minDim: 8,
  maxDim: 4096,
  /** Faces of one refresh packet (the contract says ten). */
  refreshPacketFaces: 10,
  /** Highest `limit` of a match request. */
  maxMatchLimit: 1000,
  /** Highest `timeout_ms` of a match request; MINID trimming and claims rest on it. */
  maxMatchTimeoutMs: 30_000,
  defaultMatchTimeoutMs: 5_000,
  /** Deliveries of one match request before it is dead-lettered. */
  maxMatchDeliveries: 3,
  maxDeadLetters: 1_000,
  /** Attempts of one task before it ends as `attempts_exhausted`. */
  maxTaskAttempts: 3,
  /** Longest pause before another attempt of a task, whatever the setting and the number of attempts. */
  maxRetryBackoffMs: 300_000,
  /** How long an idempotency key is remembered. */
  idempotencyKeyTtlMs: 24 * 3_600_000,
  maxErrorDetailChars: 2_000,
} as const;

/** Defaults of design section 8 that more than one service needs. */
export const defaults = {
  managerPort: 5190,
  indexerPort: 5180,
  matcherPort: 5200,
  descriptorDim: 512,
  descriptorVersion: 1,
  /** Engine of new indexes. */
  engine: "hnsw" as EngineName,
  m: 16,
  efConstruction: 200,
  efSearch: 128,
  /** At which a build reads its list at most: beside it, on two cores, writers lose a tenth at most. */
  snapshotRateMbPerS: 48,
  labelKeyTtlMs: 10_000,
  labelKeyRenewMs: 3_000,
  masterLeaseTtlMs: 10_000,
  matchStreamPrefix: "lim_match:",
  matcherConsumerGroup: "lim_matcher",
  matcherLockPrefix: "lim_matcher",
  managerMasterLock: "lim_manager_master",
} as const;
