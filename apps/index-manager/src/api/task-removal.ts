import { LimError, type Task } from "@lim/contracts";
import type { Log, TaskStore } from "@lim/coordination";
import type { IndexStorage } from "@lim/index-storage";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { mapBounded } from "../concurrency.ts";
import { managerLimits } from "../limits.ts";
import { flagQuery, limitQuery } from "./paging.ts";
import { json, removedTasks, task, taskParams } from "./schemas.ts";
import { type FilterQuery, filterOf, filterShape, hasFilter } from "./task-filters.ts";
import { type TaskApiDeps, taskTags } from "./tasks.ts";

/** Removal marks on their way to the disk at the same time: each waits for its own fsync. */
const parallelMarks = 16;

type RemovalDeps = Pick<TaskApiDeps, "store" | "storage">;

/**
 * Removes the records first: that one step decides whether a task was over, so the index of one that had just succeeded
 * stays. Those that were open are then marked: from the mark on no attempt can publish, and what had published in
 * between is withdrawn. Until then the record's own mark in Redis keeps their builds from being adopted, so they are
 * stopped whatever becomes of this process. Returns the tasks as they were.
 */
async function removeTasks(
  { store, storage }: { store: TaskStore; storage: IndexStorage },
  found: readonly Task[],
): Promise<Task[]> {
  const isOpen = ({ status }: Task) => status === "pending" || status === "indexing";
  const anOpenOne = found.find(isOpen);
  // Where the storage is away nothing is removed: the marks could not follow.
  if (anOpenOne) await storage.isMarkedRemoved({ indexId: anOpenOne.task_id });
  const removed = await store.remove(found.map(({ task_id }) => task_id));
  await mapBounded(removed.filter(isOpen), parallelMarks, ({ task_id }) =>
    storage.markRemoved({ indexId: task_id }),
  );
  return removed;
}

async function removeMatching(
  deps: RemovalDeps,
  query: FilterQuery & { limit: number; dry_run: boolean },
  { signal, log }: { signal: AbortSignal; log: Log },
): Promise<z.infer<typeof removedTasks>> {
  const { limit, dry_run } = query;
  const filter = filterOf(query);
  if (!hasFilter(query))
    throw new LimError("bad_input", "querystring: name at least one filter; no filter would mean every task");
  const { tasks, nextCursor } = await deps.store.find(filter, { limit, signal });
  const more = nextCursor !== undefined;
  if (dry_run) return { count: tasks.length, dry_run, tasks, more };
  // Not given up when the caller goes: the marks must follow the removal.
  const removed = await removeTasks(deps, tasks);
  if (removed.length > 0)
    log.info({ tasks: removed.length, task_ids: removed.map((task) => task.task_id) }, "tasks removed");
  return { count: removed.length, dry_run, tasks: removed, more };
}

/** Removal of tasks, one or by filters. */
export const taskRemovalRoutes =
  (deps: RemovalDeps): FastifyPluginAsyncZod =>
  async (app) => {
    app.delete(
      "/tasks",
      {
        schema: {
          operationId: "removeTasks",
          description:
            "Removes the newest tasks that match all filters; at least one filter is required. Open ones are cancelled: their indexes will never be published. Indexes of finished ones stay.",
          tags: taskTags,
          querystring: z.strictObject({
            ...filterShape,
            limit: limitQuery({
              most: managerLimits.maxTasksPerRemoval,
              byDefault: managerLimits.maxTasksPerRemoval,
              what: "tasks that one request removes",
            }),
            dry_run: flagQuery.describe("true: only say what would be removed"),
          }),
          response: {
            200: json("The removed tasks", removedTasks),
            ...errorResponses("bad_input", "redis_unavailable", "storage_unavailable"),
          },
        },
      },
      (request) => removeMatching(deps, request.query, { signal: request.signal, log: request.log }),
    );

    app.delete(
      "/tasks/:task_id",
      {
        schema: {
          operationId: "removeTask",
          description:
            "Removes a task and answers with it as it was. One that is not over is cancelled: its index will never be published. The index of a finished one stays.",
          tags: taskTags,
          params: taskParams,
          response: {
            200: json("The removed task", task),
            ...errorResponses("bad_input", "not_found", "redis_unavailable", "storage_unavailable"),
          },
        },
      },
      async (request) => {
        const taskId = request.params.task_id;
        const found = await deps.store.get(taskId, { signal: request.signal });
        const [removed] = found ? await removeTasks(deps, [found]) : [];
        if (!removed) throw new LimError("not_found", `no task ${taskId}`);
        request.log.info({ task_id: taskId, status: removed.status }, "task removed");
        return removed;
      },
    );
  };
