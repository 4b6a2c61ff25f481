import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { isLimError, LimError } from "@lim/contracts";
import { freePort } from "./free-port.ts";
import type { LocalServer } from "./local-server.ts";
import { pingRedis } from "./redis-ping.ts";
import { launchRedis } from "./redis-process.ts";

export interface RedisOptions {
  /** Folder for logs, data and process ids. */
  dir: string;
  port?: number;
  /** Use this server (or these: any Redis URL) instead of starting one. */
  url?: string | undefined;
  extraArgs?: readonly string[];
  /** Folder of the process ledger; default `dir`. */
  ledgerDir?: string;
  /** Path of the server's program; default: `redis-server` or `valkey-server` of PATH. */
  program?: string;
  /** Ends the start with the error aborted; nothing stays behind. */
  signal?: AbortSignal | undefined;
}

/** Tries with another free port when somebody took the one we had found. */
const portTries = 5;
const foundServerLimitMs = 5_000;

/**
 * The server of `url`, else a private `redis-server` or `valkey-server` of PATH on a free port of 127.0.0.1, without
 * persistence, noeviction. Throws redis_unavailable where `url` does not answer PING, bad_settings with the remedy
 * (apt-get, brew) where there is no server to start or it does not start (with the end of its log).
 */
export async function startRedis(options: RedisOptions): Promise<LocalServer> {
  if (options.url !== undefined) {
    await pingRedis(options.url, foundServerLimitMs);
    return { url: options.url, pids: [], stop: async () => {} };
  }
  const program = options.program ?? (await requireRedis());
  return onFreePort(options.port, (port) => launchRedis({ ...options, program, port }));
}

/** Calls `start` with the port, or with free ones until it has one that nobody else took first. */
export async function onFreePort<T>(
  fixed: number | undefined,
  start: (port: number) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(fixed ?? (await freePort()));
    } catch (error) {
      const portTaken = isLimError(error) && /address already in use/i.test(error.detail);
      if (!portTaken || fixed !== undefined || attempt === portTries) throw error;
    }
  }
}

export async function requireRedis(): Promise<string> {
  const program = await findOnPath(["redis-server", "valkey-server"]);
  if (program === undefined)
    throw new LimError(
      "bad_settings",
      "no redis-server or valkey-server on PATH: install one (Debian, Ubuntu: apt-get install redis-server; " +
        "macOS: brew install redis) or set REDIS_URL to a running server",
    );
  return program;
}

/** Path of the first of these programs that PATH has. */
export async function findOnPath(names: readonly string[]): Promise<string | undefined> {
  const suffix = process.platform === "win32" ? ".exe" : "";
  for (const name of names)
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      if (folder === "") continue;
      const path = join(folder, name + suffix);
      if (
        await access(path, constants.X_OK).then(
          () => true,
          () => false,
        )
      )
        return path;
    }
  return undefined;
}
