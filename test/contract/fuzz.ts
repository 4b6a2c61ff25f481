import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openFacesDb } from "@lim/faces-db";
import { reapLeftovers, startPostgres, startRedis } from "@lim/local-servers";
import { type CampaignResult, reportOf, runCampaign } from "./campaign.ts";
import { startWorld } from "./world.ts";

const help = `Usage: npm run fuzz:api -- [options]
Contract tests of the Index Manager's HTTP API, generated from openapi/index-manager.yaml, against a manager process
with a Redis and a Postgres of its own. Exit code 1 where an answer breaks the document or an operation was left out.
  --requests N     requests to send (default 20000)
  --seed N         of the sequence of requests (default: drawn, and printed)
  --duration-ms N  stop after that long (default 900000)
  --concurrency N  requests at the same time (default 8)
  --help`;

const bounds = { requests: 10_000_000, seed: 2 ** 31 - 1, durationMs: 86_400_000, concurrency: 256 };

function wholeNumber(name: string, text: string | undefined, otherwise: number, most: number): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= most) return value;
  throw new Error(`--${name} must be a whole number from 1 to ${most}`);
}

function readOptions() {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    options: {
      requests: text,
      seed: text,
      "duration-ms": text,
      concurrency: text,
      help: { type: "boolean" },
    },
  });
  if (values.help) return undefined;
  return {
    requests: wholeNumber("requests", values.requests, 20_000, bounds.requests),
    seed: wholeNumber("seed", values.seed, Math.ceil(Math.random() * bounds.seed), bounds.seed),
    durationMs: wholeNumber("duration-ms", values["duration-ms"], 900_000, bounds.durationMs),
    concurrency: wholeNumber("concurrency", values.concurrency, 8, bounds.concurrency),
  };
}

async function fuzz(options: NonNullable<ReturnType<typeof readOptions>>): Promise<CampaignResult> {
  const ledgerDir = join(tmpdir(), "lim-fuzz-servers");
  await mkdir(ledgerDir, { recursive: true });
  await reapLeftovers(ledgerDir);
  const dir = await mkdtemp(join(ledgerDir, "run-"));
  const closers: (() => Promise<unknown>)[] = [
    () => rm(dir, { recursive: true, force: true, maxRetries: 5 }),
  ];
  try {
    const redis = await startRedis({ dir: join(dir, "redis"), ledgerDir });
    closers.push(() => redis.stop());
    const postgres = await startPostgres({ dir: join(dir, "postgres"), database: "lim_fuzz", ledgerDir });
    closers.push(() => postgres.stop());
    const db = openFacesDb({ connectionString: postgres.url, applicationName: "lim-fuzz" });
    closers.push(() => db.close());
    await db.migrate();
    const world = await startWorld({ redisUrl: redis.url, databaseUrl: postgres.url, db }, dir);
    closers.push(() => world.close());
    const onProgress = progressLines(options.requests);
    return await runCampaign(world, { ...options, onProgress });
  } finally {
    for (const close of closers.toReversed()) await close().catch((error) => console.error(error));
  }
}

/** A bar in a terminal, else a line now and then. */
function progressLines(requests: number): (progress: { done: number; found: number }) => void {
  const everyMs = 10_000;
  const width = 40;
  const startMs = performance.now();
  let saidMs = startMs;
  return ({ done, found }) => {
    const now = performance.now();
    const text = `${done}/${requests} requests, ${Math.round((done * 1_000) / (now - startMs))}/s, ${found} violations`;
    if (process.stderr.isTTY) {
      const filled = Math.round((width * done) / requests);
      process.stderr.write(
        `\r[${"#".repeat(filled)}${" ".repeat(width - filled)}] ${text}${done >= requests ? "\n" : ""}`,
      );
    } else if (now - saidMs >= everyMs || done >= requests) {
      saidMs = now;
      console.error(text);
    }
  };
}

try {
  const options = readOptions();
  if (!options) console.log(help);
  else {
    console.log(`seed ${options.seed}, ${options.requests} requests`);
    const result = await fuzz(options);
    console.log(reportOf(result, options.seed));
    process.exitCode = result.findings.length + result.faults.length > 0 ? 1 : 0;
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
