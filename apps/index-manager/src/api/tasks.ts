import { LimError } from "@lim/contracts";
import type { TaskPage, TaskStore } from "@lim/coordination";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage } from "@lim/index-storage";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { managerLimits } from "../limits.ts";
import { cursorQuery, limitQuery } from "./paging.ts";
import { json, queue, task, taskParams, tasks } from "./schemas.ts";
import { filterOf, filterShape } from "./task-filters.ts";

export interface TaskApiDeps {
  store: TaskStore;
  db: FacesDb;
  storage: IndexStorage;
}

export const taskTags = ["tasks"];

const pageShape = {
  limit: limitQuery({ most: managerLimits.maxTasksPerAnswer, byDefault: 100, what: "tasks in one answer" }),
  cursor: cursorQuery,
};

/** Options of a page: `cursor` is left out, not undefined, on the first one. */
const pageOptions = (query: { limit: number; cursor?: string | undefined }, signal: AbortSignal) => ({
  limit: query.limit,
  signal,
  ...(query.cursor === undefined ? {} : { cursor: query.cursor }),
});

const answer = ({ tasks: found, nextCursor }: TaskPage) => ({
  count: found.length,
  tasks: found,
  next_cursor: nextCursor ?? null,
});

/** Reads of tasks and of the queue. Any manager serves them, master or not. */
export const taskRoutes =
  ({ store }: Pick<TaskApiDeps, "store">): FastifyPluginAsyncZod =>
  async (app) => {
    app.get(
      "/tasks",
      {
        schema: {
          operationId: "getTasks",
          description:
            "Tasks, newest first. Filters narrow each other down; a task without a start or an end is in no range of it.",
          tags: taskTags,
          querystring: z.strictObject({ ...filterShape, ...pageShape }),
          response: { 200: json("Tasks", tasks), ...errorResponses("bad_input", "redis_unavailable") },
        },
      },
      async (request) =>
        answer(await store.find(filterOf(request.query), pageOptions(request.query, request.signal))),
    );

    app.get(
      "/tasks/:task_id",
      {
        schema: {
          operationId: "getTask",
          description: "One task, with the progress of its build.",
          tags: taskTags,
          params: taskParams,
          response: {
            200: json("The task", task),
            ...errorResponses("bad_input", "not_found", "redis_unavailable"),
          },
        },
      },
      async (request) => {
        const found = await store.get(request.params.task_id, { signal: request.signal });
        if (!found) throw new LimError("not_found", `no task ${request.params.task_id}`);
        return found;
      },
    );

    app.get(
      "/queue",
      {
        schema: {
          operationId: "getQueue",
          description:
            "Pending tasks in the order of their dispatch, those that pause before another attempt included; `count` is that of the whole queue.",
          tags: taskTags,
          querystring: z.strictObject(pageShape),
          response: { 200: json("Queue", queue), ...errorResponses("bad_input", "redis_unavailable") },
        },
      },
      async (request) => {
        const page = await store.queue(pageOptions(request.query, request.signal));
        return { ...answer(page), count: page.count };
      },
    );
  };
