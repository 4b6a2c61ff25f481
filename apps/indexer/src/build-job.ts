import { type BuildRequest, isLimError, LimError } from "@lim/contracts";
import type { PublishedIndex, SavedIndex, StagedContent } from "@lim/index-storage";
import { type BuildContext, type BuiltIndex, emptyList } from "./build-context.ts";
import { withStaging } from "./publish-job.ts";
import { rebuildFromSnapshot } from "./rebuild.ts";
import { updateFromFeed } from "./update.ts";

/**
 * Carries out one build request up to its saved index, which another process is to verify and publish; or returns what
 * an earlier attempt published. Everything staged is discarded when it throws: list_not_found, empty_list,
 * out_of_memory, disk_full, index_id_conflict, build_cancelled, engine_failed, storage_unavailable,
 * postgres_unavailable, aborted.
 */
export async function runBuild(
  context: BuildContext,
): Promise<{ saved: SavedIndex } | { published: PublishedIndex }> {
  const { request, storage, signal, log } = context;
  const earlier = await findEarlierAttempt(context);
  if (earlier) return { published: earlier };
  const staging = await storage.stage({
    label: request.list_id,
    indexId: request.task_id,
    attempt: request.attempt,
    ...(context.work === undefined ? {} : { work: context.work }),
    signal,
  });
  return withStaging(staging, log, async () => {
    const built = await buildIndex(context, staging.vectorsPath);
    try {
      if (built.keyed.count === 0) throw emptyList(request);
      await checkListStands(context);
      const saved = await staging.save(built.keyed, stagedContent(request, built), {
        signal,
        phases: built.phases,
        onPhase: context.report,
      });
      return { saved };
    } finally {
      await built.keyed.close();
    }
  });
}

async function buildIndex(context: BuildContext, vectorsPath: string): Promise<BuiltIndex> {
  if (context.request.mode === "update") {
    const update = await updateFromFeed(context);
    if ("built" in update) return update.built;
    context.log.info({ reason: update.rebuildBecause }, "cannot update, rebuilding instead");
  }
  return rebuildFromSnapshot(context, vectorsPath);
}

function stagedContent(request: BuildRequest, built: BuiltIndex): StagedContent {
  return {
    label: request.list_id,
    descriptorVersion: request.descriptor_version,
    engine: request.engine,
    params: { m: request.params.m, efConstruction: request.params.ef_construction },
    ...built.content,
  };
}

/**
 * An earlier attempt of this very task may have published and died before it could say so. A whole index of this
 * list under the task's id is the task's success; anything else under that id is a conflict.
 */
async function findEarlierAttempt(context: BuildContext): Promise<PublishedIndex | undefined> {
  const { request, storage, signal, log } = context;
  const indexId = request.task_id;
  if (await storage.isMarkedRemoved({ indexId, signal }))
    throw new LimError("build_cancelled", `index ${indexId} was removed before it was built`);
  try {
    const found = await storage.find({ indexId, signal });
    if (!found) return undefined;
    if (found.label !== request.list_id || found.meta.descriptor_version !== request.descriptor_version)
      throw new LimError(
        "index_id_conflict",
        `index ${indexId} exists for label ${found.label}, descriptor version ${found.meta.descriptor_version}`,
      );
    await storage.verify({ label: found.label, indexId, signal });
    log.info({ index_id: indexId }, "an earlier attempt has published this index already");
    return found;
  } catch (error) {
    if (isLimError(error, "not_found")) return undefined;
    if (isLimError(error, "index_refused"))
      throw new LimError("index_id_conflict", `index ${indexId} exists and is not usable: ${error.detail}`, {
        cause: error,
      });
    throw error;
  }
}

/** An index of a list that was deleted meanwhile would only be garbage. Needs Postgres, but no build fails for its absence here. */
async function checkListStands(context: BuildContext): Promise<void> {
  const { db, request, signal, log } = context;
  try {
    const states = await db.listStates({ listIds: [request.list_id], signal });
    if (states.length > 0) return;
  } catch (error) {
    if (!isLimError(error, "postgres_unavailable")) throw error;
    log.warn({ err: error }, "Postgres is away: not checked whether the list still exists");
    return;
  }
  throw new LimError("list_not_found", `list ${request.list_id} was deleted while it was built`);
}
