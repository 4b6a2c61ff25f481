import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import { openProcessLedger } from "./ledger.ts";
import type { LocalServer } from "./local-server.ts";
import { pingRedis } from "./redis-ping.ts";
import { logSize, logTail, type ServerProcess, spawnServer, throwIfAborted } from "./spawn-server.ts";

/** A server that has not answered by then is given up. */
const startLimitMs = 20_000;
const pollMs = 20;
/** The log must say so too: on a port that was taken meanwhile, a stranger answers the PING. */
const serverReadyLine = "Ready to accept connections";
const sentinelReadyLine = "Sentinel ID is";

export interface RedisProcessOptions {
  /** Folder for logs and data. */
  dir: string;
  program: string;
  port: number;
  extraArgs?: readonly string[];
  ledgerDir?: string;
  /** Its settings file makes it a Sentinel. */
  sentinelConfig?: string;
  signal?: AbortSignal | undefined;
}

/** One process of the Redis server on 127.0.0.1, without persistence, noeviction; it answers when this resolves. */
export async function launchRedis(options: RedisProcessOptions): Promise<LocalServer> {
  const { port, sentinelConfig } = options;
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
  const args = sentinelConfig
    ? [sentinelConfig, "--sentinel"]
    : Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
  const server = await spawnServer(
    {
      name: "redis",
      command: options.program,
      args: [...args, ...(options.extraArgs ?? [])],
      cwd: dir,
      logPath,
      stopSignals: [{ signal: "SIGTERM", limitMs: 10_000 }],
    },
    ledger,
  );
  const url = `redis://127.0.0.1:${port}`;
  try {
    const readyLine = sentinelConfig ? sentinelReadyLine : serverReadyLine;
    await waitForPing(url, server, { path: logPath, start: logStart, readyLine }, options.signal);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return { url, pids: [server.pid], stop: () => server.stop() };
}

async function waitForPing(
  url: string,
  server: ServerProcess,
  log: { path: string; start: number; readyLine: string },
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
    if (fault === undefined && (await logTail(log.path, log.start)).includes(log.readyLine)) return;
    await sleep(pollMs);
  }
}
