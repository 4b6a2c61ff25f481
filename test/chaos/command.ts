import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type ParseArgsOptionDescriptor, parseArgs } from "node:util";
import { type EngineName, engineNameSchema } from "@lim/contracts";
import { type FacesDb, openFacesDb } from "@lim/faces-db";
import { openProcessLedger, startPostgres } from "@lim/local-servers";
import { type Servers, startTestRedis, type TestRedis } from "@lim/testkit";

/** Options of a campaign's command line. Wrong use ends the process with 2, --help with 0. */
export interface CommandLine {
  text(name: string): string | undefined;
  has(name: string): boolean;
  number(name: string, fallback: number, how: { least: number; fraction?: boolean }): number;
  engines(fallback: readonly EngineName[]): EngineName[];
  oneOf<const Choice extends string>(name: string, choices: readonly Choice[]): Choice | undefined;
}

/** `texts` take a value, `flags` do not; --help, --json and --report are always there. */
export function readCommandLine(
  help: string,
  names: { texts: readonly string[]; flags?: readonly string[] },
): CommandLine {
  const wrongUse = (reason: string): never => {
    console.error(`${reason}\n\n${help}`);
    process.exit(2);
  };
  const options: Record<string, ParseArgsOptionDescriptor> = {};
  for (const name of [...names.texts, "report"]) options[name] = { type: "string" };
  for (const name of [...(names.flags ?? []), "json", "help"]) options[name] = { type: "boolean" };
  const read = () => {
    try {
      return parseArgs({ options }).values;
    } catch (error) {
      return wrongUse(error instanceof Error ? error.message : String(error));
    }
  };
  const values = read();
  if (values.help === true) {
    console.log(help);
    process.exit(0);
  }
  const text = (name: string) => {
    const value = values[name];
    return typeof value === "string" ? value : undefined;
  };
  return {
    text,
    has: (name) => values[name] === true,
    number(name, fallback, { least, fraction = false }) {
      const given = text(name);
      const value = given === undefined ? fallback : Number(given);
      if (!Number.isFinite(value) || value < least || (!fraction && !Number.isInteger(value)))
        return wrongUse(`--${name} must be a ${fraction ? "" : "whole "}number from ${least}`);
      return value;
    },
    oneOf(name, choices) {
      const given = text(name);
      const choice = choices.find((one) => one === given);
      return given === undefined || choice !== undefined
        ? choice
        : wrongUse(`--${name} must be one of: ${choices.join("; ")}`);
    },
    engines: (fallback) =>
      (text("engines")?.split(",") ?? fallback).map((name) => {
        const parsed = engineNameSchema.safeParse(name);
        return parsed.success ? parsed.data : wrongUse(`--engines: there is no engine ${name}`);
      }),
  };
}

/** The first Ctrl-C or SIGTERM ends the faults, what was done is judged; the second one ends everything. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(1);
      console.error(`${name}: no more faults, waiting for rest`);
      stop.abort();
    });
  return stop.signal;
}

/** Thrown away after the run, so nothing needs to reach the disk. */
const postgresSettings = {
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  max_connections: "100",
};

export interface CampaignWorld {
  dir: string;
  redis: TestRedis;
  db: FacesDb;
  servers: Servers;
  /** Ends all sessions and starts it again on its data and port. */
  restartPostgres(): Promise<void>;
}

/** Servers of its own for a campaign, and a folder that goes with them. */
export async function withWorld<T>(
  work: (world: CampaignWorld) => Promise<T>,
  options: { redisArgs?: readonly string[] } = {},
): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "lim-chaos-"));
  const redis = await startTestRedis({ extraArgs: options.redisArgs ?? [] });
  const start = (port?: number) =>
    startPostgres({
      dir: join(dir, "postgres"),
      database: "chaos",
      settings: postgresSettings,
      ...(port === undefined ? {} : { port }),
    });
  let postgres = await start();
  const db = openFacesDb({ connectionString: postgres.url, applicationName: "chaos" });
  try {
    await db.migrate();
    const servers: Servers = { redis, postgres, ledger: await openProcessLedger(dir), ledgerDir: dir };
    return await work({
      dir,
      redis,
      db,
      servers,
      async restartPostgres() {
        const port = Number(new URL(postgres.url).port);
        await postgres.stop();
        postgres = await start(port);
      },
    });
  } finally {
    await db.close();
    await postgres.stop();
    await redis.stop();
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Writes the report where it is wanted, prints it, and sets the exit status: 0 where every rule held, else 1. */
export async function finish<Report extends { ok: boolean }>(
  report: Report,
  line: CommandLine,
  how: { defaultPath?: string; print(report: Report): void },
): Promise<void> {
  const path = line.text("report") ?? how.defaultPath;
  if (path !== undefined) {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${JSON.stringify(report, null, 2)}\n`);
  }
  if (line.has("json")) console.log(JSON.stringify(report));
  else how.print(report);
  process.exitCode = report.ok ? 0 : 1;
}
