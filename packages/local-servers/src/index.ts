export interface LocalServer {
  url: string;
  /** Process ids that were started here; empty for a server that was found. */
  pids: number[];
  stop(): Promise<void>;
}

/**
 * REDIS_URL, else a private `redis-server` or `valkey-server` of PATH on a free port, without persistence, noeviction.
 * Throws bad_settings with the remedy (apt-get, brew) where there is none.
 */
export declare function startRedis(options: {
  /** Folder for logs, data and process ids. */
  dir: string;
  port?: number;
  /** Use this server instead of starting one. */
  url?: string | undefined;
  extraArgs?: readonly string[];
}): Promise<LocalServer>;

/** DATABASE_URL, else an embedded PostgreSQL from npm, as an unprivileged user where we are root. */
export declare function startPostgres(options: {
  dir: string;
  port?: number;
  url?: string | undefined;
  /** Database to create where it is missing. */
  database: string;
  /** Settings for `postgres -c`. */
  settings?: Readonly<Record<string, string>>;
}): Promise<LocalServer>;

/**
 * Children of one run, by recorded process id: `record` writes them to `dir`, `reapLeftovers` ends what an earlier
 * run that was killed left behind (checked by start time, so a reused id is never hit), newest first.
 */
export interface ProcessLedger {
  record(entry: { pid: number; name: string }): Promise<void>;
  forget(pid: number): Promise<void>;
}
export declare function openProcessLedger(dir: string): Promise<ProcessLedger>;
export declare function reapLeftovers(dir: string): Promise<{ pid: number; name: string }[]>;

export declare function freePort(): Promise<number>;
