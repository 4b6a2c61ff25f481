import { flushCompileCache } from "node:module";
import { type ErrorBody, engineNameSchema, LimError, limits } from "@lim/contracts";
import type { PublishedIndex } from "@lim/index-storage";
import { loadEngine } from "@lim/vector-index";
import type { BuildReport, PublishedReport } from "./ipc.ts";
import { createProgressMeter, type ProgressMeter } from "./progress.ts";

/** How long a build whose service died may take to clean up after itself. */
const orphanGraceMs = 3_000;

export interface ChildWork {
  /** Fires when the service cancels, or dies. */
  signal: AbortSignal;
  report: ProgressMeter["report"];
}

/**
 * Makes this process one of a build's: waits for its order, carries it out, tells its last word and ends. It ends without
 * an order too when its service dies or cancels. The engine that its argument names is loaded while it waits.
 */
export function serveOrder(carryOut: (order: unknown, work: ChildWork) => Promise<BuildReport>): void {
  const cancel = new AbortController();
  let begun = false;
  const stop = () => {
    cancel.abort();
    if (!begun) end();
  };
  // The service died: nobody would hear of this build.
  const endAsOrphan = () => {
    stop();
    setTimeout(end, orphanGraceMs);
  };
  // SIGTERM is the service's cancel. Ctrl-C in a terminal reaches this process as well as the service, which decides.
  process.on("SIGTERM", stop);
  process.on("SIGINT", () => undefined);
  process.on("disconnect", endAsOrphan);
  process.once("message", async (order) => {
    begun = true;
    const { report } = createProgressMeter({
      nowMs: () => performance.now(),
      emit: (progress) => tell({ type: "progress", progress }),
    });
    let last: BuildReport;
    try {
      last = await carryOut(order, { signal: cancel.signal, report });
    } catch (failure) {
      last = { type: "failed", error: errorBodyOf(failure) };
    }
    tell(last, end);
  });
  if (!process.connected) endAsOrphan();
  const engine = engineNameSchema.safeParse(process.argv[2]);
  // An order of another engine loads that one, and of this one tells why it does not load.
  if (engine.success)
    loadEngine(engine.data).then(
      () => flushCompileCache(),
      () => undefined,
    );
  else flushCompileCache();
}

/** At once: exit would wait for an engine's threads, and the service waits for it. Nothing is left to be written: logs are `sync`. */
function end(): void {
  process.kill(process.pid, "SIGKILL");
}

export function publishedReport({ meta, sizeBytes }: PublishedIndex): PublishedReport {
  const { count, revision, build } = meta;
  return { type: "published", count, revision, sizeBytes, skipped: build.skipped, phases: build.phases };
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
