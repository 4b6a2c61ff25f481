import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { defaults, type EngineName, engineNameSchema } from "@lim/contracts";
import { apiSettings, commonSettings, descriptorSettings } from "@lim/service-kit/common-settings";
import { loadSettings } from "@lim/service-kit/settings";
import { z } from "zod";

/** What `lim` takes from the environment; the options of a command win over it. */
export interface CliSettings {
  redisUrl: string | undefined;
  databaseUrl: string | undefined;
  storageRoot: string | undefined;
  managerUrl: string;
  /** Bearer token of the managers, where they ask for one. */
  apiToken: string | undefined;
  /** Where `lim up` keeps its servers' data, indexes and process ids. */
  home: string;
  /** Where `lim demo` keeps its own while it runs: one place per checkout, so that the next start finds leftovers. */
  demoHome: string;
  descriptorVersion: number;
  dim: number;
  /** Of new indexes. */
  engine: EngineName;
}

export const projectRoot = fileURLToPath(new URL("../../", import.meta.url));

const managerUrlSchema = z
  .string()
  .refine(
    (url) => /^https?:\/\//.test(url) && URL.canParse(url),
    `must be like http://host:${defaults.managerPort}`,
  )
  .default(`http://127.0.0.1:${defaults.managerPort}`)
  .describe("A manager, for the commands that ask one");

export const settingsShape = {
  redisUrl: {
    ...commonSettings.redisUrl,
    schema: commonSettings.redisUrl.schema
      .optional()
      .describe("Redis; `lim up` finds or starts one where unset"),
  },
  databaseUrl: {
    ...commonSettings.databaseUrl,
    schema: commonSettings.databaseUrl.schema
      .optional()
      .describe("Postgres; `lim up` finds or starts one where unset"),
  },
  storageRoot: {
    ...commonSettings.storageRoot,
    schema: commonSettings.storageRoot.schema
      .optional()
      .describe("Folder of the index storage; `lim up` keeps it in LIM_HOME where unset"),
  },
  managerUrl: { env: "LIM_MANAGER_URL", schema: managerUrlSchema, takes: "http:// or https:// address" },
  apiToken: {
    ...apiSettings.apiToken,
    schema: apiSettings.apiToken.schema.describe("Bearer token that managers are asked with"),
  },
  home: {
    env: "LIM_HOME",
    defaultText: ".lim in the checkout",
    takes: "folder",
    schema: z
      .string()
      .default(join(projectRoot, ".lim"))
      .describe("Where `lim up` keeps its servers' data, indexes and process ids"),
  },
  ...descriptorSettings,
  engine: {
    env: "LIM_ENGINE",
    schema: engineNameSchema.default(defaults.engine).describe("Engine of new indexes"),
  },
} as const;

/** Names the settings file of `lim`; services have another variable, as each has a file of its own. */
export const settingsFileEnv = "LIM_CLI_SETTINGS_FILE";

/** Throws `bad_settings` with every fault. `file`: by default the one that LIM_CLI_SETTINGS_FILE names. */
export function readSettings(
  env: Readonly<Record<string, string | undefined>> = process.env,
  file: string | undefined = env[settingsFileEnv] || undefined,
): CliSettings {
  const { home, descriptorDim, ...rest } = loadSettings(settingsShape, env, file);
  const checkout = createHash("sha256").update(projectRoot).digest("hex").slice(0, 12);
  return {
    ...rest,
    home: resolve(home),
    demoHome: join(tmpdir(), `lim-demo-${checkout}`),
    dim: descriptorDim,
  };
}
