import { randomUUID } from "node:crypto";
import { type CreateTaskBody, LimError } from "@lim/contracts";
import type { Created } from "@lim/coordination";
import { errorResponses } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { managerLimits } from "../limits.ts";
import { clientGone } from "./client-gone.ts";
import { createTaskBody, json, task } from "./schemas.ts";
import { type TaskApiDeps, taskTags } from "./tasks.ts";

const idempotencyHeader = "idempotency-key";
const replayedHeader = "Idempotency-Replayed";

const headers = z.looseObject({
  [idempotencyHeader]: z
    .string()
    .regex(
      new RegExp(`^[\\x21-\\x7e]{1,${managerLimits.maxIdempotencyKeyChars}}$`),
      `must have 1 to ${managerLimits.maxIdempotencyKeyChars} visible ASCII characters`,
    )
    .optional()
    .describe(
      "Makes the request safe to repeat: within 24 hours the same key with the same body answers with the task that the first one created",
    ),
});

/** Equal for equal requests: values as they are after defaults, in one order. */
const fingerprintOf = ({ list_id, mode, priority }: CreateTaskBody) =>
  JSON.stringify([list_id, mode, priority]);

/** Creation of one-time tasks. */
export const taskCreationRoutes =
  ({ db, store }: Pick<TaskApiDeps, "db" | "store">): FastifyPluginAsyncZod =>
  async (app) => {
    app.post(
      "/tasks",
      {
        schema: {
          operationId: "createTask",
          description:
            "Creates a one-time task: the list is indexed as soon as an indexer is free, higher priorities first. A list has at most one open task; the conflict names it. With the header Idempotency-Key a repeated request creates nothing: it answers with the first one's task as it is now, and with the header Idempotency-Replayed.",
          tags: taskTags,
          headers,
          body: createTaskBody,
          response: {
            201: json("The task, pending; or as it is now, where the idempotency key was used before", task),
            ...errorResponses(
              "bad_input",
              "list_not_found",
              "task_conflict",
              "idempotency_conflict",
              "payload_too_large",
              "unsupported_media_type",
              "postgres_unavailable",
              "redis_unavailable",
            ),
          },
        },
      },
      async (request, reply) => {
        const { list_id: listId, mode, priority } = request.body;
        const key = request.headers[idempotencyHeader];
        const [list] = await db.listStates({ listIds: [listId], signal: clientGone(reply) });
        if (!list) throw new LimError("list_not_found", `no list ${listId}`);
        const taskId = randomUUID();
        const result = await store.create({
          taskId,
          listId,
          mode,
          priority,
          trigger: "request",
          ...(key === undefined ? {} : { idempotency: { key, fingerprint: fingerprintOf(request.body) } }),
        });
        const replayed = "replayed" in result && result.replayed.task_id !== taskId;
        const found = taskOf(result, taskId) ?? (await store.get(taskId));
        if (!found) throw new LimError("task_conflict", `task ${taskId} was removed at once`);
        request.log.info(
          { task_id: found.task_id, list_id: listId, mode, replayed },
          "one-time task created",
        );
        if (replayed) void reply.header(replayedHeader, "true");
        return reply.code(201).send(found);
      },
    );
  };

/**
 * The task that the request stands for; undefined where it was created by this request's own first try: a connection
 * that broke before the answer came makes the client ask Redis twice.
 */
function taskOf(result: Created, taskId: string) {
  if ("created" in result) return result.created;
  if ("replayed" in result) return result.replayed;
  if ("keyTaken" in result)
    throw new LimError(
      "idempotency_conflict",
      "the idempotency key was used for another request, or its task was removed",
    );
  if ("refusal" in result) throw new LimError("internal", `a one-time task was refused: ${result.refusal}`);
  if (result.conflict === taskId) return undefined;
  throw new LimError("task_conflict", `the list has the open task ${result.conflict}`);
}
