import { randomUUID } from "node:crypto";
import { createTaskBodySchema, LimError, type TaskStatus } from "@lim/contracts";
import type { TaskFilter, TaskStore } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage } from "@lim/index-storage";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { json, parts, queueQuery, task, taskParams, taskQuery, tasks } from "./schemas.ts";

export interface TaskApiDeps {
  store: TaskStore;
  db: FacesDb;
  storage: IndexStorage;
}

const tags = ["tasks"];

/** One-time tasks, reads, removal. Any manager serves them, master or not. */
export const taskRoutes =
  (deps: TaskApiDeps): FastifyPluginAsyncZod =>
  async (app) => {
    app.post(
      "/tasks",
      {
        schema: {
          operationId: "createTask",
          description:
            "Creates a one-time task: the list is indexed as soon as an indexer is free. A list has at most one open task; the conflict names it.",
          tags,
          body: createTaskBodySchema.meta({
            id: "CreateTask",
            example: { list_id: "0b9a2c1e-5a55-4c0e-8f5a-6d1f2b3c4d5e", mode: "rebuild" },
          }),
          response: {
            201: json("The task, pending", task),
            ...errorResponses(
              "bad_input",
              "list_not_found",
              "task_conflict",
              "payload_too_large",
              "unsupported_media_type",
              "postgres_unavailable",
              "redis_unavailable",
            ),
          },
        },
      },
      async (request, reply) => {
        const { list_id: listId, mode } = request.body;
        const [list] = await deps.db.listStates({ listIds: [listId] });
        if (!list) throw new LimError("list_not_found", `no list ${listId}`);
        const taskId = randomUUID();
        const result = await deps.store.create({ taskId, listId, mode, trigger: "request" });
        // A connection that broke before the answer came makes the client ask twice: the first time it was created.
        const own =
          "conflict" in result && result.conflict === taskId ? await deps.store.get(taskId) : undefined;
        if (own) return reply.code(201).send(own);
        if ("conflict" in result)
          throw new LimError("task_conflict", `list ${listId} has the open task ${result.conflict}`);
        if ("refusal" in result) throw new LimError("fenced", result.refusal);
        request.log.info({ task_id: result.created.task_id, list_id: listId, mode }, "one-time task created");
        return reply.code(201).send(result.created);
      },
    );

    app.get(
      "/tasks",
      {
        schema: {
          operationId: "getTasks",
          description: "Tasks, newest first. Filters narrow each other down; `count` is that of the answer.",
          tags,
          querystring: taskQuery,
          response: { 200: json("Tasks", tasks), ...errorResponses("bad_input", "redis_unavailable") },
        },
      },
      async (request) => {
        const { limit, list_id, task_ids, statuses } = request.query;
        const filter: TaskFilter & { limit: number } = { limit };
        if (task_ids !== undefined) filter.taskIds = parts(task_ids) ?? [];
        if (statuses !== undefined) filter.statuses = statuses.split(",") as TaskStatus[];
        if (list_id !== undefined) filter.listId = list_id;
        const found = await deps.store.list(filter);
        return { count: found.length, tasks: found };
      },
    );

    app.get(
      "/tasks/:task_id",
      {
        schema: {
          operationId: "getTask",
          description: "One task, with the progress of its build.",
          tags,
          params: taskParams,
          response: {
            200: json("The task", task),
            ...errorResponses("bad_input", "not_found", "redis_unavailable"),
          },
        },
      },
      async (request) => {
        const found = await deps.store.get(request.params.task_id);
        if (!found) throw new LimError("not_found", `no task ${request.params.task_id}`);
        return found;
      },
    );

    app.delete(
      "/tasks/:task_id",
      {
        schema: {
          operationId: "removeTask",
          description:
            "Removes a task and answers with it as it was. One that is not over is cancelled: its index will never be published. The index of a finished one stays.",
          tags,
          params: taskParams,
          response: {
            200: json("The removed task", task),
            ...errorResponses("bad_input", "not_found", "redis_unavailable", "storage_unavailable"),
          },
        },
      },
      async (request) => {
        const taskId = request.params.task_id;
        const found = await deps.store.get(taskId);
        if (!found) throw new LimError("not_found", `no task ${taskId}`);
        // The mark first: from here on no attempt can publish, and a build without a record is stopped, not adopted.
        if (found.status === "pending" || found.status === "indexing")
          await deps.storage.markRemoved({ indexId: taskId });
        const [removed] = await deps.store.remove([taskId]);
        if (!removed) throw new LimError("not_found", `no task ${taskId}`);
        request.log.info({ task_id: taskId, status: removed.status }, "task removed");
        return removed;
      },
    );

    app.get(
      "/queue",
      {
        schema: {
          operationId: "getQueue",
          description: "Pending tasks in the order of their dispatch; `count` is that of the whole queue.",
          tags,
          querystring: queueQuery,
          response: { 200: json("Queue", tasks), ...errorResponses("bad_input", "redis_unavailable") },
        },
      },
      async (request) => deps.store.queue({ limit: request.query.limit }),
    );
  };
