import { LimError } from "@lim/contracts";
import type { Log } from "@lim/coordination";
import type { IndexStorage, PublishedIndex } from "@lim/index-storage";
import type { IndexHolder } from "./index-holder.ts";
import type { LabelSlot } from "./label-slot.ts";
import { type LoaderDeps, loadIndex } from "./loader.ts";
import { estimateLoadBytes } from "./memory-budget.ts";
import type { MatcherMetrics } from "./metrics.ts";
import type { Publisher } from "./publisher.ts";

export interface DropDeps extends Omit<LoaderDeps, "source"> {
  source: Pick<IndexStorage, "open" | "verify">;
  storage: Pick<IndexStorage, "find">;
  publisher: Pick<Publisher, "withdraw" | "serve">;
  /** Whether another matcher's live key says that it serves the label. */
  isServedElsewhere: (label: string, signal: AbortSignal) => Promise<boolean>;
  /** Resolves when the label's requests that wait here have their answers. */
  settled: (label: string) => Promise<void>;
  metrics: Pick<MatcherMetrics, "dropped">;
  log: Log;
}

/**
 * Replaces a label's index where memory does not hold two: while another matcher answers, the one served is dropped
 * before the new one, which was verified first, is loaded. Nothing is dropped unless the new one will then fit. Where
 * loading fails all the same, the one before is loaded again. `whileServed` ends what comes before the drop, `signal`
 * everything.
 */
export async function dropThenLoad(
  deps: DropDeps,
  slot: LabelSlot,
  index: PublishedIndex,
  signals: { whileServed: AbortSignal; signal: AbortSignal },
): Promise<IndexHolder> {
  const { label, indexId } = index;
  const { whileServed, signal } = signals;
  const old = slot.current;
  if (!old) throw new LimError("internal", `label ${label} has nothing to drop`);
  const engine = await deps.loadAdapter(index.meta.engine.name);
  const oldEngine = await deps.loadAdapter(old.meta.engine.name);
  deps.budget.assertFits(
    estimateLoadBytes(engine, index.meta),
    estimateLoadBytes(oldEngine, old.meta, old.keyed.index.slots),
  );
  await deps.source.verify({ label, indexId, signal: whileServed });
  const before = await deps.storage.find({ label, indexId: old.meta.index_id, signal: whileServed });
  if (!(await deps.isServedElsewhere(label, whileServed)))
    throw new LimError(
      "memory_limit",
      `index ${indexId} does not fit beside ${old.meta.index_id}, which is not dropped as no other matcher serves the label`,
    );
  whileServed.throwIfAborted();
  await deps.publisher.withdraw(label);
  await deps.settled(label);
  const { revision, meta } = old;
  slot.clear();
  await old.closed;
  deps.metrics.dropped();
  deps.log.info({ label, from: meta.index_id, index_id: indexId }, "index dropped, there is no room for two");
  const load = async (one: PublishedIndex): Promise<IndexHolder> => {
    const holder = await loadIndex(deps, slot, one, signal, { isSeenToFit: true });
    if (holder.meta.history_id === meta.history_id && holder.revision < revision) {
      holder.retire();
      throw new LimError(
        "index_behind",
        `index ${one.indexId} stays behind revision ${revision} that was served`,
      );
    }
    slot.swap(holder);
    await deps.publisher.serve(label);
    return holder;
  };
  try {
    return await load(index);
  } catch (thrown) {
    if (before && !signal.aborted) await load(before);
    throw thrown;
  }
}
