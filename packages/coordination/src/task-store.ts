import { LimError, type Progress, type Task } from "@lim/contracts";
import type { Redis } from "ioredis";
import { commandClient } from "./connection.ts";
import { guarded } from "./failures.ts";
import { Keys } from "./keys.ts";
import type { Log } from "./log.ts";
import { loadScript, runScript, type Script } from "./lua.ts";
import type {
  Cancellable,
  KeyNames,
  RedisConnection,
  Refusal,
  TaskFilter,
  TaskStore,
  Transition,
} from "./port.ts";
import { errorText, microsecondsOf, recordOf, recordOfPairs, type TaskRecord } from "./task-record.ts";

/** Records, ids or labels of one round trip. */
const chunkSize = 200;
/** Tasks that one listing returns at most, and without a `limit`. */
const maxListedTasks = 10_000;
/** Unreadable records remembered as told of. */
const maxNotedUnreadable = 1_000;
/** How long a build of a task that was removed while it ran is kept from being adopted. */
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

type Created = { created: Task } | { conflict: string } | { refusal: "stale_epoch" };

const guard = "task_guard";
const scripts = {
  create: loadScript("task_create", parseCreated, guard),
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
  ),
  adopt: loadScript("task_adopt", nothingMore, guard),
  remove: loadScript("task_remove", (reply) => reply as unknown[][], guard),
  forget: loadScript("task_forget", Number),
  openOfLabels: loadScript("task_open_of_labels", (reply) => reply as string[], guard),
  notePlan: loadScript("plan_note", nothingMore),
};

function parseCreated(reply: unknown): Created {
  const [word, ...rest] = reply as string[];
  if (word === "conflict") return { conflict: rest[0] ?? "" };
  if (word === "refused") return { refusal: "stale_epoch" };
  const record = recordOfPairs(rest);
  if (!record) throw new LimError("internal", "task_create stored a record that is no task");
  return { created: record.task };
}

export function createTaskStore(options: { redis: RedisConnection; keys: KeyNames; log?: Log }): TaskStore {
  return new RedisTaskStore(commandClient(options.redis), new Keys(options.keys), options.log);
}

class RedisTaskStore implements TaskStore {
  readonly #client: Redis;
  readonly #keys: Keys;
  readonly #log: Log | undefined;
  readonly #unreadable = new Set<string>();

  constructor(client: Redis, keys: Keys, log: Log | undefined) {
    this.#client = client;
    this.#keys = keys;
    this.#log = log;
  }

  create(...[task, options]: Parameters<TaskStore["create"]>): Promise<Created> {
    const { epoch, tasks, queue, taskPrefix } = this.#keys;
    return this.#run(
      scripts.create,
      [epoch, this.#keys.task(task.taskId), tasks, queue, this.#keys.labelTask(task.listId)],
      [task.epoch ?? "", task.taskId, task.listId, task.mode, task.trigger, taskPrefix],
      options,
    );
  }

  async get(taskId: string, options?: Cancellable): Promise<Task | undefined> {
    const { records } = await this.#read([taskId], options);
    return records[0]?.task;
  }

  async list(filter: TaskFilter & { limit?: number }, options?: Cancellable): Promise<Task[]> {
    const limit = Math.min(filter.limit ?? maxListedTasks, maxListedTasks);
    const found: TaskRecord[] = [];
    const pages = filter.taskIds ? chunksOf([...new Set(filter.taskIds)]) : this.#newestFirst(options);
    for await (const ids of pages) {
      const { records, vanished } = await this.#read(ids, options);
      for (const record of records) if (fits(record.task, filter)) found.push(record);
      if (!filter.taskIds) await this.#forget(vanished, options);
      // Ids that were asked for come in any order, so only the walk from the newest may stop early.
      if (!filter.taskIds && found.length >= limit) break;
    }
    return found
      .sort((a, b) => b.order - a.order)
      .slice(0, limit)
      .map((record) => record.task);
  }

