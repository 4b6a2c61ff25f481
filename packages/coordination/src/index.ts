import type { Log } from "./log.ts";
import type {
  IndexerRegistry,
  KeyNames,
  LabelAnnouncer,
  LabelLocks,
  LabelWatcher,
  LeaderElection,
  MatchClient,
  MatchConsumer,
  RedisConnection,
  TaskStore,
} from "./port.ts";

export { connectRedis } from "./connection.ts";
export { defaultKeyNames } from "./keys.ts";
export type { Log } from "./log.ts";
export * from "./port.ts";

export declare function createLeaderElection(options: {
  redis: RedisConnection;
  keys: KeyNames;
  leaseTtlMs: number;
  log?: Log;
}): LeaderElection;
export declare function createTaskStore(options: {
  redis: RedisConnection;
  keys: KeyNames;
  log?: Log;
}): TaskStore;
export declare function createIndexerRegistry(options: {
  redis: RedisConnection;
  log?: Log;
}): IndexerRegistry;
export declare function createLabelLocks(options: {
  redis: RedisConnection;
  keys: KeyNames;
  log?: Log;
}): LabelLocks;
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
