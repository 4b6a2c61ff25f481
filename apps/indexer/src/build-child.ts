import { openFacesDb } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { createLogger } from "@lim/service-kit/logger";
import { loadEngine } from "@lim/vector-index";
import { runBuild } from "./build-job.ts";
import { type ChildWork, publishedReport, serveOrder } from "./child.ts";
import { type BuildReport, buildOrderSchema } from "./ipc.ts";

/** The snapshot's transaction, and the packets or checks beside it. */
const postgresConnections = 2;

serveOrder(build);

async function build(message: unknown, { signal, report }: ChildWork): Promise<BuildReport> {
  const order = buildOrderSchema.parse(message);
  const { request } = order;
  const log = createLogger({ service: "indexer-build", level: order.logLevel, sync: true }).child({
    task_id: request.task_id,
    list_id: request.list_id,
    attempt: request.attempt,
  });
  const db = openFacesDb({
    connectionString: order.databaseUrl,
    maxConnections: postgresConnections,
    applicationName: "lim-indexer-build",
  });
  const result = await runBuild({
    request,
    work: order.work,
    db,
    storage: await openIndexStorage({ root: order.storageRoot }),
    engine: await loadEngine(request.engine),
    memoryLimitBytes: order.memoryLimitBytes,
    snapshotBytesPerS: order.snapshotBytesPerS,
    report,
    nowMs: () => performance.now(),
    log,
    signal,
  });
  return "saved" in result ? { type: "saved", saved: result.saved } : publishedReport(result.published);
}
