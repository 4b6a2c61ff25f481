// Kills the build processes and indexers of a running LIM again and again, and checks that readers never see a partial
// index, that no task hangs and that nothing is left.
//   node test/chaos/indexer/main.ts [--kills 200] [--seed 1] [--max-minutes 15] …
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { engineNameSchema } from "@lim/contracts";
import { openFacesDb } from "@lim/faces-db";
import { openProcessLedger, startPostgres } from "@lim/local-servers";
import { type Servers, startTestRedis } from "@lim/testkit";
import { type ChaosOptions, type ChaosReport, chaosDefaults, runChaos } from "./run.ts";

const defaultReport = "reports/chaos-indexer.json";

const help = `Kills build processes and indexers again and again, with real processes, Redis, Postgres and storage.

  --kills N          processes to kill with SIGKILL; other faults come on top (default ${chaosDefaults.kills})
  --seed N           of all chances (default ${chaosDefaults.seed}); processes still race, so a run is not repeated to the letter
  --max-minutes N    no more faults then, and the run has failed where kills are missing (default ${chaosDefaults.maxMinutes})
  --indexers N       (default ${chaosDefaults.indexers})
  --lists N          (default ${chaosDefaults.lists})
  --faces N          most faces of a new list, half of it the least (default ${chaosDefaults.faces})
  --engines A,B      engines, one after the other (default ${chaosDefaults.engines.join(",")})
  --report FILE      the report as JSON (default ${defaultReport})
  --json             prints the report as JSON only

Exit code 0 where every rule held, 1 where one was broken, 2 for wrong use.`;

const flags = {
  kills: { type: "string" },
  seed: { type: "string" },
  "max-minutes": { type: "string" },
  indexers: { type: "string" },
  lists: { type: "string" },
  faces: { type: "string" },
  engines: { type: "string" },
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
  const engines = (values.engines?.split(",") ?? chaosDefaults.engines).map((name) => {
    const parsed = engineNameSchema.safeParse(name);
    return parsed.success ? parsed.data : wrongUse(`--engines: there is no engine ${name}`);
  });
  return {
    kills: number("kills", chaosDefaults.kills, 1),
    seed: number("seed", chaosDefaults.seed, 0),
    maxMinutes: number("max-minutes", chaosDefaults.maxMinutes, 0.1),
    indexers: number("indexers", chaosDefaults.indexers, 1),
    lists: number("lists", chaosDefaults.lists, 1),
    faces: number("faces", chaosDefaults.faces, 100),
    engines,
    signal: stopSignal(),
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

/** The first Ctrl-C or SIGTERM ends the faults, what was done is judged; the second one ends everything. */
function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(1);
      console.error(`${name}: no more faults, waiting for rest`);
      stop.abort();
    });
  return stop.signal;
}

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
    const storageRoot = join(dir, "index-storage");
    const report = await runChaos({ servers, db, storageRoot, scratchDir: join(dir, "scratch") }, options);
    const path = values.report ?? defaultReport;
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${JSON.stringify(report, null, 2)}\n`);
    return report;
  } finally {
    await db.close();
    await postgres.stop();
    await redis.stop();
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

function print(report: ChaosReport): void {
  const { seed, kills, engines, seconds, figures, violations } = report;
  console.log(`seed ${seed}, ${kills} kills in ${seconds} s, engines ${engines.join(", ")}`);
  for (const [group, counts] of Object.entries(figures)) {
    console.log(`\n${group}`);
    for (const [key, count] of Object.entries(counts)) console.log(`  ${String(count).padStart(6)}  ${key}`);
  }
  if (report.memory.length > 0) console.table(report.memory);
  for (const what of report.skipped) console.log(`not done here: ${what}`);
  for (const violation of violations) console.log(`VIOLATION ${violation}`);
  console.log(
    report.ok
      ? "ok: no partial index visible, no task stuck, nothing left"
      : `${violations.length} violations, seed ${seed}`,
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