  async queue(options?: Cancellable & { limit?: number }): Promise<{ count: number; tasks: Task[] }> {
    const limit = Math.min(options?.limit ?? maxListedTasks, maxListedTasks);
    const tasks: Task[] = [];
    let missing = 0;
    for (let start = 0; start < limit; start += chunkSize) {
      const stop = Math.min(start + chunkSize, limit) - 1;
      const ids = await guarded("read queue", options?.signal, () =>
        this.#client.zrange(this.#keys.queue, start, String(stop)),
      );
      const { records, vanished } = await this.#read(ids, options);
      missing += vanished.length;
      await this.#forget(vanished, options);
      // What was dispatched between the two reads is pending no more.
      for (const { task } of records) if (task.status === "pending") tasks.push(task);
      if (ids.length < stop - start + 1) return { count: tasks.length, tasks };
    }
    const count = await guarded("read queue", options?.signal, () => this.#client.zcard(this.#keys.queue));
    return { count: Math.max(count - missing, tasks.length), tasks };
  }

  async openTasks(labels: readonly string[], options?: Cancellable): Promise<Map<string, string>> {
    const open = new Map<string, string>();
    for (const chunk of chunksOf([...new Set(labels)])) {
      const keys = chunk.map((label) => this.#keys.labelTask(label));
      const ids = await this.#run(scripts.openOfLabels, keys, [this.#keys.taskPrefix], options);
      chunk.forEach((label, i) => {
        const id = ids[i];
        if (id) open.set(label, id);
      });
    }
    return open;
  }

  async indexing(options?: Cancellable): Promise<Task[]> {
    const ids = await guarded("read running tasks", options?.signal, () =>
      this.#client.smembers(this.#keys.indexing),
    );
    const running: TaskRecord[] = [];
    for (const chunk of chunksOf(ids)) {
      const { records, vanished } = await this.#read(chunk, options);
      for (const record of records) if (record.task.status === "indexing") running.push(record);
      await this.#forget(vanished, options);
    }
    return running.sort((a, b) => a.order - b.order).map((record) => record.task);
  }

  dispatch(...[input, options]: Parameters<TaskStore["dispatch"]>): Promise<Transition<{ attempt: number }>> {
    const { epoch, queue, indexing } = this.#keys;
    return this.#run(
      scripts.dispatch,
      [epoch, this.#keys.task(input.taskId), queue, indexing],
      [input.epoch, input.taskId, input.indexer],
      options,
    );
  }

  progress(
    input: { taskId: string; attempt: number; epoch: number; progress: Progress },
    options?: Cancellable,
  ): Promise<Transition> {
    return this.#run(
      scripts.progress,
      [this.#keys.epoch, this.#keys.task(input.taskId)],
      [input.epoch, input.attempt, JSON.stringify(input.progress)],
      options,
    );
  }

  async finish(...[input, options]: Parameters<TaskStore["finish"]>): Promise<Transition> {
    const { epoch, indexing, labelTaskPrefix } = this.#keys;
    return this.#run(
      scripts.finish,
      [epoch, this.#keys.task(input.taskId), indexing],
      [
        input.epoch,
        input.attempt,
        input.taskId,
        microsecondsOf(input.endTime),
        input.error ? errorText(input.error) : "",
        labelTaskPrefix,
      ],
      options,
    );
  }

  requeue(
    ...[input, options]: Parameters<TaskStore["requeue"]>
  ): Promise<Transition<{ status: "pending" | "error" }>> {
    const { epoch, queue, indexing, labelTaskPrefix } = this.#keys;
    const { reason } = input;
    const exhausted = new LimError(
      "attempts_exhausted",
      `attempt ${input.attempt} of ${input.maxAttempts}: ${reason.error_code} ${reason.desc}: ${reason.detail}`,
    );
    return this.#run(
      scripts.requeue,
      [epoch, this.#keys.task(input.taskId), queue, indexing],
      [
        input.epoch,
        input.attempt,
        input.taskId,
        input.maxAttempts,
        errorText(exhausted.toBody()),
        labelTaskPrefix,
      ],
      options,
    );
  }

  async adopt(...[input, options]: Parameters<TaskStore["adopt"]>): Promise<Transition> {
    const { epoch, tasks, indexing, taskPrefix } = this.#keys;
    const { taskId, listId } = input;
    return this.#run(
      scripts.adopt,
      [
        epoch,
        this.#keys.task(taskId),
        tasks,
        indexing,
        this.#keys.labelTask(listId),
        this.#keys.removed(taskId),
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
    const { tasks, queue, indexing, taskPrefix, labelTaskPrefix, removedPrefix } = this.#keys;
    const removed: Task[] = [];
    for (const chunk of chunksOf([...new Set(taskIds)])) {
      const found = await this.#run(
        scripts.remove,
        [tasks, queue, indexing],
        [taskPrefix, labelTaskPrefix, removedPrefix, removedMarkTtlMs, ...chunk],
        options,
      );
      for (const pairs of found) {
        const record = recordOfPairs(pairs);
        if (record) removed.push(record.task);
      }
    }
    return removed;
  }

  async lastPlanMs(options?: Cancellable): Promise<number | undefined> {
    const text = await guarded("read last plan", options?.signal, () =>
      this.#client.get(this.#keys.lastPlan),
    );
    const ms = text === null ? Number.NaN : Number(text);
    return Number.isFinite(ms) ? ms : undefined;
  }

  setLastPlanMs(input: { lastPlanMs: number; epoch: number }, options?: Cancellable): Promise<Transition> {
    const { epoch, lastPlan } = this.#keys;
    return this.#run(scripts.notePlan, [epoch, lastPlan], [input.epoch, input.lastPlanMs], options);
  }

  #run<Reply>(
    script: Script<Reply>,
    keys: readonly string[],
    args: readonly (string | number)[],
    options: Cancellable | undefined,
  ): Promise<Reply> {
    return runScript(this.#client, script, { keys, args }, options);
  }

  /** Pages by score, which no two ids share: what is created or removed meanwhile moves no page. */
  async *#newestFirst(options: Cancellable | undefined): AsyncGenerator<string[]> {
    let below = "+inf";
    for (;;) {
      const upTo = below;
      const page = await guarded("list tasks", options?.signal, () =>
        this.#client.zrange(
          this.#keys.tasks,
          upTo,
          "-inf",
          "BYSCORE",
          "REV",
          "LIMIT",
          0,
          chunkSize,
          "WITHSCORES",
        ),
      );
      const ids = page.filter((_, i) => i % 2 === 0);
      if (ids.length > 0) yield ids;
      if (ids.length < chunkSize) return;
      below = `(${page.at(-1)}`;
    }
  }

