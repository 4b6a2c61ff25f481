import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FacesDb, openFacesDb } from "@lim/faces-db";
import { reapLeftovers, startPostgres, startRedis } from "@lim/local-servers";

/** One place for all benches: the servers of a run that was killed are ended by the next one. */
const ledgerDir = join(tmpdir(), "lim-bench-servers");

/** Ends what earlier, killed runs left, and says where this one's servers are recorded. */
export async function benchLedger(): Promise<string> {
  await mkdir(ledgerDir, { recursive: true });
  await reapLeftovers(ledgerDir);
  return ledgerDir;
}

export interface BenchServers {
  redisUrl: string;
  postgresUrl: string;
  db: FacesDb;
}

/** Private Redis and Postgres below `dir`, with a migrated database. What `closers` gets ends them, last one first. */
export async function startBenchServers(
  dir: string,
  closers: (() => Promise<unknown>)[],
): Promise<BenchServers> {
  const ledger = await benchLedger();
  const redis = await startRedis({ dir: join(dir, "redis"), ledgerDir: ledger });
  closers.push(() => redis.stop());
  const postgres = await startPostgres({
    dir: join(dir, "postgres"),
    database: "lim_bench",
    ledgerDir: ledger,
  });
  closers.push(() => postgres.stop());
  const db = openFacesDb({ connectionString: postgres.url, applicationName: "lim-bench" });
  closers.push(() => db.close());
  await db.migrate();
  return { redisUrl: redis.url, postgresUrl: postgres.url, db };
}
