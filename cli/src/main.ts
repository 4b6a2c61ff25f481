#!/usr/bin/env node
import { type EngineName, engineNames, isLimError, LimError } from "@lim/contracts";
import { Command, InvalidArgumentError, Option } from "commander";
import { runImport } from "./commands/import.ts";
import { listIndexes, removeIndex } from "./commands/indexes.ts";
import { runMatch } from "./commands/match.ts";
import { cancelTask, createTask, listTasks } from "./commands/tasks.ts";
import { runUp } from "./commands/up.ts";
import { runDemo } from "./demo/run.ts";
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

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError("must be a positive integer.");
  return value;
}
function share(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0 && value <= 1))
    throw new InvalidArgumentError("must be a number from 0 to 1.");
  return value;
}

function engineOption(): Option {
  return new Option("--engine <engine>", "engine of new indexes").choices([...engineNames]);
}

function requireUrl(name: string, value: string | undefined): string {
  if (value !== undefined) return value;
  throw new LimError(
    "bad_settings",
    `${name} is not set: set it, or start a stack with npm start, which prints it`,
  );
}

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
      process.exitCode = interrupted
        ? 130
        : isLimError(error, "bad_settings") || isLimError(error, "bad_input")
          ? 2
          : 1;
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
  .addHelpText(
    "after",
    "\nEnvironment: REDIS_URL, DATABASE_URL, LIM_MANAGER_URL, LIM_DESCRIPTOR_DIM (512), LIM_DESCRIPTOR_VERSION (1)," +
      `\n  LIM_ENGINE (${settings.engine}), LIM_STORAGE_ROOT and LIM_HOME (for lim up).\nExit codes: 0 done, 1 failed, 2 wrong use or settings, 3 imported with bad rows, 130 interrupted.`,
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

const tasks = program.command("tasks").description("index builds");
const managerUrl = settings.managerUrl;
tasks
  .command("list", { isDefault: true })
  .description("newest tasks")
  .option("--list <id>", "of one list")
  .option("--statuses <statuses>", "pending,indexing,success,error")
  .option("--limit <n>", "tasks at most", positive, 20)
  .option("--json", "print JSON", false)
  .action((options: { list?: string; statuses?: string; limit: number; json: boolean }) =>
    action((signal) => listTasks({ ...options, managerUrl, signal })),
  );
tasks
  .command("create")
  .description("build an index of a list now")
  .requiredOption("--list <id>", "list to index")
  .addOption(new Option("--mode <mode>", "how").choices(["rebuild", "update"]).default("rebuild"))
  .option("--watch", "follow it to its end", false)
  .option("--json", "print JSON", false)
  .action((options: { list: string; mode: "rebuild" | "update"; watch: boolean; json: boolean }) =>
    action((signal) => createTask({ ...options, managerUrl, signal })),
  );
tasks
  .command("cancel")
  .description("remove a task; a running build is stopped")
  .argument("<task_id>")
  .option("--json", "print JSON", false)
  .action((taskId: string, options: { json: boolean }) =>
    action((signal) => cancelTask({ ...options, taskId, managerUrl, signal })),
  );

const indexes = program.command("indexes").description("published indexes");
indexes
  .command("list", { isDefault: true })
  .description("what the storage holds")
  .option("--label <id>", "of one list")
  .option("--json", "print JSON", false)
  .action((options: { label?: string; json: boolean }) =>
    action((signal) => listIndexes({ ...options, managerUrl, signal })),
  );
indexes
  .command("remove")
  .description("remove one index")
  .argument("<index_id>")
  .option("--json", "print JSON", false)
  .action((indexId: string, options: { json: boolean }) =>
    action((signal) => removeIndex({ ...options, indexId, managerUrl, signal })),
  );

await program.parseAsync();
