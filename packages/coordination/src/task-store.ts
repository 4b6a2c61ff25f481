import { LimError, limits, type Progress, type Task } from "@lim/contracts";
import { commandClient } from "./connection.ts";
import { Keys, sha256 } from "./keys.ts";
import type { Log } from "./log.ts";
import { loadScript } from "./lua.ts";
import type {
  Cancellable,
  Created,
  KeyNames,
  RedisConnection,
  Refusal,
  TaskStore,
  Transition,
} from "./port.ts";
import { chunksOf, TaskQueries } from "./task-queries.ts";
import { errorText, microsecondsOf, recordOfPairs } from "./task-record.ts";

/** How long a build of a task that was removed while it was open is kept from being adopted. */
const removedMarkTtlMs = 24 * 3_600_000;

/** Replies `{'ok', …}` and `{'refused', reason}` of the transitions. */
function transition<T>(more: (rest: readonly string[]) => T): (reply: unknown) => Transition<T> {
  return (reply) => {
    const [word, ...rest] = reply as string[];
    if (word === "ok") return { ok: true, ...more(rest) };
    return { ok: false, refusal: rest[0] as Refusal };
  };
}
const nothingMore = transition(() => ({}));

const guard = "task_guard";
const queuePlace = "task_queue_place";
const scripts = {
  create: loadScript("task_create", parseCreated, guard, queuePlace),
  dispatch: loadScript(
    "task_dispatch",
    transition(([attempt]) => ({ attempt: Number(attempt) })),
    guard,
  ),
  progress: loadScript("task_progress", nothingMore, guard),
  finish: loadScript("task_finish", nothingMore, guard),
  requeue: loadScript(
    "task_requeue",
    transition(([status]) => ({ status: status === "error" ? ("error" as const) : ("pending" as const) })),
    guard,
    queuePlace,
  ),
  adopt: loadScript("task_adopt", nothingMore, guard),
  remove: loadScript("task_remove", (reply) => reply as unknown[][], guard),
  noteMissingLists: loadScript(
    "missing_lists_note",
    transition((pairs) => ({ sinceMs: sinceOf(pairs) })),
  ),
  notePlan: loadScript("plan_note", nothingMore),
};

function parseCreated(reply: unknown): Created {
  const [word, ...rest] = reply as string[];
  if (word === "conflict") return { conflict: rest[0] ?? "" };
  if (word === "key_taken") return { keyTaken: rest[0] ?? "" };
  if (word === "refused") return { refusal: "stale_epoch" };
  const record = recordOfPairs(rest);
  if (!record) throw new LimError("internal", "task_create answered with a record that is no task");
  return word === "replayed" ? { replayed: record.task } : { created: record.task };
}

function sinceOf(pairs: readonly string[]): Map<string, number> {
  const since = new Map<string, number>();
  for (let i = 0; i + 1 < pairs.length; i += 2) since.set(pairs[i] ?? "", Number(pairs[i + 1]));
  return since;
}

export function createTaskStore(options: { redis: RedisConnection; keys: KeyNames; log?: Log }): TaskStore {
  return new RedisTaskStore(commandClient(options.redis), new Keys(options.keys), options.log);
}

/** The changes; what only reads is in TaskQueries. */
class RedisTaskStore extends TaskQueries implements TaskStore {
  create(...[task, options]: Parameters<TaskStore["create"]>): Promise<Created> {
    const { epoch, tasks, queue, facts, taskPrefix } = this.keys;
    const { taskId, listId, idempotency } = task;
    return this.run(
      scripts.create,
      [
        epoch,
        this.keys.task(taskId),
        tasks,
        queue,
        this.keys.labelTask(listId),
        this.keys.tasksOf(listId),
        facts,
        ...(idempotency ? [this.keys.idempotency(idempotency.key)] : []),
      ],
      [
        task.epoch ?? "",
        taskId,
        listId,
        task.mode,
        task.trigger,
        task.priority ?? "default",
        taskPrefix,
        idempotency ? sha256(idempotency.fingerprint) : "",
        limits.idempotencyKeyTtlMs,
      ],
      options,
    );
  }

