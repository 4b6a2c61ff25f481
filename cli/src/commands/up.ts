import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { defaults, LimError } from "@lim/contracts";
import { openFacesDb } from "@lim/faces-db";
import { reapLeftovers } from "@lim/local-servers";
import {
  type Servers,
  type Service,
  type ServiceKind,
  startServers,
  startService,
  stopAll,
} from "@lim/testkit";
import type { CliSettings } from "../settings.ts";

const instances: readonly { kind: ServiceKind; port: number }[] = [
  { kind: "index-manager", port: defaults.managerPort },
  { kind: "index-manager", port: defaults.managerPort + 1 },
  { kind: "indexer", port: defaults.indexerPort },
  { kind: "indexer", port: defaults.indexerPort + 1 },
  { kind: "indexed-matcher", port: defaults.matcherPort },
  { kind: "indexed-matcher", port: defaults.matcherPort + 1 },
];

/** A service that ends more often than this within the window is not started again: the stack stops with its last words. */
const maxRestarts = 5;
const restartWindowMs = 60_000;
const quotedLines = 10;

export interface UpCommand {
  settings: CliSettings;
  minIndexingListSize: number | undefined;
  /** Any free ports instead of the default ones. */
  freePorts: boolean;
  signal: AbortSignal;
}

/** Two of each service on one machine, with data kept in `home`, until the signal fires. */
export async function runUp({
  settings,
  minIndexingListSize,
  freePorts,
  signal,
}: UpCommand): Promise<number> {
  await mkdir(settings.home, { recursive: true });
  for (const left of await reapLeftovers(settings.home))
    console.log(`ended ${left.name} (${left.pid}), left by a run that was killed`);
  let servers: Servers | undefined;
  const services: Service[] = [];
  try {
    servers = await startServers({
      dir: settings.home,
      ledgerDir: settings.home,
      redisUrl: settings.redisUrl,
      databaseUrl: settings.databaseUrl,
      database: "lim",
    });
    const db = openFacesDb({ connectionString: servers.postgres.url, applicationName: "lim up" });
    await db.migrate({ signal }).finally(() => db.close());
    const storageRoot = settings.storageRoot ?? join(settings.home, "index-storage");
    await mkdir(storageRoot, { recursive: true });
    const env = {
      LIM_STORAGE_ROOT: storageRoot,
      LIM_DESCRIPTOR_DIM: String(settings.dim),
      LIM_DESCRIPTOR_VERSION: String(settings.descriptorVersion),
      LIM_ENGINE: settings.engine,
      ...(minIndexingListSize === undefined
        ? {}
        : { LIM_MIN_INDEXING_LIST_SIZE: String(minIndexingListSize) }),
    };
    for (const [index, { kind, port }] of instances.entries()) {
      signal.throwIfAborted();
      const name = `${kind}-${(index % 2) + 1}`;
      services.push(await startService(servers, { kind, name, port: freePorts ? 0 : port, env }));
    }
    printHowTo(servers, services, settings);
    await superviseAll(servers, services, env, signal);
    return 0;
  } finally {
    console.log("stopping …");
    await stopAll(services, servers);
    console.log("stopped");
  }
}

/** Starts services that ended by themselves again, until the signal fires or one of them ends too often. */
async function superviseAll(
  servers: Servers,
  services: Service[],
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  // Who gives up must also keep the others from being started again while everything is stopped.
  const givenUp = new AbortController();
  const over = AbortSignal.any([signal, givenUp.signal]);
  const slots = services.map((_, slot) =>
    supervise(servers, services, slot, env, over).catch((error: unknown) => {
      givenUp.abort(error);
      throw error;
    }),
  );
  for (const end of await Promise.allSettled(slots)) if (end.status === "rejected") throw end.reason;
}

async function supervise(
  servers: Servers,
  services: Service[],
  slot: number,
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  const stopped = new Promise<"stopped">((resolve) => {
    if (signal.aborted) resolve("stopped");
    else signal.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
  let endedMs: number[] = [];
  for (;;) {
    const service = services[slot];
    if (service === undefined) return;
    const how = await Promise.race([service.process.exited, stopped]);
    if (signal.aborted) return;
    const { name, kind, url, process } = service;
    const lastWords = process.lines.slice(-quotedLines).join("\n");
    endedMs = [...endedMs.filter((ms) => performance.now() - ms < restartWindowMs), performance.now()];
    if (endedMs.length > maxRestarts)
      throw new LimError(
        "internal",
        `${name} ended ${endedMs.length} times within ${restartWindowMs / 1000} s, last with ${how}:\n${lastWords}`,
      );
    console.error(`${name} ended (${how}), its last lines:\n${lastWords}`);
    await servers.ledger.forget(process.pid);
    const again = await startService(servers, { kind, name, port: Number(new URL(url).port), env });
    services[slot] = again;
    console.error(`${name} runs again (process ${again.process.pid})`);
  }
}

function printHowTo(servers: Servers, services: readonly Service[], settings: CliSettings): void {
  console.log("\nLIM is up.");
  for (const { name, url, process } of services)
    console.log(`  ${name.padEnd(18)} ${url}  (process ${process.pid})`);
  console.log(`  documentation of the API: ${services[0]?.url}/docs`);
  console.log(`\nexport REDIS_URL=${servers.redis.url}`);
  console.log(`export DATABASE_URL=${servers.postgres.url}`);
  console.log(`export LIM_MANAGER_URL=${services[0]?.url}`);
  if (settings.apiToken !== undefined)
    console.log("# and LIM_API_TOKEN, with the value that it has here: all services ask for it");
  console.log("\nThen, in another terminal:");
  console.log(`  npx lim import faces.ndjson --list staff --dim ${settings.dim}`);
  console.log("  npx lim tasks create staff --watch");
  console.log("  npx lim match --list staff --descriptor query.json");
  console.log(`\nCtrl-C stops everything; faces and indexes stay in ${settings.home}`);
}
