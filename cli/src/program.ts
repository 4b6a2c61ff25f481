import { type ErrorName, isLimError, LimError } from "@lim/contracts";
import type { CliSettings } from "./settings.ts";
import { untilSignal } from "./signals.ts";

/** Runs a command's body until it ends or a signal does; its result is the exit code. */
export type Act = (body: (signal: AbortSignal) => Promise<number>) => Promise<void>;

/** What the commands are made from. */
export interface Program {
  /** Of the environment and the settings file; where these name no server, of the `lim up` that runs here. */
  settings: CliSettings;
  /** Without what a running `lim up` adds. */
  ownSettings: CliSettings;
  act: Act;
}

/** The one place that says what exit codes mean. */
export const exitCodes = {
  done: 0,
  failed: 1,
  wrongUse: 2,
  /** Some rows of a file were bad, the others were done; `lim check`: could not be carried out. */
  inPart: 3,
  interrupted: 130,
} as const;

export const exitCodesHelp = `Exit codes:
  0    done
  1    failed: a service refused or does not answer, a task failed, a check found errors
  2    wrong use: arguments, settings, a file that cannot be read, a missing or wrong token
  3    done in part: some rows of the file were bad (import, match); check: storage or database is away
  130  interrupted by a signal`;

/** What the caller mends, not the one who runs the services. */
const wrongUse: readonly ErrorName[] = ["bad_settings", "bad_input", "unauthorized"];

/** `asJson` tells, when the command runs, whether its errors are wanted as JSON, too. */
export function createAct(asJson: () => boolean): Act {
  return (body) =>
    untilSignal(body).then(
      (code) => {
        process.exitCode = code;
      },
      (error: unknown) => {
        const interrupted =
          isLimError(error, "aborted") || (error instanceof Error && error.name === "AbortError");
        if (!interrupted || isLimError(error)) printError(error, asJson());
        process.exitCode = interrupted
          ? exitCodes.interrupted
          : wrongUse.some((name) => isLimError(error, name))
            ? exitCodes.wrongUse
            : exitCodes.failed;
      },
    );
}

/** To standard error: a line for people, or one JSON object with the form that the HTTP APIs have. */
export function printError(error: unknown, asJson = false): void {
  const known = LimError.from(error);
  if (asJson) {
    console.error(JSON.stringify({ error: known.toBody() }));
    return;
  }
  console.error(`lim: ${known.message} (${known.code})`);
  if (!(error instanceof LimError) && error instanceof Error) console.error(error.stack);
  else if (known.cause instanceof Error) console.error(`  cause: ${known.cause.message}`);
}

/** Whoever reads the output may stop early, as `head` does: that is no failure to report. */
export function endQuietlyOnClosedPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(141);
    throw error;
  });
}

export function requireUrl(name: "REDIS_URL" | "DATABASE_URL", value: string | undefined): string {
  if (value !== undefined) return value;
  throw new LimError(
    "bad_settings",
    `${name} is not set, and no lim up runs here: set it, or start a stack with lim up (npm start)`,
  );
}
