import type { Log } from "@lim/coordination";
import {
  type CacheEvent,
  type IndexStorage,
  type LoadAdapter,
  openIndexCache,
  type PublishedIndex,
} from "@lim/index-storage";
import type { MatcherMetrics } from "./metrics.ts";

/** Where indexes are opened from: the storage, or a cache folder before it. */
export interface IndexSource extends Pick<IndexStorage, "open" | "verify"> {
  /** Says what this matcher serves or wants, so that the cache can let go of the rest. */
  tidy(options: {
    wanted: ReadonlySet<string>;
    published: readonly PublishedIndex[];
    signal: AbortSignal;
  }): Promise<void>;
}

type SourceMetrics = Pick<MatcherMetrics, "storageRead" | "cacheEvent" | "cacheHolds">;

export function createIndexSource(options: {
  storage: IndexStorage;
  loadAdapter: LoadAdapter;
  cacheDir: string | undefined;
  cacheMaxBytes: number | undefined;
  metrics: SourceMetrics;
  log: Log;
}): IndexSource {
  const { storage, cacheDir, metrics } = options;
  if (cacheDir === undefined)
    return {
      open(of) {
        metrics.storageRead();
        return storage.open(of);
      },
      verify(of) {
        metrics.storageRead();
        return storage.verify(of);
      },
      tidy: async () => {},
    };
  const cache = openIndexCache({
    root: cacheDir,
    storage,
    loadAdapter: options.loadAdapter,
    maxBytes: options.cacheMaxBytes,
    onEvent: cacheReporter(cacheDir, metrics, options.log),
  });
  return {
    open: (of) => cache.open(of),
    verify: (of) => cache.verify(of),
    async tidy(of) {
      const holds = await cache.tidy(of);
      if (holds) metrics.cacheHolds(holds);
    },
  };
}

function cacheReporter(cacheDir: string, metrics: SourceMetrics, log: Log): (event: CacheEvent) => void {
  let isBypassed = false;
  return (event) => {
    if (event.kind === "storage_read") {
      metrics.storageRead();
      return;
    }
    metrics.cacheEvent(event.kind);
    const index_id = event.indexId;
    switch (event.kind) {
      case "bypassed":
        if (!isBypassed)
          log.error(
            { index_id, cache: cacheDir, reason: event.reason },
            "the cache folder cannot be used, indexes are opened from the storage",
          );
        isBypassed = true;
        return;
      case "corrupt":
        log.error({ index_id, reason: event.reason }, "a cache entry was corrupt, it is fetched again");
        return;
      case "taken_over":
        log.warn(
          { index_id },
          "the process that fetched an index into the cache has died, another one fetches it",
        );
        return;
      case "removed":
        log.info({ index_id }, "index removed from the cache");
        return;
      default:
        if (isBypassed) log.info({ cache: cacheDir }, "the cache folder is used again");
        isBypassed = false;
    }
  };
}
