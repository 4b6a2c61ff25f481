import { constants } from "node:fs";
import { access, mkdir } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isLimError, LimError } from "@lim/contracts";
import { freePort } from "./free-port.ts";
import { openProcessLedger } from "./ledger.ts";
import type { LocalServer } from "./local-server.ts";
import { pingRedis } from "./redis-ping.ts";
import { logSize, logTail, type ServerProcess, spawnServer, throwIfAborted } from "./spawn-server.ts";

export interface RedisOptions {
  /** Folder for logs, data and process ids. */
  dir: string;
  port?: number;
  /** Use this server instead of starting one. */
  url?: string | undefined;
  extraArgs?: readonly string[];
  /** Folder of the process ledger; default `dir`. */
  ledgerDir?: string;
  /** Ends the start with the error aborted; nothing stays behind. */
  signal?: AbortSignal | undefined;
}

/** A server that has not answered by then is given up. */
const startLimitMs = 20_000;
const pollMs = 20;
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
  const command = await findOnPath(["redis-server", "valkey-server"]);
  if (command === undefined)
    throw new LimError(
      "bad_settings",
      "no redis-server or valkey-server on PATH: install one (Debian, Ubuntu: apt-get install redis-server; " +
        "macOS: brew install redis) or set REDIS_URL to a running server",
    );
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? (await freePort());
    try {
      return await startPrivate(command, port, options);
    } catch (error) {
      const portTaken = isLimError(error) && /address already in use/i.test(error.detail);
      if (!portTaken || options.port !== undefined || attempt === portTries) throw error;
    }
  }
}

async function startPrivate(command: string, port: number, options: RedisOptions): Promise<LocalServer> {
  const dir = resolve(options.dir);
  await mkdir(dir, { recursive: true });
  const ledger = await openProcessLedger(options.ledgerDir ?? dir);
  const logPath = join(dir, `redis-${port}.log`);
  const logStart = await logSize(logPath);
  const settings = {
    port: String(port),
    bind: "127.0.0.1",
    save: "",
    appendonly: "no",
    "maxmemory-policy": "noeviction",
    daemonize: "no",
    dir,
  };
  const server = await spawnServer(
    {
      name: "redis",
      command,
      args: [
        ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
        ...(options.extraArgs ?? []),
      ],
      cwd: dir,
      logPath,
      stopSignals: [{ signal: "SIGTERM", limitMs: 10_000 }],
    },
    ledger,
  );
  const url = `redis://127.0.0.1:${port}`;
  try {
    await waitForPing(url, server, { path: logPath, start: logStart }, options.signal);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return { url, pids: [server.pid], stop: () => server.stop() };
}

/** The log must say so too: on a port that was taken meanwhile, a stranger answers the PING. */
const readyLine = "Ready to accept connections";

async function waitForPing(
  url: string,
  server: ServerProcess,
  log: { path: string; start: number },
  signal: AbortSignal | undefined,
): Promise<void> {
  const deadline = performance.now() + startLimitMs;
  for (;;) {
    throwIfAborted(signal, "Redis");
    const fault = await pingRedis(url, 1_000).then(
      () => undefined,
      (error: unknown) => error,
    );
    const ended = server.ended();
    if (ended !== undefined || performance.now() > deadline)
      throw new LimError(
        "bad_settings",
        `Redis did not start (${ended ?? `no answer within ${startLimitMs} ms`}); end of ${log.path}:\n${await logTail(log.path)}`,
        { cause: fault },
      );
    if (fault === undefined && (await logTail(log.path, log.start)).includes(readyLine)) return;
    await sleep(pollMs);
  }
}

async function findOnPath(names: readonly string[]): Promise<string | undefined> {
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
