import { LimError, type Task, taskSchema } from "@lim/contracts";
import type { Log, TaskStore } from "@lim/coordination";
import { errorResponses, type GaugeOf } from "@lim/service-kit";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { managerLimits } from "../limits.ts";
import { type EventStream, openEventStream } from "./event-stream.ts";
import { eventOf, goesOn, type TaskProgressEvent } from "./progress-order.ts";
import { progressStream, taskParams } from "./schemas.ts";
import { createTaskFollower } from "./task-follower.ts";
import { taskTags } from "./tasks.ts";

export interface ProgressApiDeps {
  store: Pick<TaskStore, "get">;
  logger: Log;
  progressStreams: Pick<GaugeOf<"lim_manager_progress_streams">, "inc" | "dec">;
  /** Fires when the service shuts down: streams end. */
  stopping: AbortSignal;
}

/** Hands a stream what is new of its task. Returns a function of each read that says whether the stream goes on. */
function relayTo(stream: EventStream, taskId: string): (task: Task | undefined) => boolean {
  let last: TaskProgressEvent | undefined;
  return (task) => {
    if (!task) {
      stream.end("removed", { task_id: taskId });
      return false;
    }
    if (task.status === "success" || task.status === "error") {
      stream.end("end", taskSchema.parse(task));
      return false;
    }
    const next = eventOf(task);
    // What a slow client did not get is not remembered as sent: the next read brings it what is newest then.
    if (goesOn(last, next) && stream.offer("progress", next)) last = next;
    return true;
  };
}

/** Progress of a task as server-sent events. */
export const progressRoutes =
  ({ store, logger, progressStreams, stopping }: ProgressApiDeps): FastifyPluginAsyncZod =>
  async (app) => {
    const follower = createTaskFollower({ store, log: logger, pollMs: managerLimits.progressPollMs });
    const streams = new Set<EventStream>();
    let isStopping = stopping.aborted;
    const cutAll = () => {
      isStopping = true;
      for (const stream of streams) stream.cut();
    };
    stopping.addEventListener("abort", cutAll, { once: true });
    app.addHook("preClose", async () => {
      stopping.removeEventListener("abort", cutAll);
      cutAll();
    });

    app.get(
      "/tasks/:task_id/progress",
      {
        schema: {
          operationId: "followTask",
          description:
            "Follows a task by server-sent events. `progress`: whenever something changed, never back within an attempt. `end`: the task as it ended; then the stream closes, and the client should too, lest it connects again. `removed`: the task's record is gone; closes too. A stream that closes without either was cut by a shutdown: connect again.",
          tags: taskTags,
          params: taskParams,
          response: {
            200: {
              description: "Events until the task is over or removed",
              content: { "text/event-stream": { schema: progressStream } },
            },
            ...errorResponses("bad_input", "not_found", "overloaded", "redis_unavailable"),
          },
        },
      },
      async (request, reply) => {
        const taskId = request.params.task_id;
        const task = await store.get(taskId, { signal: request.signal });
        if (!task) throw new LimError("not_found", `no task ${taskId}`);
        if (request.method === "HEAD") return reply.type("text/event-stream; charset=utf-8").send("");
        if (isStopping) throw new LimError("overloaded", "the service is shutting down");
        const most = managerLimits.maxProgressStreams;
        if (streams.size >= most)
          throw new LimError("overloaded", `${most} clients follow tasks already; read the task instead`);
        reply.hijack();
        const stream = openEventStream(reply.raw, reply.getHeaders(), {
          heartbeatMs: managerLimits.progressHeartbeatMs,
        });
        streams.add(stream);
        progressStreams.inc();
        let unfollow = () => {};
        const over = () => {
          unfollow();
          if (streams.delete(stream)) progressStreams.dec();
        };
        const relay = relayTo(stream, taskId);
        if (relay(task))
          unfollow = follower.follow(taskId, (read) => {
            if (!relay(read)) unfollow();
          });
        if (reply.raw.destroyed) over();
        else reply.raw.once("close", over);
        return reply;
      },
    );
  };
