import { readFileSync } from "node:fs";
import { connectRedis } from "@lim/coordination";
import { openFacesDb } from "@lim/faces-db";
import { type LoadAdapter, openIndexStorage } from "@lim/index-storage";
import { createLogger, Registry as MetricRegistry } from "@lim/service-kit";
import { loadEngine } from "@lim/vector-index";
import { buildApp } from "../src/app.ts";
import { createMatcher, type Matcher } from "../src/matcher.ts";
import { Registry } from "../src/registry.ts";
import { readSettings } from "../src/settings.ts";

/**
 * A matcher for which only its indexes count as memory, and whose limit is a number of bytes in the file named by
 * MEMORY_LIMIT_FILE, read each time that it is asked for: what does or does not fit depends on no machine.
 */
const settings = readSettings(process.env);
const log = createLogger({ service: "indexed-matcher", level: settings.logLevel });
const redis = connectRedis({ url: settings.redisUrl, name: "budgeted-matcher", log });
const db = openFacesDb({
  connectionString: settings.databaseUrl,
  maxConnections: 8,
  applicationName: "budgeted-matcher",
});
const loadAdapter: LoadAdapter = (name) => loadEngine(name, { rerank: settings.rerank });
const storage = await openIndexStorage({ root: settings.storageRoot, loadAdapter });
const registry = new Registry();
const metrics = new MetricRegistry();
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
let matcher: Matcher | undefined;
let matcherId = "";
const app = await buildApp({
  registry,
  matcherId: () => matcherId,
  memory: () => matcher?.memory,
  logger: log,
  apiToken: undefined,
  metrics,
  health: [],
  isReady: () => matcher?.ready ?? false,
});
await app.listen({ host: settings.host, port: settings.port });
const address = app.server.address();
matcherId = `${settings.matcherHost}:${typeof address === "object" ? address?.port : ""}`;
const memoryState = () => ({
  limitBytes: Number(readFileSync(process.env.MEMORY_LIMIT_FILE ?? "", "utf8")),
  totalBytes: Number.MAX_SAFE_INTEGER,
  residentBytes: registry
    .slots()
    .reduce(
      (sum, { current }) => sum + (current ? current.keyed.index.memoryBytes + current.keyed.count : 0),
      0,
    ),
  spareBytes: 0,
});
matcher = createMatcher({
  settings,
  matcherId,
  registry,
  redis,
  db,
  storage,
  loadAdapter,
  log,
  metrics,
  memoryState,
});
log.info({ url: `http://${matcherId}`, matcher_id: matcherId }, "indexed-matcher listening");
await matcher.run(stop.signal);
await Promise.allSettled([app.close(), redis.close(), db.close()]);
