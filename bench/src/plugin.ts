// The search plugin against raw Redis round trips, and exact search against an index: `npm run bench:plugin -- --help`.
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { makeLists } from "./build/lists.ts";
import { ensureFaces, ensureQueries } from "./engine/dataset.ts";
import { printTable } from "./engine/report.ts";
import type { PartResult, Run } from "./match/run.ts";
import { measureLine } from "./plugin/line.ts";
import { help, type Options, readOptions } from "./plugin/options.ts";
import { measureRoundTrips } from "./plugin/round-trips.ts";
import { startBenchServers } from "./servers.ts";

const startedMs = performance.now();

function say(text: string): void {
  console.error(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)} s] ${text}`);
}

const load = () => loadavg().map((value) => Number(value.toFixed(2)));

async function measure(
  options: Options,
  dir: string,
  closers: (() => Promise<unknown>)[],
  signal: AbortSignal,
): Promise<void> {
  const { match, only, sizes, lineCallers, json } = options;
  const { dim, seed } = match;
  const machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    node: process.version,
    date: new Date().toISOString(),
    loadAverage: load(),
  };
  console.log(
    `${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, ${machine.date}, load ${machine.loadAverage.join(" ")}`,
  );
  console.log(
    `dim ${dim}, ef ${match.ef}, limit ${match.limit}, seed ${seed}; medians of ${match.rounds} rounds`,
  );
  const data = { dir, dim, seed, signal, say };
  const rowsPath = await ensureFaces(data, sizes.at(-1) ?? 0);
  const queriesPath = await ensureQueries(data, sizes[0] ?? 0);
  const servers = await startBenchServers(dir, closers);
  const lists = { throughput: undefined, reload: undefined, startup: [] };
  const run: Run = { options: match, dir, ...servers, rowsPath, queriesPath, lists, signal, say };
  const parts: Record<string, unknown> = {};
  const step = async (name: string, work: () => Promise<PartResult>) => {
    const { figures, tables } = await work();
    parts[name] = figures;
    for (const table of tables) printTable(table);
    await mkdir(dirname(json), { recursive: true });
    await writeFile(json, `${JSON.stringify({ version: 1, machine, options, parts }, undefined, 2)}\n`);
  };
  if (only.includes("round-trips")) await step("round-trips", () => measureRoundTrips(run));
  if (only.includes("line")) {
    const { sized } = await makeLists(servers.db, {
      ...{ databaseUrl: servers.postgresUrl, rowsPath, dim, sizes, signal, say },
    });
    await step("line", () => measureLine(run, sized, lineCallers));
  }
  console.log(`\nload ${load().join(" ")}; figures: ${json}`);
}

async function main(options: Options): Promise<void> {
  const stopped = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => {
      say(`${signal}: stops and cleans up`);
      stopped.abort(new Error(`stopped by ${signal}`));
    });
  const dir = await mkdtemp(join(tmpdir(), "lim-bench-plugin-"));
  // The account of Postgres, where root starts it, must get to its folder; else it would be elsewhere, and stay there.
  await chmod(dir, 0o711);
  const closers: (() => Promise<unknown>)[] = [];
  try {
    await measure(options, dir, closers, stopped.signal);
  } catch (error) {
    if (!stopped.signal.aborted) throw error;
    process.exitCode = 130;
  } finally {
    for (const close of closers.toReversed()) await close().catch((error) => say(`closing: ${error}`));
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

const options = readOptions(process.argv.slice(2));
if (options) await main(options);
else console.log(help);
