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
      ...(minIndexingListSize === undefined
        ? {}
        : { LIM_MIN_INDEXING_LIST_SIZE: String(minIndexingListSize) }),
    };
    for (const [index, { kind, port }] of instances.entries()) {
      signal.throwIfAborted();
      services.push(
        await startService(servers, {
          kind,
          name: `${kind}-${(index % 2) + 1}`,
          port: freePorts ? 0 : port,
          env,
        }),
      );
    }
    printHowTo(servers, services, settings);
    await waitUntilOver(services, signal);
    return 0;
  } finally {
    console.log("stopping …");
    await stopAll(services, servers);
    console.log("stopped");
  }
}

/** Ends with the signal; a service that ends by itself is an error with its last words. */
async function waitUntilOver(services: readonly Service[], signal: AbortSignal): Promise<void> {
  const aborted = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
  const died = services.map(async (service) => {
    const how = await service.process.exited;
    if (signal.aborted) return;
    throw new LimError(
      "internal",
      `${service.name} ended (${how}). Its last lines:\n${service.process.lines.slice(-10).join("\n")}`,
    );
  });
  await Promise.race([aborted, ...died]);
  for (const pending of died) pending.catch(() => undefined);
}

function printHowTo(servers: Servers, services: readonly Service[], settings: CliSettings): void {
  console.log("\nLIM is up.");
  for (const { name, url, process } of services)
    console.log(`  ${name.padEnd(18)} ${url}  (process ${process.pid})`);
  console.log(`  documentation of the API: ${services[0]?.url}/docs`);
  console.log(`\nexport REDIS_URL=${servers.redis.url}`);
  console.log(`export DATABASE_URL=${servers.postgres.url}`);
  console.log(`export LIM_MANAGER_URL=${services[0]?.url}`);
  console.log("\nThen, in another terminal:");
  console.log(`  npx lim import faces.ndjson --list staff --dim ${settings.dim}`);
  console.log("  npx lim tasks create --list <list id> --watch");
  console.log("  npx lim match --list staff --descriptor query.json");
  console.log(`\nCtrl-C stops everything; faces and indexes stay in ${settings.home}`);
}
