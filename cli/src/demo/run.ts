import { randomUUID } from "node:crypto";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type EngineName, LimError } from "@lim/contracts";
import { openFacesDb } from "@lim/faces-db";
import { reapLeftovers } from "@lim/local-servers";
import { createSearchPlugin } from "@lim/search-plugin";
import {
  type Servers,
  type Service,
  type ServiceKind,
  startServers,
  startService,
  stopAll,
} from "@lim/testkit";
import type { CliSettings } from "../settings.ts";
import { followBuilds, importLists, measureBareBuild } from "./builds.ts";
import { type DemoContext, untilServed } from "./context.ts";
import { checkMatcherDeath, checkRebuildAndReload, checkTakeover } from "./failures.ts";
import { checkExactSearch, checkMatching } from "./matching.ts";
import { checkRefresh } from "./refreshing.ts";
import { ReportBuilder, writeReport } from "./report.ts";
import { say, sayToStandardError } from "./say.ts";
import { type FaceSource, realSource, syntheticSource } from "./source.ts";

export interface DemoCommand {
  settings: CliSettings;
  faces?: string;
  names?: string;
  dim: number;
  report: string;
  engine: EngineName;
  /** Prints the report as JSON, and what happens to standard error. */
  json: boolean;
  signal: AbortSignal;
}

const instances = 2;

/** The main job on real processes, each step checked against exact search. Exit code 0 only if every check held. */
export async function runDemo(command: DemoCommand): Promise<number> {
  const { signal } = command;
  if (command.json) sayToStandardError();
  const home = command.settings.demoHome;
  await cleanUpAfterKilledRuns(home);
  const source = await sourceOf(command);
  say(`LIM demo: ${source.description}, engine ${command.engine}`);
  const report = new ReportBuilder();
  const runId = randomUUID().slice(0, 8);
  const dir = join(home, `run-${process.pid}`);
  const services: Service[] = [];
  const cleanUps: (() => Promise<unknown>)[] = [];
  let servers: Servers | undefined;
  const startedMs = performance.now();
  try {
    step("starting Redis and Postgres");
    servers = await startServers({
      dir,
      ledgerDir: home,
      redisUrl: command.settings.redisUrl,
      databaseUrl: command.settings.databaseUrl,
      database: "lim_demo",
    });
    const context = await prepare(command, { source, servers, services, report, runId, dir, cleanUps });
    await runSteps(context, command.settings.descriptorVersion);
  } catch (error) {
    if (signal.aborted) throw new LimError("aborted", "demo stopped", { cause: error });
    report.check("the demo ran to its end", false, error instanceof Error ? error.message : String(error));
    printLastWords(services);
  } finally {
    step("stopping everything");
    for (const cleanUp of cleanUps.reverse()) await cleanUp().catch(() => undefined);
    await stopAll(services, servers);
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
  const result = report.build();
  await writeReport(command.report, result);
  const failed = result.checks.filter((check) => !check.ok);
  say(`\n${JSON.stringify(result.figures, null, 2)}`);
  say(
    `\n${result.checks.length - failed.length} of ${result.checks.length} checks held in ${((performance.now() - startedMs) / 1000).toFixed(0)} s; report: ${command.report}`,
  );
  for (const check of failed) say(`  ✘ ${check.name}: ${check.figure}`);
  if (command.json) console.log(JSON.stringify(result));
  return result.ok ? 0 : 1;
}

function step(text: string): void {
  say(`\n▸ ${text} (${(performance.now() / 1000).toFixed(0)} s since the start)`);
}

async function sourceOf(command: DemoCommand): Promise<FaceSource> {
  if (command.faces === undefined && command.names === undefined) return syntheticSource();
  if (command.faces === undefined || command.names === undefined)
    throw new LimError("bad_input", "--faces and --names go together");
  return realSource({ faces: command.faces, names: command.names, dim: command.dim });
}

async function cleanUpAfterKilledRuns(home: string): Promise<void> {
  await mkdir(home, { recursive: true, mode: 0o711 });
  for (const left of await reapLeftovers(home))
    say(`ended ${left.name} (${left.pid}), left by a demo that was killed`);
  for (const name of await readdir(home)) {
    const pid = /^run-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid)))
      await rm(join(home, name), { recursive: true, force: true, maxRetries: 5 });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Imports the lists, then starts the services: the first plan, made at start-up, finds the lists complete. */
