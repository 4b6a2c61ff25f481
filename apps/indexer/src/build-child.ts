import { type ErrorBody, LimError, limits } from "@lim/contracts";
import { openFacesDb } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { createLogger } from "@lim/service-kit";
import { loadEngine } from "@lim/vector-index";
import { runBuild } from "./build-job.ts";
import { type BuildOrder, type BuildReport, buildOrderSchema } from "./ipc.ts";
import { createProgressMeter } from "./progress.ts";

/** The snapshot's transaction, and the packets or checks beside it. */
const postgresConnections = 2;
/** How long a build whose service died may take to clean up after itself. */
const orphanGraceMs = 3_000;

const cancel = new AbortController();

// SIGTERM is the service's cancel. Ctrl-C in a terminal reaches this process as well as the service, which decides.
process.on("SIGTERM", () => cancel.abort());
process.on("SIGINT", () => undefined);
process.on("disconnect", endAsOrphan);
process.once("message", (message) => void carryOut(message));
if (!process.connected) endAsOrphan();

/** The service died: nobody would hear of this build. SIGKILL, because an engine's thread in native code may hold up exit. */
function endAsOrphan(): void {
  cancel.abort();
  setTimeout(() => process.kill(process.pid, "SIGKILL"), orphanGraceMs);
}

async function carryOut(message: unknown): Promise<void> {
  let last: BuildReport;
  try {
    last = await build(buildOrderSchema.parse(message));
  } catch (failure) {
    last = { type: "failed", error: errorBodyOf(failure) };
  }
  tell(last, () => process.exit(last.type === "published" ? 0 : 1));
}

async function build(order: BuildOrder): Promise<BuildReport> {
  const { request } = order;
  const log = createLogger({ service: "indexer-build", level: order.logLevel }).child({
    task_id: request.task_id,
    list_id: request.list_id,
    attempt: request.attempt,
  });
  const meter = createProgressMeter({
    nowMs: () => performance.now(),
    emit: (progress) => tell({ type: "progress", progress }),
  });
  const db = openFacesDb({
    connectionString: order.databaseUrl,
    maxConnections: postgresConnections,
    applicationName: "lim-indexer-build",
  });
  const published = await runBuild({
    request,
    db,
    storage: await openIndexStorage({ root: order.storageRoot }),
    engine: await loadEngine(request.engine),
    memoryLimitBytes: order.memoryLimitBytes,
    report: meter.report,
    nowMs: () => performance.now(),
    log,
    signal: cancel.signal,
  });
  const { count, revision, build } = published.meta;
  log.info({ count, revision, mode: build.mode, skipped: build.skipped, phases: build.phases }, "published");
  return { type: "published", count, revision, sizeBytes: published.sizeBytes };
}

function tell(report: BuildReport, then?: () => void): void {
  if (process.connected && process.send) process.send(report, undefined, undefined, () => then?.());
  else then?.();
}

/** What engines and libraries throw for want of memory or space, under LIM's names. */
function errorBodyOf(failure: unknown): ErrorBody {
  const body = nameOf(failure).toBody();
  return { ...body, detail: body.detail.slice(0, limits.maxErrorDetailChars) };
}

function nameOf(failure: unknown): LimError {
  if (failure instanceof LimError) return failure;
  const code = failure instanceof Error && "code" in failure ? failure.code : undefined;
  if (code === "ENOSPC" || code === "EDQUOT") return LimError.from(failure, "disk_full");
  if (code === "ENOMEM" || (failure instanceof RangeError && /alloc|memory/i.test(failure.message)))
    return LimError.from(failure, "out_of_memory");
  return LimError.from(failure);
}
