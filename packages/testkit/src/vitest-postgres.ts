import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { reapLeftovers, startPostgres } from "@lim/local-servers";
import { dropRunDatabases, postgresUrlVariable, runIdVariable } from "./database.ts";
import { makeRunFolder, removeDeadFolders, testRoot } from "./test-root.ts";

/** A test server is thrown away, so nothing needs to reach the disk. */
const settings = {
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  max_connections: "200",
  shared_buffers: "128MB",
};

/**
 * Vitest's global setup: one Postgres for the run, that of DATABASE_URL or an embedded one; the workers find it in
 * their environment. Two projects of one run share it.
 */
export async function setup(): Promise<(() => Promise<void>) | undefined> {
  if (process.env[postgresUrlVariable] !== undefined) return undefined;
  const root = await testRoot();
  await reapLeftovers(root);
  await removeDeadFolders();
  const dir = await makeRunFolder();
  const server = await startPostgres({
    dir,
    ledgerDir: root,
    url: process.env.DATABASE_URL,
    database: "postgres",
    settings,
  });
  const adminUrl = server.url;
  const runId = randomBytes(4).toString("hex");
  process.env[postgresUrlVariable] = adminUrl;
  process.env[runIdVariable] = runId;
  return async () => {
    delete process.env[postgresUrlVariable];
    delete process.env[runIdVariable];
    try {
      if (server.pids.length === 0) await dropRunDatabases(adminUrl, runId);
    } finally {
      await server.stop();
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
      await reapLeftovers(root);
    }
  };
}
