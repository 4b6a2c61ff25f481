import { setTimeout as pause } from "node:timers/promises";
import type { IndexStorage } from "@lim/index-storage";
import type { JobLog } from "./build-context.ts";

const collectPeriodMs = 5 * 60_000;

/**
 * Indexers make most of the storage's garbage (staging of killed builds), so they collect it: at start and then on a
 * period, until the signal fires. Several at once, and beside builds, do no harm.
 */
export async function collectGarbage(options: {
  storage: IndexStorage;
  log: JobLog;
  signal: AbortSignal;
}): Promise<void> {
  const { storage, log, signal } = options;
  while (!signal.aborted) {
    try {
      const collected = await storage.collect({ signal });
      if (collected.staging.length + collected.trash.length + collected.marks.length > 0)
        log.info({ ...collected }, "collected what nobody needs in the index storage");
    } catch (error) {
      if (!signal.aborted) log.warn({ err: error }, "index storage was not collected, will try again");
    }
    await pause(collectPeriodMs, undefined, { signal }).catch(() => undefined);
  }
}
