#!/usr/bin/env node
import { type EngineName, type ErrorName, isLimError, LimError } from "@lim/contracts";
import { Command, Option } from "commander";
import { addCheckCommand } from "./commands/check.ts";
import { runImport } from "./commands/import.ts";
import { runMatch } from "./commands/match.ts";
import { runMigrate } from "./commands/migrate.ts";
import { runUp } from "./commands/up.ts";
import { runDemo } from "./demo/run.ts";
import { addManagerCommands } from "./manager-program.ts";
import { engineOption, positive, share } from "./options.ts";
import { type SourceFormat, sourceFormats } from "./readers/read-rows.ts";
import { readSettings } from "./settings.ts";
import { untilSignal } from "./signals.ts";

const settings = readOrExit();

function readOrExit() {
  try {
    return readSettings();
  } catch (error) {
    printError(error);
    process.exit(2);
  }
}

function requireUrl(name: string, value: string | undefined): string {
  if (value !== undefined) return value;
  throw new LimError(
    "bad_settings",
    `${name} is not set: set it, or start a stack with npm start, which prints it`,
  );
}

/** What the caller mends, not the one who runs the services. */
const wrongUse: readonly ErrorName[] = ["bad_settings", "bad_input", "unauthorized"];

/** Runs a command's body until it ends or a signal does; its result is the exit code. */
function action(body: (signal: AbortSignal) => Promise<number>): Promise<void> {
  return untilSignal(body).then(
    (code) => {
      process.exitCode = code;
    },
    (error: unknown) => {
      const interrupted =
        isLimError(error, "aborted") || (error instanceof Error && error.name === "AbortError");
      if (!interrupted || isLimError(error)) printError(error);
      process.exitCode = interrupted ? 130 : wrongUse.some((name) => isLimError(error, name)) ? 2 : 1;
    },
  );
}

function printError(error: unknown): void {
  const known = LimError.from(error);
  console.error(`lim: ${known.message} (${known.code})`);
  if (!(error instanceof LimError) && error instanceof Error) console.error(error.stack);
  else if (known.cause instanceof Error) console.error(`  cause: ${known.cause.message}`);
}

const program = new Command("lim")
  .description("LIM: index service for face recognition")
  .version("0.1.0")
  .showHelpAfterError()
  // Before the commands are added: they inherit it.
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .addHelpText(
    "after",
    "\nEnvironment: REDIS_URL, DATABASE_URL, LIM_MANAGER_URL, LIM_API_TOKEN (of the managers, where they ask for one)," +
      "\n  LIM_DESCRIPTOR_DIM (512), LIM_DESCRIPTOR_VERSION (1)," +
      `\n  LIM_ENGINE (${settings.engine}), LIM_STORAGE_ROOT (lim up, lim check) and LIM_HOME (for lim up).\nExit codes: 0 done, 1 failed, 2 wrong use, settings or token, 3 imported with bad rows or could not be checked, 130 interrupted.`,
  );

program
  .command("up")
  .description("start the whole stack on this machine and keep it up until Ctrl-C")
  .option("--min-list <faces>", "faces that make a list worth an index (default: 50000)", positive)
  .option("--free-ports", "any free ports instead of 5180 to 5201", false)
  .addOption(engineOption().default(settings.engine))
  .action((options: { minList?: number; freePorts: boolean; engine: EngineName }) =>
    action((signal) =>
      runUp({
        settings: { ...settings, engine: options.engine },
        minIndexingListSize: options.minList,
        freePorts: options.freePorts,
        signal,
      }),
    ),
  );

program
  .command("demo")
  .description(
    "import synthetic (or given) faces, index them, match, and check every answer against exact search",
  )
  .option("--faces <file.f32>", "real descriptors instead of synthetic ones (needs --names)")
  .option("--names <file.csv>", "who is on each row: columns identity and image")
  .option("--dim <n>", "numbers of a descriptor", positive, settings.dim)
  .option("--report <file>", "where the report goes", "reports/demo.json")
  .addOption(engineOption().default(settings.engine))
  .action((options: { faces?: string; names?: string; dim: number; report: string; engine: EngineName }) =>
    action((signal) => runDemo({ settings, ...options, signal })),
  );

program
  .command("migrate")
  .description("make or complete the tables in Postgres; managers and imports do it, too")
  .option("--json", "print the result as JSON", false)
  .action((options: { json: boolean }) =>
    action((signal) =>
      runMigrate({ ...options, databaseUrl: requireUrl("DATABASE_URL", settings.databaseUrl), signal }),
    ),
  );

program
  .command("import")
  .description("read descriptors of a file into a list; run again after an interruption, it goes on")
  .argument("<file>", "NDJSON, CSV or raw float32 (.f32)")
  .requiredOption("--list <name>", "name of the list; made where it is missing")
  .addOption(
    new Option("--format <format>", "told from the file's ending otherwise").choices([...sourceFormats]),
  )
  .option("--dim <n>", "numbers of a descriptor", positive, settings.dim)
  .option(
    "--names <file.csv>",
    "names of a .f32 file's rows: a column face_id, external_id, image, name or identity",
  )
  .option("--descriptor-version <n>", "version of the descriptors", positive, settings.descriptorVersion)
  .option("--chunk <rows>", "rows of one transaction", positive)
  .option("--again", "import every row, also what an earlier run of this file has committed", false)
  .option("--json", "print the result as JSON", false)
  .action(
    (
      file: string,
      options: {
        list: string;
        format?: SourceFormat;
        dim: number;
        names?: string;
        descriptorVersion: number;
        chunk?: number;
        again: boolean;
        json: boolean;
      },
    ) =>
      action((signal) =>
        runImport({
          ...options,
          file,
          chunkRows: options.chunk,
          databaseUrl: requireUrl("DATABASE_URL", settings.databaseUrl),
          signal,
        }),
      ),
  );

program
  .command("match")
  .description("find the most similar faces of a list")
  .requiredOption("--list <name or id>", "the list to search")
  .option("--face <face_id>", "by a face's descriptor")
  .option("--descriptor <file>", "by a descriptor: .f32, JSON or text")
  .option("--limit <n>", "matches at most", positive, 10)
  .option("--threshold <similarity>", "least similarity", share, 0)
  .option("--timeout <ms>", "deadline", positive, 5000)
  .option("--dim <n>", "numbers of a descriptor", positive, settings.dim)
  .option("--json", "print the answer as JSON", false)
  .action(
    (options: {
      list: string;
      face?: string;
      descriptor?: string;
      limit: number;
      threshold: number;
      timeout: number;
      dim: number;
      json: boolean;
    }) =>
      action((signal) =>
        runMatch({
          ...options,
          descriptorFile: options.descriptor,
          timeoutMs: options.timeout,
          redisUrl: requireUrl("REDIS_URL", settings.redisUrl),
          databaseUrl: requireUrl("DATABASE_URL", settings.databaseUrl),
          descriptorVersion: settings.descriptorVersion,
          signal,
        }),
      ),
  );

addManagerCommands(program, { settings, act: action });
addCheckCommand(program, { settings, act: action });

await program.parseAsync();