async function prepare(
  command: DemoCommand,
  parts: {
    source: FaceSource;
    servers: Servers;
    services: Service[];
    report: ReportBuilder;
    runId: string;
    dir: string;
    cleanUps: (() => Promise<unknown>)[];
  },
): Promise<DemoContext> {
  const { source, servers, services, report, runId, cleanUps } = parts;
  const { settings, signal } = command;
  const databaseUrl = servers.postgres.url;
  const db = openFacesDb({ connectionString: databaseUrl, applicationName: "lim demo" });
  cleanUps.push(() => db.close());
  await db.migrate({ signal });
  step("importing");
  const labels = await importLists(db, source, {
    runId,
    descriptorVersion: settings.descriptorVersion,
    report,
    signal,
  });
  if (settings.databaseUrl !== undefined)
    cleanUps.push(() => Promise.all([...labels.values()].map((listId) => db.deleteList({ listId }))));

  step("starting two managers, two indexers and two matchers");
  const storageRoot = join(parts.dir, "index-storage");
  await mkdir(storageRoot, { recursive: true });
  const lock = `lim_demo_${runId}`;
  const matchStreamPrefix = `${lock}:match:`;
  const env = {
    LIM_STORAGE_ROOT: storageRoot,
    LIM_MANAGER_MASTER_LOCK: lock,
    LIM_MATCHER_LOCK_PREFIX: lock,
    LIM_MATCH_STREAM_PREFIX: matchStreamPrefix,
    LIM_MIN_INDEXING_LIST_SIZE: String(Math.min(source.large.faces.length, source.medium.faces.length)),
    // A server that the user names may hold other lists: the demo's are the only ones to index.
    ...(settings.databaseUrl === undefined
      ? {}
      : {
          LIM_LISTS: [source.large, source.medium].map((list) => labels.get(list.name)).join(","),
        }),
    LIM_DESCRIPTOR_DIM: String(source.dim),
    LIM_DESCRIPTOR_VERSION: String(settings.descriptorVersion),
    LIM_ENGINE: command.engine,
  };
  const kinds: readonly ServiceKind[] = ["indexer", "indexed-matcher", "index-manager"];
  for (const kind of kinds)
    for (let i = 1; i <= instances; i++) {
      signal.throwIfAborted();
      services.push(await startService(servers, { kind, name: `${kind}-${i}`, port: 0, env }));
    }
  const common = {
    redis: { url: servers.redis.url },
    dim: source.dim,
    descriptorVersion: settings.descriptorVersion,
    matchStreamPrefix,
  };
  const indexOnly = await createSearchPlugin(common);
  cleanUps.push(() => indexOnly.close());
  const plugin = await createSearchPlugin({ ...common, facesDb: { connectionString: databaseUrl } });
  cleanUps.push(() => plugin.close());
  return {
    source,
    engine: command.engine,
    servers,
    storageRoot,
    services,
    apiToken: settings.apiToken,
    killed: new Set(),
    db,
    report,
    labels,
    indexOnly,
    plugin,
    signal,
  };
}

async function runSteps(context: DemoContext, descriptorVersion: number): Promise<void> {
  step("building the indexes of the two larger lists");
  await followBuilds(context);
  await untilServed(context, context.source.large, instances);
  await untilServed(context, context.source.medium, instances);
  step("the bare engine on the same data");
  await measureBareBuild(context);
  step("1. matches over the Redis streams");
  await checkMatching(context);
  step("2. the list without an index");
  await checkExactSearch(context);
  step("3. faces linked and unlinked while matches run");
  await checkRefresh(context, descriptorVersion);
  step("4. the master is killed");
  await checkTakeover(context);
  step("5. a rebuilt index is loaded under load");
  await checkRebuildAndReload(context);
  step("6. a matcher is killed");
  await checkMatcherDeath(context);
}

function printLastWords(services: readonly Service[]): void {
  for (const { name, process } of services) {
    console.error(`\n── last lines of ${name}`);
    for (const line of process.lines.slice(-15)) console.error(line);
  }
}
