import { isLimError, LimError, removalPolicySchema, uuidSchema } from "@lim/contracts";
import type { Log, TaskStore } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, PublishedIndex } from "@lim/index-storage";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { mapBounded } from "../concurrency.ts";
import { managerLimits } from "../limits.ts";
import { chooseByPolicy, type RemovalPolicy } from "./index-policy.ts";
import { indexTags, listedOf, summary } from "./indexes.ts";
import { flagQuery } from "./paging.ts";
import { indexParams, json, removedIndexes } from "./schemas.ts";

export interface IndexRemovalDeps {
  store: TaskStore;
  db: FacesDb;
  storage: IndexStorage;
}

/** Labels whose indexes are removed at the same time: each removal waits for its own fsync. */
const parallelLabels = 4;

/** Those of the labels whose open task may be building from one of their indexes. */
async function busyOf(
  store: TaskStore,
  labels: readonly string[],
  signal: AbortSignal,
): Promise<Set<string>> {
  const open = [...(await store.openTasks(labels, { signal }))];
  const harmless = new Set<string>();
  for (let i = 0; i < open.length; i += managerLimits.maxTasksPerAnswer) {
    const taskIds = open.slice(i, i + managerLimits.maxTasksPerAnswer).map(([, taskId]) => taskId);
    const { tasks } = await store.find({ taskIds }, { limit: managerLimits.maxTasksPerAnswer, signal });
    for (const task of tasks) if (task.mode === "rebuild") harmless.add(task.task_id);
  }
  // A task whose record is not there any more counts as busy: another may have taken its place.
  return new Set(open.filter(([, taskId]) => !harmless.has(taskId)).map(([label]) => label));
}

/** Removes by label. Open tasks are looked for again right before each: one may have come since the choice. */
async function removeChosen(
  { store, storage }: IndexRemovalDeps,
  chosen: readonly PublishedIndex[],
  { signal, log }: { signal: AbortSignal; log: Log },
): Promise<{ removed: PublishedIndex[]; busy: string[] }> {
  const byLabel = [...Map.groupBy(chosen, ({ label }) => label)];
  const busy: string[] = [];
  const removed = await mapBounded(byLabel, parallelLabels, async ([label, indexes]) => {
    if ((await busyOf(store, [label], signal)).size > 0) {
      busy.push(label);
      return [];
    }
    const gone: PublishedIndex[] = [];
    // The oldest first: whatever cuts this short leaves the newer ones.
    for (const index of indexes.toReversed())
      if ((await storage.remove({ indexId: index.indexId, signal })).removed) {
        log.info({ index_id: index.indexId, label }, "index removed by policy");
        gone.push(index);
      }
    return gone.toReversed();
  });
  return { removed: removed.flat(), busy };
}

/** Reads in an order that makes a change in between harmless: storage, then lists, then open tasks. */
async function removeByPolicy(
  deps: IndexRemovalDeps,
  query: { policy: RemovalPolicy; label?: string | undefined; dry_run: boolean },
  { signal, log }: { signal: AbortSignal; log: Log },
): Promise<z.infer<typeof removedIndexes>> {
  const { policy, label, dry_run } = query;
  const indexes = await listedOf(deps.storage, label, signal);
  const labels = [...new Set(indexes.map((index) => index.label))];
  const needsLists = policy === "outdated" && labels.length > 0;
  const lists = needsLists ? await deps.db.listStates({ listIds: labels, signal }) : [];
  const busyLabels = await busyOf(deps.store, labels, signal);
  const chosen = chooseByPolicy({
    policy,
    indexes,
    lists: new Map(lists.map((list) => [list.listId, list])),
    busyLabels,
  });
  const { removed, busy } = dry_run
    ? { removed: chosen, busy: [] }
    : await removeChosen(deps, chosen, { signal, log });
  return {
    count: removed.length,
    policy,
    dry_run,
    indexes: removed.map(summary),
    busy_labels: [...busyLabels, ...busy].toSorted(),
  };
}

/** Removal of indexes, one or by policy. */
export const indexRemovalRoutes =
  (deps: IndexRemovalDeps): FastifyPluginAsyncZod =>
  async (app) => {
    app.delete(
      "/indexes",
      {
        schema: {
          operationId: "removeIndexes",
          description:
            "Removes indexes by policy. `outdated`: those with a newer one of the same list and descriptor version; the newest always stays. `all`: all of them. Lists with an open task in mode update are left alone and named in `busy_labels`. Matchers that hold a removed index unload it.",
          tags: indexTags,
          querystring: z.strictObject({
            policy: removalPolicySchema.default("outdated").describe("Which indexes go"),
            label: uuidSchema.optional().describe("Only indexes of this list"),
            dry_run: flagQuery.describe("true: only say what would be removed"),
          }),
          response: {
            200: json("The removed indexes", removedIndexes),
            ...errorResponses(
              "bad_input",
              "postgres_unavailable",
              "redis_unavailable",
              "storage_unavailable",
            ),
          },
        },
      },
      (request) => removeByPolicy(deps, request.query, { signal: request.signal, log: request.log }),
    );

    app.delete(
      "/indexes/:index_id",
      {
        schema: {
          operationId: "removeIndex",
          description: "Removes an index. Matchers that hold it unload it; its id is never published again.",
          tags: indexTags,
          params: indexParams,
          response: {
            204: z.undefined().describe("Removed"),
            ...errorResponses("bad_input", "not_found", "storage_unavailable"),
          },
        },
      },
      async (request, reply) => {
        const { index_id: indexId } = request.params;
        // Asked first: removing leaves a mark, and an id that is being built is cancelled through its task.
        const found = await deps.storage.find({ indexId }).catch((thrown) => {
          if (isLimError(thrown, "index_refused")) return "unreadable";
          throw thrown;
        });
        if (!found || !(await deps.storage.remove({ indexId })).removed)
          throw new LimError("not_found", `no index ${indexId}`);
        request.log.info({ index_id: indexId }, "index removed");
        return reply.code(204).send(undefined);
      },
    );
  };
