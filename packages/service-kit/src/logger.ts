import { LimError } from "@lim/contracts";
import { type Logger, type LoggerOptions, pino } from "pino";
import { redactText, secretNames } from "./redact.ts";

/**
 * JSON lines on stdout with ISO times and level names. What looks like a credential is censored: by its name at depth 0
 * to 2, by its form (user and password of an address, a bearer token) in every text, stacks and causes included.
 */
export function createLogger(options: {
  service: string;
  level: string;
  /** Each line is written before the call returns: for a process that may end at any time, by its own hand. Default false. */
  sync?: boolean;
}): Logger {
  const known = [...Object.keys(pino.levels.values), "silent"];
  if (!known.includes(options.level))
    throw new LimError("bad_settings", `log level "${options.level}" is not one of ${known.join(", ")}`);
  const destination = pino.destination({ dest: process.stdout.fd, sync: options.sync ?? false });
  const settings: LoggerOptions = {
    level: options.level,
    base: { service: options.service },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: {
      paths: [
        ...secretNames.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]),
        // A refusal of Redis carries the command that it refused, which may be AUTH.
        "err.command.args",
      ],
      censor: "[redacted]",
    },
    hooks: { streamWrite: redactText },
  };
  return pino(settings, destination);
}
