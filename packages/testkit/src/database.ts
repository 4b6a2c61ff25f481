import { randomBytes } from "node:crypto";
import type { FacesDb } from "@lim/faces-db";
import { connectSql, quoteIdentifier, type SqlClient, withDatabase } from "@lim/local-servers";

/** Names of the variables that the global setup hands to the workers. */
export const postgresUrlVariable = "LIM_TEST_POSTGRES_URL";
export const runIdVariable = "LIM_TEST_RUN_ID";

/** All databases of a run begin with this. */
export const databasePrefix = (runId: string): string => `lim_test_${runId}_`;

/** One worker makes the template, the others wait on this lock. */
const templateLock = 7_205_759;

/** Loaded when it is needed: most tests that use this kit have no database. */
async function openDb(connectionString: string): Promise<FacesDb> {
  const { openFacesDb } = await import("@lim/faces-db");
  return openFacesDb({ connectionString, applicationName: "lim-test" });
}

function requireVariable(name: string): string {
  const value = process.env[name];
  if (value === undefined)
    throw new Error(
      `${name} is not set: run through vitest's integration or e2e project, whose global setup starts Postgres`,
    );
  return value;
}

/**
 * A private, migrated database for one test file, cloned from a template on the test run's server. `drop` closes `db`,
 * ends all other sessions on the database and removes it.
 */
export async function createTestDatabase(): Promise<{ url: string; db: FacesDb; drop(): Promise<void> }> {
  const adminUrl = requireVariable(postgresUrlVariable);
  const prefix = databasePrefix(requireVariable(runIdVariable));
  const name = `${prefix}${randomBytes(6).toString("hex")}`;
  await withAdmin(adminUrl, async (admin) => {
    const template = await ensureTemplate(admin, adminUrl, `${prefix}template`);
    await admin.query(`CREATE DATABASE ${quoteIdentifier(name)} TEMPLATE ${quoteIdentifier(template)}`);
  });
  const url = withDatabase(adminUrl, name);
  const db = await openDb(url);
  return {
    url,
    db,
    async drop() {
      await db.close();
      await withAdmin(adminUrl, (admin) => dropDatabase(admin, name));
    },
  };
}

async function withAdmin<T>(adminUrl: string, work: (admin: SqlClient) => Promise<T>): Promise<T> {
  const admin = await connectSql(adminUrl);
  try {
    return await work(admin);
  } finally {
    await admin.close();
  }
}

/** The run's migrated database; the mark IS_TEMPLATE comes last, so one that a killed worker left half made is redone. */
async function ensureTemplate(admin: SqlClient, adminUrl: string, template: string): Promise<string> {
  const isReady = async () =>
    (await admin.query("SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate", [template])).length >
    0;
  if (await isReady()) return template;
  await admin.query("SELECT pg_advisory_lock($1)", [templateLock]);
  try {
    if (await isReady()) return template;
    await dropDatabase(admin, template);
    await admin.query(`CREATE DATABASE ${quoteIdentifier(template)}`);
    const db = await openDb(withDatabase(adminUrl, template));
    try {
      await db.migrate();
    } finally {
      await db.close();
    }
    // Cloning is refused while a session is on the template, and those of a closed pool end a moment later.
    await admin.query(`ALTER DATABASE ${quoteIdentifier(template)} WITH ALLOW_CONNECTIONS false`);
    await admin.query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", [
      template,
    ]);
    await admin.query(`ALTER DATABASE ${quoteIdentifier(template)} WITH IS_TEMPLATE true`);
    return template;
  } finally {
    await admin.query("SELECT pg_advisory_unlock($1)", [templateLock]);
  }
}

async function dropDatabase(admin: SqlClient, name: string): Promise<void> {
  await admin.query(`DROP DATABASE IF EXISTS ${quoteIdentifier(name)} WITH (FORCE)`);
}

/** What test files of a run left on a server that outlives it. */
export async function dropRunDatabases(adminUrl: string, runId: string): Promise<void> {
  await withAdmin(adminUrl, async (admin) => {
    const rows = await admin.query("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", [
      databasePrefix(runId),
    ]);
    for (const { datname } of rows) {
      const name = String(datname);
      await admin.query(`ALTER DATABASE ${quoteIdentifier(name)} WITH IS_TEMPLATE false`);
      await dropDatabase(admin, name);
    }
  });
}
