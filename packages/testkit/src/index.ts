export { createTestDatabase } from "./database.ts";
export { eventually } from "./eventually.ts";
export { type ManagedProcess, startProcess } from "./managed-process.ts";
export { startTestRedis, type TestRedis } from "./redis.ts";
