export { type Corruption, corruptFile } from "./corrupt-file.ts";
export { type AcceptPoint, type CosineStats, cosineStats } from "./cosine-stats.ts";
export { createTestDatabase } from "./database.ts";
export { eventually } from "./eventually.ts";
export {
  createFaceGenerator,
  defaultFaceModel,
  type FaceGenerator,
  type FaceModelParams,
  faceIdOf,
  lfwFaceModel,
} from "./faces.ts";
export { type FlakyProxy, startFlakyProxy } from "./flaky-proxy.ts";
export { type HttpGate, type HttpGateHooks, startHttpGate } from "./http-gate.ts";
export { type ManagedProcess, startProcess } from "./managed-process.ts";
export { type RandomStream, randomStream } from "./random.ts";
export { loadRealDescriptors, type RealDescriptors } from "./real-descriptors.ts";
export { startTestRedis, type TestRedis } from "./redis.ts";
export { type GateDecision, type RedisCommand, type RedisGate, startRedisGate } from "./redis-gate.ts";
export {
  startTestRedisCluster,
  startTestRedisSentinels,
  type TestRedisCluster,
  type TestRedisSentinels,
} from "./redis-groups.ts";
export {
  type Servers,
  type Service,
  type ServiceKind,
  startServers,
  startService,
  stopAll,
} from "./service-stack.ts";
