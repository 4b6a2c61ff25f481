import { defaults, LimError, limits } from "@lim/contracts";
import { connectRedis, createLabelWatcher, createMatchClient, defaultKeyNames } from "@lim/coordination";
import { openFacesDb } from "@lim/faces-db";
import { ExactSearch } from "./exact-search.ts";
import { EmbeddedSearch } from "./plugin.ts";
import { checkNumber } from "./query.ts";
import type { SearchPlugin, SearchPluginOptions } from "./types.ts";

export { type ErrorName, isLimError, LimError } from "@lim/contracts";
export { maxReferences } from "./query.ts";
export type * from "./types.ts";

const defaultExactMaxFaces = 50_000;
/** Measured (`npm run bench:plugin`): up to here exact search answers at least as fast as an index, whatever the number of callers. */
export const defaultExactFirstFaces = 100;
const defaultExactCacheBytes = 1 << 30;
const labelPollMs = 250;
/** Read before the first call; without Redis the plugin starts all the same and searches exactly. */
const firstLookMs = 2_000;

export async function createSearchPlugin(options: SearchPluginOptions): Promise<SearchPlugin> {
  const settings = {
    dim: checkNumber(options.dim ?? defaults.descriptorDim, "dim", limits.minDim, limits.maxDim, true),
    descriptorVersion: checkNumber(
      options.descriptorVersion ?? defaults.descriptorVersion,
      "descriptorVersion",
      0,
      0xffff_ffff,
      true,
    ),
    defaultTimeoutMs: checkNumber(
      options.defaultTimeoutMs ?? limits.defaultMatchTimeoutMs,
      "defaultTimeoutMs",
      1,
      limits.maxMatchTimeoutMs,
      true,
    ),
  };
  const exactFirstFaces = checkNumber(
    options.exactFirstFaces ?? defaultExactFirstFaces,
    "exactFirstFaces",
    0,
    1e9,
    true,
  );
  const exactLimits = {
    maxFaces: checkNumber(options.exactMaxFaces ?? defaultExactMaxFaces, "exactMaxFaces", 0, 1e9, true),
    cacheBytes: checkNumber(
      options.exactCacheBytes ?? defaultExactCacheBytes,
      "exactCacheBytes",
      0,
      Number.MAX_SAFE_INTEGER,
      true,
    ),
  };
  const shape = { dim: settings.dim, descriptorVersion: settings.descriptorVersion };
  const log = options.log ? { log: options.log } : {};
  // Refuses a wrong connection string, so it comes before what connects at once and would be left behind.
  const db = options.facesDb
    ? openFacesDb({
        connectionString: options.facesDb.connectionString,
        applicationName: "lim-search-plugin",
      })
    : undefined;
  const redis = connectRedis({ url: options.redis.url, name: "lim-search-plugin", ...log });
  const keys = {
    ...defaultKeyNames,
    matchStreamPrefix: options.matchStreamPrefix ?? defaultKeyNames.matchStreamPrefix,
  };
  const watcher = createLabelWatcher({
    redis,
    ttlMs: defaults.labelKeyTtlMs,
    pollMs: labelPollMs,
    ...log,
  });
  const plugin = new EmbeddedSearch({
    watcher,
    client: createMatchClient({ redis, keys, ...log }),
    faces: db ? { db, exact: new ExactSearch(db, shape, exactLimits) } : undefined,
    settings: { ...settings, exactMaxFaces: exactLimits.maxFaces, exactFirstFaces },
    closeConnections: () => redis.close(),
  });
  await watcher.refresh({ signal: AbortSignal.timeout(firstLookMs) }).catch((thrown: unknown) => {
    options.log?.warn({ reason: LimError.from(thrown).detail }, "served labels are not known yet");
  });
  return plugin;
}
