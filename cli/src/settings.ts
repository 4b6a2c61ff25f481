import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { defaults, type EngineName, engineNames, LimError } from "@lim/contracts";

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

function positiveInteger(name: string, text: string | undefined, fallback: number): number {
  if (text === undefined || text === "") return fallback;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new LimError("bad_settings", `${name} must be a positive integer, not "${text}"`);
  return value;
}

function optional(text: string | undefined): string | undefined {
  return text === undefined || text === "" ? undefined : text;
}

/** As the managers take it; the value itself is never shown. */
function tokenOf(text: string | undefined): string | undefined {
  const token = optional(text);
  if (token === undefined || /^[\x21-\x7e]{16,256}$/.test(token)) return token;
  throw new LimError("bad_settings", "LIM_API_TOKEN must have 16 to 256 printable characters without spaces");
}

function managerUrlOf(text: string | undefined): string {
  const url = optional(text) ?? `http://127.0.0.1:${defaults.managerPort}`;
  if (/^https?:\/\//.test(url) && URL.canParse(url)) return url;
  throw new LimError(
    "bad_settings",
    `LIM_MANAGER_URL must be like http://host:${defaults.managerPort}, not "${url}"`,
  );
}

function engineOf(text: string | undefined): EngineName {
  const wanted = optional(text) ?? defaults.engine;
  const engine = engineNames.find((name) => name === wanted);
  if (!engine)
    throw new LimError("bad_settings", `LIM_ENGINE must be ${engineNames.join(" or ")}, not "${wanted}"`);
  return engine;
}

export function readSettings(env: Readonly<Record<string, string | undefined>> = process.env): CliSettings {
  const checkout = createHash("sha256").update(projectRoot).digest("hex").slice(0, 12);
  return {
    redisUrl: optional(env.REDIS_URL),
    databaseUrl: optional(env.DATABASE_URL),
    storageRoot: optional(env.LIM_STORAGE_ROOT),
    managerUrl: managerUrlOf(env.LIM_MANAGER_URL),
    apiToken: tokenOf(env.LIM_API_TOKEN),
    home: resolve(optional(env.LIM_HOME) ?? join(projectRoot, ".lim")),
    demoHome: join(tmpdir(), `lim-demo-${checkout}`),
    descriptorVersion: positiveInteger(
      "LIM_DESCRIPTOR_VERSION",
      env.LIM_DESCRIPTOR_VERSION,
      defaults.descriptorVersion,
    ),
    dim: positiveInteger("LIM_DESCRIPTOR_DIM", env.LIM_DESCRIPTOR_DIM, defaults.descriptorDim),
    engine: engineOf(env.LIM_ENGINE),
  };
}
