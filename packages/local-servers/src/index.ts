export { freePort } from "./free-port.ts";
export { openProcessLedger, type ProcessLedger, reapLeftovers } from "./ledger.ts";
export type { LocalServer } from "./local-server.ts";
export { type PostgresOptions, startPostgres } from "./postgres.ts";
export { isProcessRunning, processIdentity } from "./process-identity.ts";
export { findOnPath, type RedisOptions, startRedis } from "./redis.ts";
export {
  joinRedisCluster,
  type LocalCluster,
  type LocalSentinels,
  type RedisGroupOptions,
  type RedisNode,
  startRedisCluster,
  startRedisSentinels,
} from "./redis-groups.ts";
export { askRedis } from "./redis-ping.ts";
export { connectSql, quoteIdentifier, type SqlClient, withDatabase } from "./sql.ts";
