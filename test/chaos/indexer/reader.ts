import { setTimeout as sleep } from "node:timers/promises";
import { isLimError } from "@lim/contracts";
import type { IndexStorage, PublishedIndex } from "@lim/index-storage";
import { type Findings, textOf } from "../findings.ts";
import type { RemovedTasks } from "./feeder.ts";

const listEveryMs = 30;

export interface StorageReader {
  /** Whether an index was ever visible. */
  hasSeen(indexId: string): boolean;
  /** Lists all the time and opens what is new, until the signal fires. */
  run(signal: AbortSignal): Promise<void>;
}

/** Plays a matcher: whatever it is shown must be whole, stay as it is, and be nobody's that was removed. */
export function createReader(deps: {
  storage: IndexStorage;
  removedTasks: RemovedTasks;
  findings: Findings;
}): StorageReader {
  const { storage, removedTasks, findings } = deps;
  /** Index → what identifies its content. */
  const contents = new Map<string, string>();
  const unopened: PublishedIndex[] = [];

  const look = async () => {
    const beginsMs = performance.now();
    const { indexes, refused } = await storage.list();
    findings.count("reader", "listings");
    for (const { label, indexId, reason } of refused)
      findings.violation(`a reader was shown a partial index ${label}/${indexId}: ${reason}`);
    const ids = new Set<string>();
    for (const index of indexes) {
      const { indexId, label, meta } = index;
      if (ids.has(indexId)) findings.violation(`two indexes of task ${indexId} are visible`);
      ids.add(indexId);
      const removedAtMs = removedTasks.get(indexId);
      if (removedAtMs !== undefined && removedAtMs < beginsMs)
        findings.violation(`the index of removed task ${indexId} is visible, list ${label}`);
      const content = JSON.stringify({ ...meta, label });
      const before = contents.get(indexId);
      if (before === undefined) {
        contents.set(indexId, content);
        unopened.push(index);
      } else if (before !== content)
        findings.violation(`index ${indexId} changed after it was published: ${before} became ${content}`);
    }
  };
  const openNext = async () => {
    const index = unopened.shift();
    if (!index) return false;
    const { label, indexId } = index;
    try {
      const meta = await storage.verify({ label, indexId });
      const { keyed } = await storage.open({ label, indexId });
      findings.count("reader", "verified and opened");
      if (keyed.count !== meta.count)
        findings.violation(`index ${indexId} holds ${keyed.count} faces, its meta says ${meta.count}`);
      await keyed.close();
    } catch (error) {
      if (!isLimError(error, "not_found"))
        findings.violation(`index ${indexId} of list ${label} was visible and not usable: ${textOf(error)}`);
      else findings.count("reader", "removed before it was opened");
    }
    return true;
  };
  const listing = async (signal: AbortSignal) => {
    while (!signal.aborted) {
      await look().catch((error: unknown) => findings.violation(`a listing failed: ${textOf(error)}`));
      await sleep(listEveryMs, undefined, { signal }).catch(() => {});
    }
  };
  return {
    hasSeen: (indexId) => contents.has(indexId),
    async run(signal) {
      const opening = async () => {
        while (!signal.aborted || unopened.length > 0)
          if (!(await openNext())) await sleep(listEveryMs, undefined, { signal }).catch(() => {});
      };
      await Promise.all([listing(signal), opening()]);
    },
  };
}
