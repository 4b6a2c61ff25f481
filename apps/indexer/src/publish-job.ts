import type { IndexStorage, PublishedIndex, SavedIndex, Staging } from "@lim/index-storage";
import type { BuildContext, JobLog } from "./build-context.ts";

/** The staging folder's heartbeat; it is collected after 15 minutes of silence. */
const heartbeatMs = 20_000;

/**
 * Verifies and publishes what the build process saved. Everything staged is discarded when it throws:
 * verification_failed, disk_full, index_id_conflict, build_cancelled, fenced, engine_failed, out_of_memory,
 * storage_unavailable, aborted.
 */
export async function runPublish(
  context: { saved: SavedIndex; storage: IndexStorage } & Pick<BuildContext, "report" | "log" | "signal">,
): Promise<PublishedIndex> {
  const { saved, storage, report, log, signal } = context;
  const staging = await storage.resume({ saved, signal });
  return withStaging(staging, log, () => staging.publishSaved(saved, { signal, onPhase: report }));
}

/** Keeps the staging's heartbeat beating meanwhile, and discards it when the work throws; `fenced` where it was lost. */
export async function withStaging<T>(staging: Staging, log: JobLog, work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => {
    staging.touch().catch((error) => log.warn({ err: error }, "heartbeat of the staging failed"));
  }, heartbeatMs);
  try {
    return await work();
  } catch (thrown) {
    const failure = (await staging.lossBehind(thrown)) ?? thrown;
    await staging
      .discard()
      .catch((error) => log.warn({ err: error }, "staging was not discarded, it will be collected"));
    throw failure;
  } finally {
    clearInterval(timer);
  }
}
