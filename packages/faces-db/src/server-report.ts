import { LimError } from "@lim/contracts";
import pg from "pg";
import { secretsOf } from "./database.ts";
import { toLimError } from "./errors.ts";
import { readMigrations } from "./migrate.ts";

/** Samples of the clock of which the quickest counts. */
const clockSamples = 3;
const closeLimitMs = 500;

export interface MigrationState {
  /** How many are applied: 0 in a fresh database. */
  applied: number;
  /** Of this release, not applied yet. */
  missing: string[];
  /** Applied, but from a file that was another one. */
  changed: string[];
  /** Applied by another, newer release. */
  unknown: string[];
}

/** What a Postgres server and its database say of themselves. */
export interface DatabaseReport {
  /** As in "17.2". */
  version: string;
  /** As in 170002. */
  versionNumber: number;
  database: string;
  user: string;
  isReadOnly: boolean;
  freeConnections: number;
  migrations: MigrationState;
  /** Faces of the largest list; undefined where the schema is not there. */
  largestList: number | undefined;
  /** By how much this machine's clock is ahead, within half of the round trip. */
  clock: { localAheadMs: number; roundTripMs: number };
}

/**
 * Looks at a database over a connection of its own and changes nothing. Throws postgres_unavailable or bad_settings,
 * after `timeoutMs` at the latest for each step; passwords are in no text.
 */
export async function readDatabaseReport(options: {
  connectionString: string;
  timeoutMs: number;
}): Promise<DatabaseReport> {
  const secrets = secretsOf(options.connectionString);
  let client: pg.Client;
  try {
    client = new pg.Client({
      connectionString: options.connectionString,
      connectionTimeoutMillis: options.timeoutMs,
      query_timeout: options.timeoutMs,
      application_name: "lim doctor",
    });
  } catch (thrown) {
    throw new LimError("bad_settings", `Postgres connection string: ${toLimError(thrown, secrets).detail}`);
  }
  client.on("error", () => {});
  try {
    await client.connect();
    return await reportOf(client);
  } catch (thrown) {
    throw toLimError(thrown, secrets);
  } finally {
    await closeSoon(client);
  }
}

/** A server that hangs does not say goodbye. */
async function closeSoon(client: pg.Client): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, closeLimitMs);
  });
  await Promise.race([client.end().catch(() => {}), limit]);
  clearTimeout(timer);
}

async function reportOf(client: pg.Client): Promise<DatabaseReport> {
  const clock = await measureClock(client);
  const { rows } = await client.query<{
    version: string;
    number: number;
    database: string;
    user: string;
    read_only: boolean;
    free: number;
  }>(
    `SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
       current_database() AS database, current_user AS user,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only,
       (current_setting('max_connections')::int - (SELECT count(*) FROM pg_stat_activity))::int AS free`,
  );
  const [server] = rows;
  if (server === undefined) throw new LimError("internal", "Postgres did not tell its version");
  const migrations = await migrationState(client);
  return {
    version: server.version.split(" ")[0] ?? server.version,
    versionNumber: server.number,
    database: server.database,
    user: server.user,
    isReadOnly: server.read_only,
    freeConnections: server.free,
    migrations,
    largestList: migrations.missing.length === 0 ? await largestList(client) : undefined,
    clock,
  };
}

async function measureClock(client: pg.Client): Promise<DatabaseReport["clock"]> {
  let best = { localAheadMs: 0, roundTripMs: Number.POSITIVE_INFINITY };
  for (let sample = 0; sample < clockSamples; sample++) {
    const sentAtMs = performance.now();
    const { rows } = await client.query<{ ms: number }>(
      "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS ms",
    );
    const roundTripMs = performance.now() - sentAtMs;
    const serverMs = Number(rows[0]?.ms) + roundTripMs / 2;
    if (roundTripMs < best.roundTripMs) best = { localAheadMs: Date.now() - serverMs, roundTripMs };
  }
  return best;
}

async function migrationState(client: pg.Client): Promise<MigrationState> {
  const ours = await readMigrations();
  const { rows: found } = await client.query("SELECT to_regclass('faces.schema_migration') AS name");
  const applied = new Map<string, string>();
  if (found[0]?.name !== null) {
    const { rows } = await client.query<{ name: string; checksum: string }>(
      "SELECT name, checksum FROM faces.schema_migration",
    );
    for (const { name, checksum } of rows) applied.set(name, checksum);
  }
  const names = new Set(ours.map(({ name }) => name));
  return {
    applied: applied.size,
    missing: ours.filter(({ name }) => !applied.has(name)).map(({ name }) => name),
    changed: ours
      .filter(({ name, checksum }) => applied.has(name) && applied.get(name) !== checksum)
      .map(({ name }) => name),
    unknown: [...applied.keys()].filter((name) => !names.has(name)).toSorted(),
  };
}

/** By the newest row of each list's feed, so it costs a look per list and not one per face. */
async function largestList(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ faces: string | null }>(
    `SELECT max(newest.face_count) AS faces FROM faces.list l CROSS JOIN LATERAL (
       SELECT c.face_count FROM faces.list_change c WHERE c.list_id = l.list_id ORDER BY c.revision DESC LIMIT 1
     ) newest`,
  );
  return Number(rows[0]?.faces ?? 0);
}
