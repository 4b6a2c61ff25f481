import type { Log } from "./log.ts";
import type {
  KeyNames,
  LabelAnnouncer,
  LabelWatcher,
  MatchClient,
  MatchConsumer,
  RedisConnection,
} from "./port.ts";

export { connectRedis } from "./connection.ts";
export { createIndexerRegistry } from "./indexer-registry.ts";
export { defaultKeyNames } from "./keys.ts";
export { createLabelLocks } from "./label-locks.ts";
export { createLeaderElection } from "./leader-election.ts";
export type { Log } from "./log.ts";
export * from "./port.ts";
export { createTaskStore } from "./task-store.ts";

export declare function createLabelAnnouncer(options: {
  redis: RedisConnection;
  matcherId: string;
  ttlMs: number;
  renewMs: number;
  log?: Log;
}): LabelAnnouncer;
export declare function createLabelWatcher(options: {
  redis: RedisConnection;
  /** How long the last view is kept when everything vanishes together; the announcers' TTL. */
  ttlMs: number;
  pollMs: number;
  log?: Log;
}): LabelWatcher;
export declare function createMatchConsumer(options: {
  redis: RedisConnection;
  keys: KeyNames;
  /** host:port:boot-id */
  consumerName: string;
  batchSize: number;
  log?: Log;
}): MatchConsumer;
export declare function createMatchClient(options: {
  redis: RedisConnection;
  keys: KeyNames;
  log?: Log;
}): MatchClient;
