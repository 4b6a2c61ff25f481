// Makes the master of three Index Managers fail again and again, and checks that nothing is lost or built twice.
//   node test/chaos/manager.ts [--failovers 100] [--seed 1] [--lease-ms 1500] [--max-minutes 15] …
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openFacesDb } from "@lim/faces-db";
import { openProcessLedger, startPostgres } from "@lim/local-servers";
import { type Servers, startTestRedis } from "@lim/testkit";
import { type ChaosOptions, type ChaosReport, chaosDefaults, runChaos } from "./run.ts";

const help = `Makes the master of several Index Managers fail again and again, with real processes, Redis, Postgres and storage.

  --failovers N      fail-overs until the run ends (default ${chaosDefaults.failovers})
  --seed N           of all chances (default ${chaosDefaults.seed}); processes still race, so a run is not repeated to the letter
  --lease-ms N       the master's lease, 500 or more (default ${chaosDefaults.leaseTtlMs})
  --max-minutes N    the run ends then, in failure where fail-overs are missing (default ${chaosDefaults.maxMinutes})
  --flush-every N    every N-th fault empties Redis; 0: none (default ${chaosDefaults.flushEvery})
  --restart-every N  every N-th fault restarts Redis empty; 0: none (default ${chaosDefaults.restartEvery})
  --managers N       (default ${chaosDefaults.managers}, at least 2)
  --peers N          indexers in this process that fail, crash, refuse and dawdle (default ${chaosDefaults.peers})
  --lists N          (default ${chaosDefaults.lists})
  --report FILE      also writes the report there, as JSON
  --json             prints the report as JSON only

Exit code 0 where every rule held, 1 where one was broken, 2 for wrong use.`;

const flags = {
  failovers: { type: "string" },
  seed: { type: "string" },
  "lease-ms": { type: "string" },
  "max-minutes": { type: "string" },
  "flush-every": { type: "string" },
  "restart-every": { type: "string" },
  managers: { type: "string" },
  peers: { type: "string" },
  lists: { type: "string" },
  report: { type: "string" },
  json: { type: "boolean" },
  help: { type: "boolean" },
} as const;

type Values = ReturnType<typeof parseArgs<{ options: typeof flags }>>["values"];

function wrongUse(reason: string): never {
  console.error(`${reason}\n\n${help}`);
  process.exit(2);
}

function read(): Values {
  try {
    return parseArgs({ options: flags }).values;
  } catch (error) {
    return wrongUse(error instanceof Error ? error.message : String(error));
  }
}

function optionsOf(values: Values): ChaosOptions {
  const number = (name: keyof typeof flags, fallback: number, least: number) => {
    const text = values[name];
    const value = text === undefined ? fallback : Number(text);
    if (!Number.isFinite(value) || value < least || (name !== "max-minutes" && !Number.isInteger(value)))
      wrongUse(`--${name} must be a number from ${least}`);
    return value;
  };
  return {
    failovers: number("failovers", chaosDefaults.failovers, 1),
    seed: number("seed", chaosDefaults.seed, 0),
    leaseTtlMs: number("lease-ms", chaosDefaults.leaseTtlMs, 500),
    maxMinutes: number("max-minutes", chaosDefaults.maxMinutes, 0.1),
    flushEvery: number("flush-every", chaosDefaults.flushEvery, 0),
    restartEvery: number("restart-every", chaosDefaults.restartEvery, 0),
    managers: number("managers", chaosDefaults.managers, 2),
    peers: number("peers", chaosDefaults.peers, 1),
    lists: number("lists", chaosDefaults.lists, 1),
    ...(values.json ? {} : { log: (text: string) => console.error(text) }),
  };
}

/** Thrown away after the run, so nothing needs to reach the disk. */
const postgresSettings = {
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  max_connections: "100",
};

async function main(values: Values, options: ChaosOptions): Promise<ChaosReport> {
  const dir = await mkdtemp(join(tmpdir(), "lim-chaos-"));
  const redis = await startTestRedis();
  const postgres = await startPostgres({
    dir: join(dir, "postgres"),
    database: "chaos",
    settings: postgresSettings,
  });
  const db = openFacesDb({ connectionString: postgres.url, applicationName: "chaos" });
  try {
    await db.migrate();
    const servers: Servers = { redis, postgres, ledger: await openProcessLedger(dir), ledgerDir: dir };
    const report = await runChaos({ servers, redis, db, storageRoot: join(dir, "index-storage") }, options);
    if (values.report !== undefined) await writeFile(values.report, `${JSON.stringify(report, null, 2)}\n`);
    return report;
  } finally {
    await db.close();
    await postgres.stop();
    await redis.stop();
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

function print(report: ChaosReport): void {
  const rows = { ...report.takeover_by_fault, "all faults": report.takeover };
  console.log(
    `seed ${report.seed}, lease ${report.lease_ms} ms, ${report.failovers} fail-overs in ${report.seconds} s`,
  );
  console.table(rows);
  console.table(report.figures);
  console.table(report.answers);
  for (const violation of report.violations) console.log(`VIOLATION ${violation}`);
  console.log(
    report.ok
      ? `ok: every take-over within ${report.allowed_takeover_ms} ms, nothing lost, nothing built twice`
      : `${report.violations.length} violations`,
  );
}

const values = read();
if (values.help) console.log(help);
else {
  const options = optionsOf(values);
  console.error(`seed ${options.seed}`);
  const report = await main(values, options);
  if (values.json) console.log(JSON.stringify(report));
  else print(report);
  process.exitCode = report.ok ? 0 : 1;
}
