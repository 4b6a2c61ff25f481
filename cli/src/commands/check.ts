import { randomInt } from "node:crypto";
import { isLimError, LimError } from "@lim/contracts";
import { openFacesDb } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { type Command, InvalidArgumentError } from "commander";
import { checkLimits } from "../check/limits.ts";
import { assertStorageThere, runChecks, type Scope } from "../check/run.ts";
import { reportText } from "../check/text.ts";
import { resolveListId } from "../list-id.ts";
import { jsonOption, uuid } from "../options.ts";
import { createProgressBoard } from "../output.ts";
import type { Program } from "../program.ts";
import type { CliSettings } from "../settings.ts";
import { print } from "./manager-command.ts";

export interface CheckOptions {
  label?: string;
  all: boolean;
  database: boolean;
  strict: boolean;
  sample?: number;
  seed?: number;
  json: boolean;
}

export function addCheckCommand(root: Command, { settings, act }: Program): void {
  root
    .command("check")
    .description("check published indexes: files, ids, vectors, graph, recall, and their lists in Postgres")
    .argument("[index_id]", "one index", uuid)
    .option("--label <list>", "those of one list: its id, or its name where DATABASE_URL is set")
    .option("--all", "every index of the storage, and what lies about in it", false)
    .option("--no-database", "do not compare with the lists in Postgres")
    .option("--sample <n>", "vectors that are searched for and compared with Postgres", sampleSize)
    .option("--seed <n>", "which ones; printed (default: by chance)", seedOf)
    .option("--strict", "warnings are failures too", false)
    .addOption(jsonOption("print the report as one JSON document"))
    .addHelpText(
      "after",
      "\nExamples:\n  lim check --all\n  lim check --label staff --sample 500 --json" +
        "\n\nEnvironment: LIM_STORAGE_ROOT, DATABASE_URL (not with --no-database)." +
        "\nExit codes: 0 clean or warnings only, 1 an index has errors (--strict: or warnings), 2 wrong use or settings," +
        "\n  3 the storage or the database is away, 130 interrupted.",
    )
    .action((indexId: string | undefined, options: CheckOptions) =>
      act((signal) => runCheck(indexId, options, settings, signal)),
    );
}

function sampleSize(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1 || value > checkLimits.maxSample)
    throw new InvalidArgumentError(`must be an integer from 1 to ${checkLimits.maxSample}.`);
  return value;
}

function seedOf(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isInteger(value) || value < 0 || value >= 2 ** 32)
    throw new InvalidArgumentError("must be an integer from 0 to 4294967295.");
  return value;
}

async function scopeOf(
  indexId: string | undefined,
  options: CheckOptions,
  settings: CliSettings,
  signal: AbortSignal,
): Promise<Scope> {
  const { label, all } = options;
  if ([indexId !== undefined, label !== undefined, all].filter(Boolean).length !== 1)
    throw new LimError("bad_input", "name one index, or else --label <list> or --all");
  if (indexId !== undefined) return { indexId };
  if (label === undefined) return "all";
  return { label: await resolveListId(label, { databaseUrl: settings.databaseUrl, signal }) };
}

/** Prints the report and returns the exit code: see the command's help. */
async function runCheck(
  indexId: string | undefined,
  options: CheckOptions,
  settings: CliSettings,
  signal: AbortSignal,
): Promise<number> {
  const { storageRoot, databaseUrl } = settings;
  if (storageRoot === undefined) throw new LimError("bad_settings", "LIM_STORAGE_ROOT is not set");
  if (options.database && databaseUrl === undefined)
    throw new LimError("bad_settings", "DATABASE_URL is not set: set it, or add --no-database");
  try {
    return await check({ indexId, options, settings, storageRoot, signal });
  } catch (thrown) {
    if (isLimError(thrown, "not_found") || isLimError(thrown, "list_not_found"))
      throw new LimError("bad_input", thrown.detail, { cause: thrown });
    if (!isLimError(thrown, "storage_unavailable") && !isLimError(thrown, "postgres_unavailable"))
      throw thrown;
    console.error(`lim: ${thrown.message} (${thrown.code})`);
    return 3;
  }
}

async function check(command: {
  indexId: string | undefined;
  options: CheckOptions;
  settings: CliSettings;
  storageRoot: string;
  signal: AbortSignal;
}): Promise<number> {
  const { indexId, options, settings, storageRoot, signal } = command;
  const scope = await scopeOf(indexId, options, settings, signal);
  await assertStorageThere(storageRoot);
  const storage = await openIndexStorage({ root: storageRoot });
  const db =
    options.database && settings.databaseUrl !== undefined
      ? openFacesDb({ connectionString: settings.databaseUrl, applicationName: "lim check" })
      : undefined;
  const board = createProgressBoard();
  const line = board.add("checking", 0, "faces");
  try {
    const report = await runChecks({
      scope,
      storage,
      db,
      sample: options.sample ?? checkLimits.defaultSample,
      seed: options.seed ?? randomInt(2 ** 32),
      strict: options.strict,
      signal,
      onProgress: (done, total, doing) => {
        line.setTotal(total);
        line.update(done, doing);
      },
    });
    if (report.failure === null) line.finish();
    board.stop();
    print(options, report, () => reportText(report));
    return report.exit_code;
  } finally {
    board.stop();
    await db?.close();
  }
}
