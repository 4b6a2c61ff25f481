import { randomUUID } from "node:crypto";
import type { BuildMode, EngineName } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, PublishedIndex } from "@lim/index-storage";
import { createKeyedIndex, loadEngine } from "@lim/vector-index";

export interface PublishOrder {
  label: string;
  indexId?: string;
  attempt?: number;
  engine: EngineName;
  params?: { m: number; efConstruction: number };
  descriptorVersion: number;
  dim: number;
  mode?: BuildMode;
  signal?: AbortSignal;
}

const smallParams = { m: 16, efConstruction: 100 };
const leastCapacity = 16;

/** Builds the list's index as it is now, in this process, and publishes it. */
export async function publishIndex(
  { storage, db }: { storage: IndexStorage; db: FacesDb },
  order: PublishOrder,
): Promise<PublishedIndex> {
  const { label, descriptorVersion, dim, signal, params = smallParams } = order;
  await using cleanUp = new AsyncDisposableStack();
  const snapshot = await db.openSnapshot({ listId: label, descriptorVersion, dim, signal });
  cleanUp.defer(() => snapshot.close());
  const engine = await loadEngine(order.engine);
  const capacity = Math.max(leastCapacity, snapshot.faceCount);
  const keyed = createKeyedIndex(await engine.create({ dim, capacity, params }));
  cleanUp.defer(() => keyed.close());
  const staging = await storage.stage({
    label,
    indexId: order.indexId ?? randomUUID(),
    attempt: order.attempt ?? 1,
  });
  cleanUp.defer(() => staging.discard());
  for await (const batch of snapshot.batches) await keyed.addNew(batch.faceIds, batch.vectors);
  const content = {
    label,
    historyId: snapshot.historyId,
    descriptorVersion,
    revision: snapshot.revision,
    engine: order.engine,
    params,
    mode: order.mode ?? "rebuild",
    removedSinceRebuild: 0,
    skipped: snapshot.skipped,
  };
  return await staging.publish(keyed, content, { phases: {}, signal });
}