  /** The records of at most a chunk of ids, in their order, and the ids that have none. */
  async #read(
    ids: readonly string[],
    options: Cancellable | undefined,
  ): Promise<{ records: TaskRecord[]; vanished: string[] }> {
    const hashes = await guarded("read tasks", options?.signal, () =>
      Promise.all(ids.map((id) => this.#client.hgetall(this.#keys.task(id)))),
    );
    const records: TaskRecord[] = [];
    const vanished: string[] = [];
    hashes.forEach((hash, i) => {
      const record = recordOf(hash);
      const id = ids[i] ?? "";
      if (record) records.push(record);
      else if (Object.keys(hash).length === 0) vanished.push(id);
      else this.#noteUnreadable(id);
    });
    return { records, vanished };
  }

  /** Records are read every second, so each is told of once; past the limit it begins anew. */
  #noteUnreadable(id: string): void {
    if (this.#unreadable.has(id)) return;
    if (this.#unreadable.size >= maxNotedUnreadable) this.#unreadable.clear();
    this.#unreadable.add(id);
    this.#log?.warn(
      { task_id: id },
      "Task record is not readable, left out; its list gets no other task until it is removed",
    );
  }

  /** Drops ids that an index held and that have no record. */
  async #forget(ids: readonly string[], options: Cancellable | undefined): Promise<void> {
    if (ids.length === 0) return;
    const { tasks, queue, indexing, taskPrefix } = this.#keys;
    await this.#run(scripts.forget, [tasks, queue, indexing], [taskPrefix, ...ids], options);
  }
}

function fits(task: Task, filter: TaskFilter): boolean {
  if (filter.statuses && !filter.statuses.includes(task.status)) return false;
  return filter.listId === undefined || task.content.list_id === filter.listId;
}

function* chunksOf<T>(items: readonly T[]): Generator<T[]> {
  for (let start = 0; start < items.length; start += chunkSize) yield items.slice(start, start + chunkSize);
}
