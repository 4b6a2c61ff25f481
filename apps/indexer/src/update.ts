import { tmpdir } from "node:os";
import { isLimError, LimError, type SkippedCounts } from "@lim/contracts";
import type { ChangePacket, ListState } from "@lim/faces-db";
import { newestOf, type OpenedIndex, type PublishedIndex } from "@lim/index-storage";
import type { BuildContext, BuiltIndex } from "./build-context.ts";
import { estimateNeed, preflight } from "./preflight.ts";

/** Faces of one packet here; matchers take ten at a time so as not to hold up searches, nobody searches here. */
const packetFaces = 500;

export type UpdateResult = { built: BuiltIndex } | { rebuildBecause: string };

/**
 * Opens the label's newest index and applies the feed since its revision. Says why where that is impossible (no or
 * unusable base, gap in the feed, other engine or parameters), so that the caller rebuilds within the same task.
 */
export async function updateFromFeed(context: BuildContext): Promise<UpdateResult> {
  const { request, db, storage, signal } = context;
  const startedMs = context.nowMs();
  const [state] = await db.listStates({ listIds: [request.list_id], signal });
  if (!state) throw new LimError("list_not_found", `list ${request.list_id} does not exist`);
  const base = newestOf(
    await storage.list({ label: request.list_id, signal }),
    request.list_id,
    request.descriptor_version,
    state,
  );
  if (!base) return { rebuildBecause: "the label has no index yet" };
  const unfit = reasonUnfit(context, base, state);
  if (unfit) return { rebuildBecause: unfit };
  // A face takes one new slot at most, however often it changed: packets carry its current state.
  const slots = base.meta.slots + Math.min(state.revision - base.meta.revision, state.faceCount);
  await preflight(estimateNeed(context.engine, request, slots, { inFile: true }), {
    faces: slots,
    dim: request.dim,
    memoryLimitBytes: context.memoryLimitBytes,
    storageRoot: storage.root,
    // Its verified copy, and the working file that takes its vectors from there.
    scratch: { folder: tmpdir(), bytes: base.sizeBytes + (base.meta.files["vectors.dat"]?.size ?? 0) },
  });
  context.report("snapshot", 0, base.meta.count);
  const opened = await openBase(context, base);
  if (typeof opened === "string") return { rebuildBecause: opened };
  context.report("snapshot", base.meta.count, base.meta.count);
  const snapshotMs = context.nowMs() - startedMs;
  try {
    const applied = await applyFeed(context, opened);
    if ("gap" in applied) {
      await opened.keyed.close();
      return { rebuildBecause: `the feed cannot be followed from the index: ${applied.gap}` };
    }
    return {
      built: {
        keyed: opened.keyed,
        phases: { snapshot: snapshotMs, build: context.nowMs() - startedMs - snapshotMs },
        content: {
          historyId: base.meta.history_id,
          revision: applied.revision,
          mode: "update",
          baseIndexId: base.indexId,
          removedSinceRebuild: base.meta.removed_since_rebuild + applied.removed,
          skipped: applied.skipped,
        },
      },
    };
  } catch (failure) {
    await opened.keyed.close();
    throw failure;
  }
}

function reasonUnfit(
  { request }: BuildContext,
  { meta }: PublishedIndex,
  state: ListState,
): string | undefined {
  if (meta.history_id !== state.historyId) return "the list has another history than its newest index";
  if (meta.revision > state.revision) return "the newest index is ahead of the list";
  if (meta.dim !== request.dim) return `the newest index has dim ${meta.dim}`;
  if (meta.engine.name !== request.engine) return `the newest index is of engine ${meta.engine.name}`;
  if (meta.params.m !== request.params.m || meta.params.ef_construction !== request.params.ef_construction)
    return "the newest index was built with other parameters";
  return undefined;
}

async function openBase(context: BuildContext, base: PublishedIndex): Promise<OpenedIndex | string> {
  try {
    const { label, indexId } = base;
    // Nobody searches here: full precision is read a few rows at a time, and need not be in memory.
    return await context.storage.open({ label, indexId, rerank: "file", signal: context.signal });
  } catch (error) {
    if (isLimError(error, "index_refused")) return `index ${base.indexId} was refused: ${error.detail}`;
    if (isLimError(error, "not_found")) return `index ${base.indexId} vanished while it was opened`;
    throw error;
  }
}

/**
 * Follows the feed up to the revision that is newest when it begins (a list under constant change would never end),
 * or a little past it, as packets fall.
 */
async function applyFeed(
  context: BuildContext,
  { meta, keyed }: OpenedIndex,
): Promise<
  | { revision: number; removed: number; skipped: SkippedCounts }
  | { gap: (ChangePacket & { kind: "gap" })["gap"] }
> {
  const { request, db, signal } = context;
  let revision = meta.revision;
  let targetRevision: number | undefined;
  let removed = 0;
  const skipped: SkippedCounts = { wrong_length: 0, not_finite: 0, zero_norm: 0 };
  while (targetRevision === undefined || revision < targetRevision) {
    signal.throwIfAborted();
    const packet = await db.readPacket({
      listId: request.list_id,
      historyId: meta.history_id,
      sinceRevision: revision,
      descriptorVersion: request.descriptor_version,
      dim: request.dim,
      maxFaces: packetFaces,
      signal,
    });
    if (packet.kind === "gap") {
      if (packet.gap === "list_deleted")
        throw new LimError("list_not_found", `list ${request.list_id} was deleted while it was updated`);
      return { gap: packet.gap };
    }
    if (packet.kind === "up_to_date") break;
    if (packet.toRevision <= revision)
      throw new LimError("internal", `the feed went from revision ${revision} to ${packet.toRevision}`);
    targetRevision ??= packet.headRevision;
    const counts = await keyed.apply(packet, { signal });
    removed += counts.removed + counts.replaced;
    for (const kind of Object.keys(skipped) as (keyof SkippedCounts)[]) skipped[kind] += packet.skipped[kind];
    revision = packet.toRevision;
    context.report("build", revision - meta.revision, targetRevision - meta.revision);
  }
  return { revision, removed, skipped };
}
