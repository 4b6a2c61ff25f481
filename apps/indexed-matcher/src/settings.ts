import { defaults, limits } from "@lim/contracts";
import { describeSettings, guessHost, loadSettings } from "@lim/service-kit";
import { z } from "zod";

const milliseconds = (least: number, most: number) => z.coerce.number().int().min(least).max(most);

const shape = {
  redisUrl: {
    env: "REDIS_URL",
    secret: true,
    schema: z.url().default("redis://127.0.0.1:6379").describe("Redis with the match streams"),
  },
  databaseUrl: {
    env: "DATABASE_URL",
    secret: true,
    schema: z.url().describe("Postgres that holds the lists and faces"),
  },
  storageRoot: {
    env: "LIM_STORAGE_ROOT",
    schema: z.string().min(1).describe("folder of the index storage, shared with managers and indexers"),
  },
  host: {
    env: "LIM_MATCHER_HOST",
    schema: z.string().min(1).default("0.0.0.0").describe("address to listen on"),
  },
  port: {
    env: "LIM_MATCHER_PORT",
    schema: z.coerce
      .number()
      .int()
      .min(0)
      .max(65_535)
      .default(defaults.matcherPort)
      .describe("port to listen on; 0 takes a free one"),
  },
  matcherHost: {
    env: "VL_LIM_MATCHER_HOST",
    schema: z
      .string()
      .regex(/^[^\s|:/]+$/, "must be a host name or IPv4 address")
      .optional()
      .describe("host part of this matcher's id in label keys; guessed where not set"),
  },
  consumerGroup: {
    env: "LIM_MATCHER_CONSUMER",
    schema: z
      .string()
      .min(1)
      .default(defaults.matcherConsumerGroup)
      .describe("consumer group of the match streams, the same for all matchers"),
  },
  lockPrefix: {
    env: "LIM_MATCHER_LOCK_PREFIX",
    schema: z.string().min(1).default(defaults.matcherLockPrefix).describe("prefix of the labels' locks"),
  },
  streamPrefix: {
    env: "LIM_MATCH_STREAM_PREFIX",
    allowEmpty: true,
    schema: z.string().default(defaults.matchStreamPrefix).describe("prefix of the match streams"),
  },
  reloadPeriodMs: {
    env: "LIM_RELOAD_PERIOD_MS",
    schema: milliseconds(50, 3_600_000)
      .default(5_000)
      .describe("milliseconds between two comparisons of the storage with what is loaded"),
  },
  refreshEnabled: {
    env: "LIM_REFRESH_ENABLED",
    schema: z
      .enum(["true", "false", "1", "0"])
      .default("true")
      .transform((text) => text === "true" || text === "1")
      .describe("whether loaded indexes follow the lists' changes"),
  },
  refreshPeriodMs: {
    env: "LIM_REFRESH_PERIOD_MS",
    schema: milliseconds(10, 3_600_000)
      .default(200)
      .describe("milliseconds between two looks at the lists' revisions"),
  },
  labelKeyTtlMs: {
    env: "LIM_LABEL_KEY_TTL_MS",
    schema: milliseconds(200, 600_000)
      .default(defaults.labelKeyTtlMs)
      .describe("milliseconds until the label keys of a dead matcher expire"),
  },
  labelKeyRenewMs: {
    env: "LIM_LABEL_KEY_RENEW_MS",
    schema: milliseconds(50, 600_000)
      .default(defaults.labelKeyRenewMs)
      .describe("milliseconds between renewals of the label keys; below the TTL"),
  },
  efSearch: {
    env: "LIM_EF_SEARCH",
    schema: z.coerce
      .number()
      .int()
      .min(1)
      .max(10_000)
      .default(defaults.efSearch)
      .describe("candidates that a search keeps: more is slower and finds more"),
  },
  descriptorVersion: {
    env: "LIM_DESCRIPTOR_VERSION",
    schema: z.coerce
      .number()
      .int()
      .min(0)
      .max(0xffff_ffff)
      .default(defaults.descriptorVersion)
      .describe("descriptor version that is served"),
  },
  dim: {
    env: "LIM_DESCRIPTOR_DIM",
    schema: z.coerce
      .number()
      .int()
      .min(limits.minDim)
      .max(limits.maxDim)
      .default(defaults.descriptorDim)
      .describe("dimensions of a descriptor"),
  },
  memoryLimitRatio: {
    env: "LIM_MEMORY_LIMIT_RATIO",
    schema: z.coerce
      .number()
      .gt(0)
      .max(1)
      .default(0.8)
      .describe("share of the memory (machine's or cgroup's) past which nothing more is loaded"),
  },
  batchSize: {
    env: "LIM_BATCH_SIZE",
    schema: z.coerce.number().int().min(1).max(1_024).default(64).describe("most matches searched at once"),
  },
  logLevel: {
    env: "LOG_LEVEL",
    schema: z
      .enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
      .default("info")
      .describe("least level that is logged"),
  },
} as const;

type Loaded = ReturnType<typeof loadSettings<typeof shape>>;
export type Settings = Omit<Loaded, "matcherHost"> & {
  /** Host under which label keys name this matcher. */
  matcherHost: string;
};

/** Throws `bad_settings` with all faults. */
export function readSettings(env: Readonly<Record<string, string | undefined>> = process.env): Settings {
  const checked = {
    ...shape,
    labelKeyRenewMs: {
      ...shape.labelKeyRenewMs,
      schema: shape.labelKeyRenewMs.schema.refine(
        (renewMs) => renewMs < (Number(env[shape.labelKeyTtlMs.env]) || defaults.labelKeyTtlMs),
        `must be below ${shape.labelKeyTtlMs.env}, or keys expire between renewals`,
      ),
    },
  };
  const loaded = loadSettings(checked, env);
  return { ...loaded, matcherHost: guessHost(loaded.matcherHost) };
}

export function settingsHelp(): string {
  return describeSettings(shape);
}