  dispatch(...[input, options]: Parameters<TaskStore["dispatch"]>): Promise<Transition<{ attempt: number }>> {
    const { epoch, queue, indexing, tasks, facts } = this.keys;
    return this.run(
      scripts.dispatch,
      [epoch, this.keys.task(input.taskId), queue, indexing, tasks, facts],
      [input.epoch, input.taskId, input.indexer],
      options,
    );
  }

  progress(
    input: { taskId: string; attempt: number; epoch: number; progress: Progress },
    options?: Cancellable,
  ): Promise<Transition> {
    return this.run(
      scripts.progress,
      [this.keys.epoch, this.keys.task(input.taskId)],
      [input.epoch, input.attempt, JSON.stringify(input.progress)],
      options,
    );
  }

  async finish(...[input, options]: Parameters<TaskStore["finish"]>): Promise<Transition> {
    const { epoch, indexing, ended, tasks, facts, labelTaskPrefix } = this.keys;
    return this.run(
      scripts.finish,
      [epoch, this.keys.task(input.taskId), indexing, ended, tasks, facts],
      [
        input.epoch,
        input.attempt,
        input.taskId,
        microsecondsOf(input.endTime),
        input.error ? errorText(input.error) : "",
        labelTaskPrefix,
        input.skipped ? JSON.stringify(input.skipped) : "",
      ],
      options,
    );
  }

  requeue(
    ...[input, options]: Parameters<TaskStore["requeue"]>
  ): Promise<Transition<{ status: "pending" | "error" }>> {
    const { epoch, queue, indexing, ended, tasks, facts, labelTaskPrefix } = this.keys;
    const { reason } = input;
    const exhausted = new LimError(
      "attempts_exhausted",
      `attempt ${input.attempt} of ${input.maxAttempts}: ${reason.error_code} ${reason.desc}: ${reason.detail}`,
    );
    return this.run(
      scripts.requeue,
      [epoch, this.keys.task(input.taskId), queue, indexing, ended, tasks, facts],
      [
        input.epoch,
        input.attempt,
        input.taskId,
        input.maxAttempts,
        errorText(exhausted.toBody()),
        labelTaskPrefix,
        Math.round(input.delayMs),
      ],
      options,
    );
  }

  async adopt(...[input, options]: Parameters<TaskStore["adopt"]>): Promise<Transition> {
    const { epoch, tasks, indexing, facts, taskPrefix } = this.keys;
    const { taskId, listId } = input;
    return this.run(
      scripts.adopt,
      [
        epoch,
        this.keys.task(taskId),
        tasks,
        indexing,
        this.keys.labelTask(listId),
        this.keys.removed(taskId),
        this.keys.tasksOf(listId),
        facts,
      ],
      [
        input.epoch,
        taskId,
        listId,
        input.mode,
        input.attempt,
        input.indexer,
        microsecondsOf(input.startTime),
        taskPrefix,
      ],
      options,
    );
  }

  async remove(taskIds: readonly string[], options?: Cancellable): Promise<Task[]> {
    const { tasks, queue, indexing, ended, facts } = this.keys;
    const { taskPrefix, labelTaskPrefix, removedPrefix, tasksOfPrefix } = this.keys;
    const removed: Task[] = [];
    for (const chunk of chunksOf([...new Set(taskIds)])) {
      const found = await this.run(
        scripts.remove,
        [tasks, queue, indexing, ended, facts],
        [taskPrefix, labelTaskPrefix, removedPrefix, tasksOfPrefix, removedMarkTtlMs, ...chunk],
        options,
      );
      for (const pairs of found) {
        const record = recordOfPairs(pairs);
        if (record) removed.push(record.task);
      }
    }
    return removed;
  }

  noteMissingLists(
    input: { labels: readonly string[]; epoch: number },
    options?: Cancellable,
  ): Promise<Transition<{ sinceMs: Map<string, number> }>> {
    const { epoch, missingLists } = this.keys;
    return this.run(
      scripts.noteMissingLists,
      [epoch, missingLists],
      [input.epoch, ...new Set(input.labels)],
      options,
    );
  }

  setLastPlanMs(input: { lastPlanMs: number; epoch: number }, options?: Cancellable): Promise<Transition> {
    const { epoch, lastPlan } = this.keys;
    return this.run(scripts.notePlan, [epoch, lastPlan], [input.epoch, input.lastPlanMs], options);
  }
}
