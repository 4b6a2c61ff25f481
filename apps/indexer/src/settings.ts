import { defaults } from "@lim/contracts";
import {
  apiSettings,
  commonSettings,
  describeSettings,
  flag,
  guessHost,
  listenSettings,
  loadSettings,
  settingsFileOf,
  settingsSources,
  wholeNumber,
} from "@lim/service-kit";
import { z } from "zod";
import { physicalMemoryBytes } from "./memory.ts";
import { mebibyte } from "./preflight.ts";

/** Share of the machine's memory that a build may take where no limit is set. */
const defaultMemoryShare = 0.8;

export const settingsShape = {
  ...commonSettings,
  ...apiSettings,
  ...listenSettings("LIM_INDEXER", defaults.indexerPort),
  origin: {
    env: "LIM_INDEXER_ORIGIN",
    takes: "http:// or https:// address",
    defaultText: "guessed",
    schema: z
      .url({ protocol: /^https?$/ })
      .transform((text) => text.replace(/\/+$/, ""))
      .optional()
      .describe("http://host:port under which managers reach this indexer; guessed where not set"),
  },
  registrationTtlMs: {
    env: "LIM_INDEXER_TTL_MS",
    schema: wholeNumber(500, 600_000)
      .default(10_000)
      .describe("Milliseconds until the registration of a dead indexer expires"),
  },
  memoryLimitMb: {
    env: "LIM_BUILD_MEMORY_LIMIT_MB",
    defaultText: `${defaultMemoryShare * 100} % of the memory`,
    schema: z.coerce
      .number()
      .int()
      .min(1)
      .optional()
      .describe("Resident MiB of a build's processes together at which it is ended"),
  },
  drainTimeoutMs: {
    env: "LIM_DRAIN_TIMEOUT_MS",
    schema: wholeNumber(0, 86_400_000)
      .default(20_000)
      .describe("Milliseconds that a running build gets to finish at shutdown before it is cancelled"),
  },
  spareProcesses: {
    env: "LIM_SPARE_PROCESSES",
    schema: flag
      .default(true)
      .describe(
        "Processes for the next build are started while none runs, so that it begins at once; two, of some 30 MiB of their own each",
      ),
    defaultText: "true",
  },
  snapshotRateMbPerS: {
    env: "LIM_SNAPSHOT_RATE_MB_S",
    schema: wholeNumber(0, 100_000)
      .default(defaults.snapshotRateMbPerS)
      .describe(
        "MB/s at which a build reads its list from Postgres at most, unless its engine would wait; 0 = as fast as it comes",
      ),
  },
} as const;

export interface Settings {
  redisUrl: string;
  databaseUrl: string;
  storageRoot: string;
  host: string;
  port: number;
  /** What callers of the HTTP API must bear; undefined: nothing. */
  apiToken: string | undefined;
  /** Origin under which managers reach this indexer, given the port that it listens on. */
  originOf: (listeningPort: number) => string;
  registrationTtlMs: number;
  memoryLimitBytes: number;
  drainTimeoutMs: number;
  spareProcesses: boolean;
  snapshotRateMbPerS: number;
  logLevel: string;
}

/** Throws `bad_settings` with all faults. `file`: the argument of --settings. */
export function readSettings(
  env: Readonly<Record<string, string | undefined>> = process.env,
  file?: string,
): Settings {
  const { origin, memoryLimitMb, ...rest } = loadSettings(settingsShape, env, settingsFileOf(env, file));
  return {
    ...rest,
    originOf: (listeningPort) => origin ?? `http://${reachableHost(rest.host)}:${listeningPort}`,
    memoryLimitBytes:
      memoryLimitMb === undefined
        ? Math.floor(physicalMemoryBytes() * defaultMemoryShare)
        : memoryLimitMb * mebibyte,
  };
}

/** The address that it listens on, unless that stands for all of them. */
function reachableHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return guessHost(undefined);
  return host.includes(":") ? `[${host}]` : host;
}

export function settingsHelp(): string {
  return `${settingsSources()}\n\nSettings (environment variable, name in the file):\n${describeSettings(settingsShape)}`;
}
