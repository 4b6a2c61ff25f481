import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { LimError } from "@lim/contracts";
import {
  type LocalServer,
  openProcessLedger,
  type ProcessLedger,
  startPostgres,
  startRedis,
} from "@lim/local-servers";
import { type ManagedProcess, startProcess } from "./managed-process.ts";

const projectRoot = fileURLToPath(new URL("../../../", import.meta.url));

export type ServiceKind = "index-manager" | "indexer" | "indexed-matcher";

export interface Service {
  kind: ServiceKind;
  name: string;
  url: string;
  process: ManagedProcess;
}

export interface Servers {
  redis: LocalServer;
  postgres: LocalServer;
  ledger: ProcessLedger;
  ledgerDir: string;
}

const serviceStartLimitMs = 60_000;
const serviceStopGraceMs = 15_000;

const kinds: Record<ServiceKind, { portEnv: string; hostEnv: string; extra: Record<string, string> }> = {
  "index-manager": { portEnv: "LIM_MANAGER_PORT", hostEnv: "LIM_MANAGER_HOST", extra: {} },
  indexer: { portEnv: "LIM_INDEXER_PORT", hostEnv: "LIM_INDEXER_HOST", extra: {} },
  "indexed-matcher": {
    portEnv: "LIM_MATCHER_PORT",
    hostEnv: "LIM_MATCHER_HOST",
    extra: { VL_LIM_MATCHER_HOST: "127.0.0.1" },
  },
};

/** Redis and Postgres: those of the settings, else private ones in `dir`. What was started is in the ledger. */
export async function startServers(options: {
  dir: string;
  ledgerDir: string;
  redisUrl: string | undefined;
  databaseUrl: string | undefined;
  database: string;
  postgresSettings?: Readonly<Record<string, string>>;
}): Promise<Servers> {
  const ledger = await openProcessLedger(options.ledgerDir);
  await mkdir(options.dir, { recursive: true });
  const redis = await startRedis({
    dir: join(options.dir, "redis"),
    ledgerDir: options.ledgerDir,
    url: options.redisUrl,
  });
  try {
    const postgres = await startPostgres({
      dir: join(options.dir, "postgres"),
      ledgerDir: options.ledgerDir,
      url: options.databaseUrl,
      database: options.database,
      ...(options.postgresSettings === undefined ? {} : { settings: options.postgresSettings }),
    });
    return { redis, postgres, ledger, ledgerDir: options.ledgerDir };
  } catch (error) {
    await redis.stop();
    throw error;
  }
}

/** Starts one service as its own process and waits until it listens. `port` 0 takes a free one. */
export async function startService(
  servers: Servers,
  options: {
    kind: ServiceKind;
    name: string;
    port: number;
    env: Readonly<Record<string, string>>;
    /** More flags for Node, e.g. an `--import` of a fault hook. */
    nodeArgs?: readonly string[];
  },
): Promise<Service> {
  const { kind, name } = options;
  const { portEnv, hostEnv, extra } = kinds[kind];
  const process = startProcess({
    name,
    script: join(projectRoot, "apps", kind, "dist", "main.js"),
    nodeArgs: ["--enable-source-maps", ...(options.nodeArgs ?? [])],
    env: {
      // One file is one service's own; three services started from here cannot share it.
      LIM_SETTINGS_FILE: "",
      REDIS_URL: servers.redis.url,
      DATABASE_URL: servers.postgres.url,
      [portEnv]: String(options.port),
      [hostEnv]: "127.0.0.1",
      ...extra,
      ...options.env,
    },
  });
  await servers.ledger.record({ pid: process.pid, name });
  try {
    const line = await process.waitForLine(/(index-manager|indexer|indexed-matcher) listening/, {
      timeoutMs: serviceStartLimitMs,
    });
    const url = /https?:\/\/127\.0\.0\.1:\d+/.exec(line)?.[0];
    if (url === undefined) throw new Error(`it does not say where it listens: ${line}`);
    return { kind, name, url, process };
  } catch (cause) {
    await process.stop();
    await servers.ledger.forget(process.pid);
    throw new LimError("internal", `${name} did not start: ${(cause as Error).message}`, { cause });
  }
}

/** All services at once (an indexer may finish its build), then the servers. Never throws. */
export async function stopAll(services: readonly Service[], servers: Servers | undefined): Promise<void> {
  await Promise.allSettled(
    services.map(async ({ process }) => {
      await process.stop({ graceMs: serviceStopGraceMs });
      await servers?.ledger.forget(process.pid);
    }),
  );
  await servers?.postgres.stop().catch(() => undefined);
  await servers?.redis.stop().catch(() => undefined);
}
