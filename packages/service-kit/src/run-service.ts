import { writeSync } from "node:fs";
import { isLimError, LimError } from "@lim/contracts";
import { commonSettings } from "./common-settings.ts";
import { createLogger } from "./logger.ts";
import { unknownVariables } from "./variables.ts";

/** Ctrl-C arrives twice where npm or a supervisor passes on what the terminal has delivered already. */
const sameSignalMs = 500;

const exitCodes = { ok: 0, failed: 1, badSettings: 2, forced: 3 } as const;

/**
 * Runs a service's `main`: `--help`, `--version`; `--settings FILE` is passed on; SIGTERM and SIGINT abort the signal once, one that comes half a second
 * later or more, or `forceAfterMs`, exits at once with code 3; a failure is logged with its cause and remedy, exit code 1 (2 for bad
 * settings or arguments). Ends the process when `main` has returned.
 */
export async function runService(options: {
  name: string;
  version: string;
  help: () => string;
  /** Where it depends on settings, asked once with the argument of `--settings`. */
  forceAfterMs: number | ((settingsFile: string | undefined) => number);
  main: (signal: AbortSignal, settingsFile: string | undefined) => Promise<void>;
}): Promise<void> {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    // Synchronous, here and below: exit follows at once, and a pipe must still get the text.
    writeSync(1, `${options.help()}\n`);
    process.exit(exitCodes.ok);
  }
  if (args.includes("--version")) {
    writeSync(1, `${options.name} ${options.version}\n`);
    process.exit(exitCodes.ok);
  }
  const parsed = settingsArgument(args);
  if (parsed.fault !== undefined) {
    writeSync(2, `${options.name}: ${parsed.fault}; see --help\n`);
    process.exit(exitCodes.badSettings);
  }
  const { forceAfterMs } = options;
  const log = createLogger({ service: options.name, level: logLevel() });
  const { strange } = unknownVariables(process.env);
  if (strange.length > 0) log.warn({ variables: strange }, "environment variables that LIM does not know");
  const signal = abortOnSignals(
    typeof forceAfterMs === "number" ? forceAfterMs : forceAfterMs(parsed.file),
    log,
  );
  process.on("uncaughtException", (thrown) => {
    log.fatal({ err: thrown }, "uncaught failure, the process ends");
    process.exit(exitCodes.failed);
  });
  try {
    await options.main(signal, parsed.file);
  } catch (thrown) {
    // Being told to stop while still starting is no failure.
    if (signal.aborted && LimError.from(thrown).errorName === "aborted") process.exit(exitCodes.ok);
    process.exit(reportFailure(thrown, log, options.name));
  }
  process.exit(exitCodes.ok);
}

/** Of what is logged here, before settings are judged; a bad one is reported by whoever reads them. */
function logLevel(): string {
  const { env, schema } = commonSettings.logLevel;
  return schema.safeParse(process.env[env] || undefined).data ?? "info";
}

function settingsArgument(args: readonly string[]): { file?: string; fault?: string } {
  const [first, ...rest] = args;
  if (first === undefined) return {};
  const joined = first.startsWith("--settings=");
  if (first !== "--settings" && !joined) return { fault: `unknown argument "${first}"` };
  const [file, unknown] = joined ? [first.slice("--settings=".length), ...rest] : rest;
  if (!file) return { fault: "--settings needs the name of a file" };
  return unknown === undefined ? { file } : { fault: `unknown argument "${unknown}"` };
}

function abortOnSignals(forceAfterMs: number, log: ReturnType<typeof createLogger>): AbortSignal {
  const stop = new AbortController();
  let firstMs = 0;
  const onSignal = (name: NodeJS.Signals) => {
    if (stop.signal.aborted) {
      if (performance.now() - firstMs < sameSignalMs) return;
      log.warn({ signal: name }, "second signal, exiting at once");
      process.exit(exitCodes.forced);
    }
    firstMs = performance.now();
    log.info({ signal: name }, "stopping");
    setTimeout(() => {
      log.error({ force_after_ms: forceAfterMs }, "did not stop in time, exiting");
      process.exit(exitCodes.forced);
    }, forceAfterMs).unref();
    stop.abort(new DOMException(`stopped by ${name}`, "AbortError"));
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  return stop.signal;
}

function reportFailure(thrown: unknown, log: ReturnType<typeof createLogger>, name: string): number {
  if (isLimError(thrown, "bad_settings")) {
    writeSync(2, `${name}: settings are not valid (see --help)\n${thrown.detail.replace(/^/gm, "  ")}\n`);
    return exitCodes.badSettings;
  }
  log.fatal({ err: thrown }, `${name} failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  return exitCodes.failed;
}
