import { LimError } from "@lim/contracts";
import { type Logger, pino } from "pino";

/** JSON lines on stdout with ISO times and level names; what looks like a credential is censored at depth 0 to 2. */
export function createLogger(options: { service: string; level: string }): Logger {
  const known = [...Object.keys(pino.levels.values), "silent"];
  if (!known.includes(options.level))
    throw new LimError("bad_settings", `log level "${options.level}" is not one of ${known.join(", ")}`);
  const secrets = ["password", "token", "secret", "authorization", "cookie"];
  return pino({
    level: options.level,
    base: { service: options.service },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: {
      paths: secrets.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]),
      censor: "[redacted]",
    },
  });
}
