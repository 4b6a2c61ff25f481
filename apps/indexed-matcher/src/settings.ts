import { resolve } from "node:path";
import { defaults } from "@lim/contracts";
import {
  apiSettings,
  commonSettings,
  describeSettings,
  descriptorSettings,
  flag,
  guessHost,
  listenSettings,
  loadSettings,
  settingsFileOf,
  settingsSources,
  wholeNumber,
} from "@lim/service-kit";
import { defaultRerank, rerankKinds } from "@lim/vector-index";
import { z } from "zod";

export const settingsShape = {
  ...commonSettings,
  ...apiSettings,
  ...descriptorSettings,
  ...listenSettings("LIM_MATCHER", defaults.matcherPort),
  matcherHost: {
    env: "VL_LIM_MATCHER_HOST",
    takes: "host name or IPv4 address",
    defaultText: "guessed",
    schema: z
      .string()
      .regex(/^[^\s|:/]+$/, "must be a host name or IPv4 address")
      .optional()
      .describe("Host part of this matcher's id in label keys; guessed where not set"),
  },
  consumerGroup: {
    env: "LIM_MATCHER_CONSUMER",
    schema: z
      .string()
      .min(1)
      .default(defaults.matcherConsumerGroup)
      .describe("Consumer group of the match streams, the same for all matchers"),
  },
  lockPrefix: {
    env: "LIM_MATCHER_LOCK_PREFIX",
    schema: z.string().min(1).default(defaults.matcherLockPrefix).describe("Prefix of the labels' locks"),
  },
  streamPrefix: {
    env: "LIM_MATCH_STREAM_PREFIX",
    allowEmpty: true,
    schema: z.string().default(defaults.matchStreamPrefix).describe("Prefix of the match streams"),
  },
  reloadPeriodMs: {
    env: "LIM_RELOAD_PERIOD_MS",
    schema: wholeNumber(50, 3_600_000)
      .default(5_000)
      .describe("Milliseconds between two comparisons of the storage with what is loaded"),
  },
  refreshEnabled: {
    env: "LIM_REFRESH_ENABLED",
    schema: flag.default(true).describe("Whether loaded indexes follow the lists' changes"),
  },
  refreshPeriodMs: {
    env: "LIM_REFRESH_PERIOD_MS",
    schema: wholeNumber(10, 3_600_000)
      .default(200)
      .describe("Milliseconds between two looks at the lists' revisions"),
  },
  labelKeyTtlMs: {
    env: "LIM_LABEL_KEY_TTL_MS",
    schema: wholeNumber(200, 600_000)
      .default(defaults.labelKeyTtlMs)
      .describe("Milliseconds until the label keys of a dead matcher expire"),
  },
  labelKeyRenewMs: {
    env: "LIM_LABEL_KEY_RENEW_MS",
    schema: wholeNumber(50, 600_000)
      .default(defaults.labelKeyRenewMs)
      .describe("Milliseconds between renewals of the label keys; below the TTL"),
  },
  efSearch: {
    env: "LIM_EF_SEARCH",
    schema: wholeNumber(1, 10_000)
      .default(defaults.efSearch)
      .describe("Candidates that a search keeps: more is slower and finds more"),
  },
  rerank: {
    env: "LIM_RERANK",
    schema: z
      .enum(rerankKinds)
      .default(defaultRerank)
      .describe("Engine hnsw: where the vectors are that put candidates in exact order; off: nowhere"),
  },
  memoryLimitRatio: {
    env: "LIM_MEMORY_LIMIT_RATIO",
    schema: z.coerce
      .number()
      .gt(0)
      .max(1)
      .default(0.8)
      .describe("Share of the memory (machine's or cgroup's) past which nothing more is loaded"),
  },
  cacheDir: {
    env: "LIM_MATCHER_CACHE",
    takes: "folder, another than `LIM_STORAGE_ROOT`",
    schema: z
      .string()
      .min(1)
      .optional()
      .describe(
        "Folder shared by the matchers of one host, into which each index is copied once; off where unset",
      ),
  },
  cacheMaxMb: {
    env: "LIM_MATCHER_CACHE_MAX_MB",
    schema: wholeNumber(1, 1_000_000_000)
      .optional()
      .describe("Most MiB that the cache folder holds; no limit where unset"),
  },
  dropThenLoad: {
    env: "LIM_DROP_THEN_LOAD",
    schema: flag
      .default(false)
      .describe(
        "Whether an index whose successor does not fit beside it is dropped first, while another matcher serves",
      ),
  },
  batchSize: {
    env: "LIM_BATCH_SIZE",
    schema: wholeNumber(1, 1_024).default(64).describe("Most matches searched at once"),
  },
} as const;

type Loaded = ReturnType<typeof loadSettings<typeof settingsShape>>;
export type Settings = Omit<Loaded, "matcherHost"> & {
  /** Host under which label keys name this matcher. */
  matcherHost: string;
};

function faultsBetween({ labelKeyRenewMs, labelKeyTtlMs, cacheDir, storageRoot }: Partial<Loaded>) {
  const faults: { key: keyof typeof settingsShape; fault: string }[] = [];
  if (labelKeyRenewMs !== undefined && labelKeyTtlMs !== undefined && labelKeyRenewMs >= labelKeyTtlMs)
    faults.push({
      key: "labelKeyRenewMs",
      fault: `must be below ${settingsShape.labelKeyTtlMs.env}, or keys expire between renewals; got "${labelKeyRenewMs}"`,
    });
  if (cacheDir !== undefined && storageRoot !== undefined && resolve(cacheDir) === resolve(storageRoot))
    faults.push({
      key: "cacheDir",
      fault: `must be another folder than ${settingsShape.storageRoot.env}; got "${cacheDir}"`,
    });
  return faults;
}

/** Throws `bad_settings` with all faults. `file`: the argument of --settings. */
export function readSettings(
  env: Readonly<Record<string, string | undefined>> = process.env,
  file?: string,
): Settings {
  const loaded = loadSettings(settingsShape, env, settingsFileOf(env, file), faultsBetween);
  return { ...loaded, matcherHost: guessHost(loaded.matcherHost) };
}

export function settingsHelp(): string {
  return `${settingsSources()}\n\nSettings (environment variable, name in the file):\n${describeSettings(settingsShape)}`;
}
