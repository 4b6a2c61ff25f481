import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { defaults, type EngineName, LimError } from "@lim/contracts";
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
import type { Command } from "commander";
import { engineOption, helpBelow, jsonOption, positive } from "../options.ts";
import type { Program } from "../program.ts";
import { announceStack, type RunningStack, readStack, withdrawStack } from "../running-stack.ts";
import type { CliSettings } from "../settings.ts";
import { databaseName, superviseAll } from "./up-supervision.ts";

export const instances: readonly { kind: ServiceKind; port: number }[] = [
  { kind: "index-manager", port: defaults.managerPort },
  { kind: "index-manager", port: defaults.managerPort + 1 },
  { kind: "indexer", port: defaults.indexerPort },
  { kind: "indexer", port: defaults.indexerPort + 1 },
  { kind: "indexed-matcher", port: defaults.matcherPort },
  { kind: "indexed-matcher", port: defaults.matcherPort + 1 },
];

interface UpOptions {
  minList?: number;
  freePorts: boolean;
  engine: EngineName;
  json: boolean;
}

export function addUpCommand(root: Command, { ownSettings, act }: Program): void {
  const up = root
    .command("up")
    .description("start the whole stack on this machine and keep it up until Ctrl-C")
    .option("--min-list <faces>", "faces that make a list worth an index (default: 50000)", positive)
    .option("--free-ports", "any free ports instead of 5180 to 5201", false)
    .addOption(engineOption().default(ownSettings.engine))
    .addOption(jsonOption("print the addresses as one line of JSON once all is up"));
  helpBelow(up, {
    more: `Two managers, two indexers and two matchers, and a private Redis and Postgres where REDIS_URL and DATABASE_URL are
not set. Faces and indexes stay in LIM_HOME. While it runs, the other commands of this checkout find it by themselves.`,
    examples: ["lim up", "lim up --min-list 1000", "LIM_DESCRIPTOR_DIM=128 lim up --free-ports"],
    environment:
      "REDIS_URL, DATABASE_URL, LIM_STORAGE_ROOT, LIM_HOME, LIM_DESCRIPTOR_DIM, LIM_DESCRIPTOR_VERSION, LIM_ENGINE,\n  LIM_API_TOKEN.",
  }).action(({ minList, freePorts, engine, json }: UpOptions) =>
    act((signal) =>
      runUp({ settings: { ...ownSettings, engine }, minIndexingListSize: minList, freePorts, json, signal }),
    ),
  );
}

interface UpCommand {
  settings: CliSettings;
  minIndexingListSize: number | undefined;
  /** Any free ports instead of the default ones. */
  freePorts: boolean;
  /** Prints one line of JSON when all is up, and what else happens to standard error. */
  json: boolean;
  signal: AbortSignal;
}

/** Two of each service on one machine, with data kept in `home`, until the signal fires. */
async function runUp({ settings, minIndexingListSize, freePorts, json, signal }: UpCommand): Promise<number> {
  const say = json ? console.error : console.log;
  const running = await readStack(settings.home);
  if (running !== undefined)
    throw new LimError(
      "bad_settings",
      `lim up runs already in ${settings.home} (process ${running.pid}): use it, end it, or set LIM_HOME to another folder`,
    );
  await mkdir(settings.home, { recursive: true });
  for (const left of await reapLeftovers(settings.home))
    say(`ended ${left.name} (${left.pid}), left by a run that was killed`);
  let servers: Servers | undefined;
  const services: Service[] = [];
  try {
    say("starting Redis and Postgres where none is set …");
    servers = await startServers({
      dir: settings.home,
      ledgerDir: settings.home,
      redisUrl: settings.redisUrl,
      databaseUrl: settings.databaseUrl,
      database: databaseName,
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
    say("starting two managers, two indexers and two matchers …");
    for (const [index, { kind, port }] of instances.entries()) {
      signal.throwIfAborted();
      const name = `${kind}-${(index % 2) + 1}`;
      services.push(await startService(servers, { kind, name, port: freePorts ? 0 : port, env }));
    }
    const stack = {
      pid: process.pid,
      redisUrl: servers.redis.url,
      databaseUrl: servers.postgres.url,
      managerUrl: services[0]?.url ?? settings.managerUrl,
      storageRoot,
      dim: settings.dim,
      descriptorVersion: settings.descriptorVersion,
    };
    await announceStack(settings.home, stack);
    if (json) printAddresses(stack, services);
    else printHowTo(stack, services, settings);
    await superviseAll({ servers, services, env, home: settings.home, signal });
    return 0;
  } finally {
    await withdrawStack(settings.home);
    say("stopping …");
    await stopAll(services, servers);
    say("stopped");
  }
}

function printAddresses({ pid: _, ...stack }: RunningStack, services: readonly Service[]): void {
  const addresses = services.map(({ name, url, process }) => ({ name, url, pid: process.pid }));
  console.log(
    JSON.stringify({
      redis_url: stack.redisUrl,
      database_url: stack.databaseUrl,
      manager_url: stack.managerUrl,
      storage_root: stack.storageRoot,
      services: addresses,
    }),
  );
}

function printHowTo(stack: RunningStack, services: readonly Service[], settings: CliSettings): void {
  console.log("\nLIM is up.");
  for (const { name, url, process } of services)
    console.log(`  ${name.padEnd(18)} ${url}  (process ${process.pid})`);
  console.log(`  documentation of the API: ${services[0]?.url}/docs`);
  console.log(`\nFor programs (commands of this checkout find the stack by themselves while it runs):`);
  console.log(`export REDIS_URL=${stack.redisUrl}`);
  console.log(`export DATABASE_URL=${stack.databaseUrl}`);
  console.log(`export LIM_MANAGER_URL=${stack.managerUrl}`);
  if (settings.apiToken !== undefined)
    console.log("# and LIM_API_TOKEN, with the value that it has here: all services ask for it");
  console.log(`\nNext, in another terminal (descriptors of ${settings.dim} numbers):`);
  console.log("  npx lim import faces.ndjson --list staff      # or .csv, .npy, .fvecs, .f32");
  console.log("  npx lim tasks create staff --watch            # build its index now");
  console.log("  npx lim match --list staff --descriptor query.json");
  console.log("  npx lim doctor                                # where something does not work");
  console.log(`\nCtrl-C stops everything; faces and indexes stay in ${settings.home}`);
}
