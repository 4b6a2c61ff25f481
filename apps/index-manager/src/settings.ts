import { defaults, engineNameSchema, limits, uuidSchema } from "@lim/contracts";
import {
  apiSettings,
  commonSettings,
  describeSettings,
  descriptorSettings,
  flag,
  listenSettings,
  loadSettings,
  settingsFileOf,
  settingsSources,
  wholeNumber,
} from "@lim/service-kit";
import { z } from "zod";
import { cronFault, isTimeZone, type Schedule } from "./schedule.ts";

export type WantedLists = { kind: "dynamic" } | { kind: "lists"; listIds: string[] };

const wantedListsSchema = z.string().transform((text, context): WantedLists => {
  if (text === "dynamic") return { kind: "dynamic" };
  const result = z
    .array(uuidSchema)
    .min(1)
    .safeParse(text.split(",").map((part) => part.trim()));
  if (result.success) return { kind: "lists", listIds: [...new Set(result.data)] };
  context.addIssue({ code: "custom", message: 'must be "dynamic" or list ids (UUIDs) separated by commas' });
  return z.NEVER;
});

const maxStaticIndexers = 256;
const originsSchema = z.string().transform((text, context): string[] => {
  const parts = text.split(",").map((part) => part.trim());
  const bad = parts.find((part) => !/^https?:\/\/[^/?#@]+\/?$/.test(part) || !URL.canParse(part));
  if (bad === undefined && parts.length <= maxStaticIndexers)
    return [...new Set(parts.map((part) => new URL(part).origin))];
  context.addIssue({
    code: "custom",
    message: `must be at most ${maxStaticIndexers} origins like http://host:5180, separated by commas`,
  });
  return z.NEVER;
});

const cronSchema = z.string().superRefine((text, context) => {
  const fault = cronFault(text);
  if (fault) context.addIssue({ code: "custom", message: fault });
});

export const settingsShape = {
  ...commonSettings,
  ...descriptorSettings,
  ...listenSettings("LIM_MANAGER", defaults.managerPort),
  apiToken: {
    ...apiSettings.apiToken,
    schema: apiSettings.apiToken.schema.describe(
      "Bearer token that every request but those for health must bear, and that this manager bears to indexers; off where unset",
    ),
  },
  masterLock: {
    env: "LIM_MANAGER_MASTER_LOCK",
    takes: "text without spaces and braces, at most 200 characters",
    file: "master_lock",
    schema: z
      .string()
      .regex(/^[^\s{}]{1,200}$/, "must have no space or brace")
      .default(defaults.managerMasterLock)
      .describe("Key of the master's lock; managers with the same one elect a master among them"),
  },
  leaseTtlMs: {
    env: "LIM_MANAGER_LEASE_TTL_MS",
    schema: wholeNumber(500, 600_000).default(defaults.masterLeaseTtlMs).describe("The master's lease"),
  },
  planningPeriodS: {
    env: "LIM_PLANNING_PERIOD_S",
    file: "planning_period",
    schema: wholeNumber(1, 31_536_000).default(3_600).describe("Seconds between plans"),
  },
  planningSchedule: {
    env: "LIM_PLANNING_SCHEDULE",
    takes: "cron string of 5 or 6 fields",
    file: "planning_schedule",
    schema: cronSchema.optional().describe("Cron string of 5 or 6 fields; wins over the period"),
  },
  planningTimeZone: {
    env: "LIM_PLANNING_TIME_ZONE",
    takes: "time zone like Europe/Berlin",
    file: "planning_time_zone",
    schema: z
      .string()
      .refine(isTimeZone, "must be a time zone like Europe/Berlin")
      .default("UTC")
      .describe("Time zone of the schedule"),
  },
  planningSettleMs: {
    env: "LIM_PLANNING_SETTLE_MS",
    schema: wholeNumber(0, 600_000)
      .default(5_000)
      .describe(
        "Wait before the first plan of a master that finds none in Redis (first start, or Redis was emptied): indexers that are building register within it and their builds are taken over, not planned twice. Keep it above a third of the indexers' LIM_INDEXER_TTL_MS",
      ),
  },
  lookupPeriodMs: {
    env: "LIM_LOOKUP_PERIOD_MS",
    schema: wholeNumber(50, 60_000).default(1_000).describe("Pause between looks at the indexers"),
  },
  wanted: {
    env: "LIM_LISTS",
    takes: "`dynamic`, or list ids (UUIDs)",
    file: "lists",
    list: true,
    defaultText: "dynamic",
    schema: wantedListsSchema
      .prefault("dynamic")
      .describe('"dynamic": every list that is large enough; or list ids separated by commas'),
  },
  minIndexingListSize: {
    env: "LIM_MIN_INDEXING_LIST_SIZE",
    file: "min_indexing_list_size",
    schema: wholeNumber(1, Number.MAX_SAFE_INTEGER)
      .default(50_000)
      .describe("Faces that make a list worth an index"),
  },
  rebuildDefault: {
    env: "LIM_REBUILD_DEFAULT",
    file: "rebuild_rules.default",
    schema: flag.default(true).describe("true: build anew; false: update the newest index where that works"),
  },
  maxRemovalForRebuild: {
    env: "LIM_MAX_REMOVAL_FOR_REBUILD",
    file: "rebuild_rules.max_removal_for_rebuild",
    schema: wholeNumber(0, Number.MAX_SAFE_INTEGER)
      .default(0)
      .describe("More removals than this since the last full build ask for another; 0: never"),
  },
  maxRemovalRatio: {
    env: "LIM_MAX_REMOVAL_RATIO",
    file: "rebuild_rules.max_removal_ratio",
    schema: z.coerce
      .number()
      .gt(0)
      .max(1)
      .optional()
      .describe("The same by share of the index; off where unset, 0.1 recommended"),
  },
  indexers: {
    env: "LIM_INDEXERS",
    takes: `at most ${maxStaticIndexers} origins like http://host:5180`,
    file: "indexers",
    list: true,
    schema: originsSchema
      .optional()
      .describe("Origins of indexers, separated by commas, besides those that register"),
  },
  engine: {
    env: "LIM_ENGINE",
    schema: engineNameSchema.default(defaults.engine).describe("Engine of new indexes"),
  },
  m: { env: "LIM_M", schema: wholeNumber(2, 100).default(defaults.m).describe("Neighbours of a node") },
  efConstruction: {
    env: "LIM_EF_CONSTRUCTION",
    schema: wholeNumber(10, 2_000)
      .default(defaults.efConstruction)
      .describe("Width of the search while building"),
  },
  retryBackoffMs: {
    env: "LIM_RETRY_BACKOFF_MS",
    schema: wholeNumber(0, limits.maxRetryBackoffMs)
      .default(5_000)
      .describe(
        `Pause before a second attempt of a task; doubled for each further one, at most ${limits.maxRetryBackoffMs}`,
      ),
  },
  keepVersions: {
    env: "LIM_KEEP_VERSIONS",
    file: "keep_versions",
    schema: wholeNumber(1, 1_000).default(2).describe("Indexes kept of a list, the newest included"),
  },
  keepTasks: {
    env: "LIM_KEEP_TASKS",
    schema: wholeNumber(1, 100_000).default(10_000).describe("Ended tasks kept, those that ended last"),
  },
  taskRetentionS: {
    env: "LIM_TASK_RETENTION_S",
    file: "task_retention",
    schema: wholeNumber(1, 315_360_000)
      .default(30 * 86_400)
      .describe("Seconds that an ended task is kept, within LIM_KEEP_TASKS"),
  },
  deadLetterRetentionS: {
    env: "LIM_DEAD_LETTER_RETENTION_S",
    schema: wholeNumber(1, 315_360_000)
      .default(86_400)
      .describe("Seconds that a match request which was given up is kept for people to look at"),
  },
  feedRetentionS: {
    env: "LIM_FEED_RETENTION_S",
    schema: wholeNumber(60, 315_360_000)
      .default(86_400)
      .describe(
        "Seconds that every row of a list's change feed is kept; what an index still needs stays longer",
      ),
  },
  retentionPeriodMs: {
    env: "LIM_RETENTION_PERIOD_MS",
    schema: wholeNumber(100, 86_400_000)
      .default(60_000)
      .describe("Pause between removals of what is past its retention"),
  },
  deletedListGraceS: {
    env: "LIM_DELETED_LIST_GRACE_S",
    schema: wholeNumber(0, 31_536_000)
      .default(3_600)
      .describe("How long indexes of a deleted list stay after it was first missed (remembered in Redis)"),
  },
};

export type Settings = ReturnType<typeof loadSettings<typeof settingsShape>>;

/** Throws bad_settings with every fault. `file`: the argument of --settings. */
export function readSettings(env: Readonly<Record<string, string | undefined>>, file?: string): Settings {
  return loadSettings(settingsShape, env, settingsFileOf(env, file));
}

export function helpText(): string {
  return [
    "index-manager: plans, queues and dispatches index builds; HTTP API under /1, documentation under /docs.",
    "",
    settingsSources(),
    "",
    "Settings (environment variable, name in the file):",
    describeSettings(settingsShape),
  ].join("\n");
}

export function scheduleOf(settings: Settings): Schedule {
  return settings.planningSchedule === undefined
    ? { kind: "period", periodMs: settings.planningPeriodS * 1000 }
    : { kind: "cron", expression: settings.planningSchedule, timeZone: settings.planningTimeZone };
}
