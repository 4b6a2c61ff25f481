import { resolve } from "node:path";
import { LimError } from "@lim/contracts";
import type { LocalServer } from "./local-server.ts";
import { startEmbeddedPostgres } from "./postgres-embedded.ts";
import { connectRaw, ensureDatabase, errorCode, postgresUnavailable, withDatabase } from "./sql.ts";

export interface PostgresOptions {
  /** Folder for the log, the data and process ids. The data is kept and used again at the next start. */
  dir: string;
  port?: number;
  /** Use this server instead of starting one. */
  url?: string | undefined;
  /** Database to create where it is missing; a database that `url` names has precedence. */
  database: string;
  /** Settings for `postgres -c`. */
  settings?: Readonly<Record<string, string>>;
  /** Folder of the process ledger; default `dir`. */
  ledgerDir?: string;
  /** Ends the start with the error aborted; nothing stays behind. */
  signal?: AbortSignal | undefined;
}

/**
 * The server of `url`, else an embedded PostgreSQL 18 from npm on 127.0.0.1 with a password of its own, as an
 * unprivileged user where we are root. Throws postgres_unavailable where `url` cannot be used, bad_settings where the
 * embedded server cannot be started (with the end of its log).
 */
export async function startPostgres(options: PostgresOptions): Promise<LocalServer> {
  if (options.url === undefined) return startEmbeddedPostgres({ ...options, dir: resolve(options.dir) });
  return { url: await useServer(options.url, options.database), pids: [], stop: async () => {} };
}

async function useServer(url: string, database: string): Promise<string> {
  let named: string;
  try {
    named = decodeURIComponent(new URL(url).pathname.slice(1));
  } catch (error) {
    throw new LimError(
      "bad_settings",
      "the Postgres URL is not a URL like postgres://user:password@host/name",
      {
        cause: error,
      },
    );
  }
  const target = named === "" ? withDatabase(url, database) : url;
  try {
    await (await connectRaw(target)).close();
  } catch (error) {
    const missingDatabase = "3D000";
    if (errorCode(error) !== missingDatabase) throw postgresUnavailable(target, error);
    await ensureDatabase(withDatabase(url, "postgres"), named === "" ? database : named);
  }
  return target;
}
