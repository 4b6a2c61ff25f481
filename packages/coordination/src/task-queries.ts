import type { Task } from "@lim/contracts";
import type { Redis } from "ioredis";
import { guarded } from "./failures.ts";
import type { Keys } from "./keys.ts";
import type { Log } from "./log.ts";
import { loadScript, runScript, type Script } from "./lua.ts";
import type { Cancellable, TaskFilter, TaskPage, TaskStore, TimeRange } from "./port.ts";
import { cursorOf, scoreOfCursor } from "./task-cursor.ts";
import { recordOf, recordOfPairs, type TaskRecord } from "./task-record.ts";

/** Records, ids or labels of one round trip. */
export const chunkSize = 200;
/** Tasks that one script compares with a filter: Redis serves nobody else meanwhile. */
const tasksPerWalk = 1_000;
/** Pending tasks that one search for those that may be dispatched looks at. */
const maxQueueSeen = 10_000;
/** Ids of one answer of `expired`. */
const maxExpiredIds = 1_000;
/** Unreadable records remembered as told of. */
const maxNotedUnreadable = 1_000;

const guard = "task_guard";
const scripts = {
  find: loadScript(
    "task_find",
    (reply) => {
      const [reached, vanished, found] = reply as [string, string[], string];
      return { reached, vanished, found: unpacked(found) };
    },
    guard,
    "task_filter",
  ),
  pick: loadScript("task_pick", (reply) => unpacked(String(reply)), guard, "task_filter"),
  queue: loadScript(
    "task_queue",
    (reply) => {
      const [count, nowUs, reached, seen, waiting, vanished, found] = reply as [
        number,
        string,
        string,
        number,
        number,
        string[],
        string,
      ];
      return { count, nowUs: Number(nowUs), reached, seen, waiting, vanished, found: unpacked(found) };
    },
    guard,
  ),
  expired: loadScript("task_expired", (reply) => {
    const [ended, expired, taskIds, unlisted] = reply as [number, number, string[], number];
    return { found: { ended, expired, taskIds }, unlisted };
  }),
  enlist: loadScript("task_enlist", Number, guard),
  forget: loadScript("task_forget", Number, guard),
  openOfLabels: loadScript("task_open_of_labels", (reply) => reply as string[], guard),
};

/** Fields and values of each record, as `packed` of task_guard.lua wrote them. */
function unpacked(text: string): string[][] {
  return JSON.parse(text) as string[][];
}

/** Whatever of the task store only reads, but for dropping ids whose record vanished. */
export class TaskQueries {
  protected readonly client: Redis;
  protected readonly keys: Keys;
  readonly #log: Log | undefined;
  readonly #unreadable = new Set<string>();

  constructor(client: Redis, keys: Keys, log: Log | undefined) {
    this.client = client;
    this.keys = keys;
    this.#log = log;
  }

  async get(taskId: string, options?: Cancellable): Promise<Task | undefined> {
    const { records } = await this.#read([taskId], options);
    return records[0]?.task;
  }

  async find(...[filter, options]: Parameters<TaskStore["find"]>): Promise<TaskPage> {
    const below = options.cursor === undefined ? undefined : scoreOfCursor("task", options.cursor);
    if (filter.statuses?.length === 0) return { tasks: [], nextCursor: undefined };
    // One more than is asked for tells whether there is another page.
    const wanted = options.limit + 1;
    const ids = await this.#fewIds(filter, options);
    const found = ids
      ? await this.#pick(ids, filter, below, options)
      : await this.#walk(filter, below, wanted, options);
    const tasks = found.slice(0, options.limit);
    const last = tasks.at(-1);
    return {
      tasks: tasks.map((one) => one.task),
      nextCursor: found.length > options.limit && last ? cursorOf("task", String(last.order)) : undefined,
    };
  }

  async queue(
    options: Cancellable & { limit: number; cursor?: string },
  ): Promise<TaskPage & { count: number }> {
    const above = options.cursor === undefined ? undefined : scoreOfCursor("queue", options.cursor);
    const found: TaskRecord[] = [];
    let from = above === undefined ? "-inf" : `(${above}`;
    for (;;) {
      const most = Math.min(chunkSize, options.limit + 1 - found.length);
      const part = await this.#queuePart({ from, most, readyOnly: false }, options);
      found.push(...part.records);
      if (part.reached !== "" && found.length <= options.limit) {
        from = `(${part.reached}`;
        continue;
      }
      const page = found.slice(0, options.limit);
      const last = page.at(-1);
      return {
        count: part.count,
        tasks: page.map((one) => one.task),
        nextCursor: found.length > options.limit && last ? cursorOf("queue", last.queueScore) : undefined,
      };
    }
  }

  async ready(
    options: Cancellable & { limit: number },
  ): Promise<{ tasks: Task[]; queued: number; waiting: number; oldestWaitMs: number }> {
    const found: TaskRecord[] = [];
    let from = "-inf";
    let waiting = 0;
    let seen = 0;
    for (;;) {
      const most = Math.min(chunkSize, Math.max(options.limit - found.length, 1));
      const part = await this.#queuePart({ from, most, readyOnly: true }, options);
      found.push(...part.records);
      waiting += part.waiting;
      seen += part.seen;
      if (part.reached !== "" && found.length < options.limit && seen < maxQueueSeen) {
        from = `(${part.reached}`;
        continue;
      }
      const page = found.slice(0, options.limit);
      const oldestUs = Math.min(part.nowUs, ...page.map((one) => one.pendingSinceUs));
      return {
        tasks: page.map((one) => one.task),
        queued: part.count,
        waiting,
        oldestWaitMs: Math.floor((part.nowUs - oldestUs) / 1000),
      };
    }
  }

  async openTasks(labels: readonly string[], options?: Cancellable): Promise<Map<string, string>> {
    const open = new Map<string, string>();
    for (const chunk of chunksOf([...new Set(labels)])) {
      const keys = chunk.map((label) => this.keys.labelTask(label));
      const ids = await this.run(scripts.openOfLabels, keys, [this.keys.taskPrefix], options);
      chunk.forEach((label, i) => {
        const id = ids[i];
        if (id) open.set(label, id);
      });
    }
    return open;
  }

  async indexing(options?: Cancellable): Promise<Task[]> {
    const running: TaskRecord[] = [];
    for (const chunk of chunksOf(await this.#indexingIds(options))) {
      const { records, vanished } = await this.#read(chunk, options);
      for (const record of records) if (record.task.status === "indexing") running.push(record);
      await this.#forget(vanished, undefined, options);
    }
    return running.sort((a, b) => a.order - b.order).map((record) => record.task);
  }

  async expired(
    options: Cancellable & { keep: number; endedBeforeMs: number },
  ): Promise<{ ended: number; expired: number; taskIds: string[] }> {
    const { tasks, queue, indexing, ended, facts } = this.keys;
    const look = () =>
      this.run(
        scripts.expired,
        [ended, tasks, queue, indexing, facts],
        [options.keep, options.endedBeforeMs * 1000, maxExpiredIds],
        options,
      );
    const first = await look();
    if (first.unlisted === 0) return first.found;
    await this.#enlistAll(options);
    return (await look()).found;
  }

  async isCurrent({ epoch }: { epoch: number }, options?: Cancellable): Promise<boolean> {
    const stored = await guarded("read epoch", options?.signal, () => this.client.get(this.keys.epoch));
    return stored === String(epoch);
  }

  async lastPlanMs(options?: Cancellable): Promise<number | undefined> {
    const text = await guarded("read last plan", options?.signal, () => this.client.get(this.keys.lastPlan));
    const ms = text === null ? Number.NaN : Number(text);
    return Number.isFinite(ms) ? ms : undefined;
  }

  async missingLists(options?: Cancellable): Promise<Map<string, number>> {
    const since = await guarded("read missing lists", options?.signal, () =>
      this.client.hgetall(this.keys.missingLists),
    );
    return new Map(Object.entries(since).map(([label, ms]) => [label, Number(ms)]));
  }

  protected run<Reply>(
    script: Script<Reply>,
    keys: readonly string[],
    args: readonly (string | number)[],
    options: Cancellable | undefined,
  ): Promise<Reply> {
    return runScript(this.client, script, { keys, args }, options);
  }

  #indexingIds(options: Cancellable | undefined): Promise<string[]> {
    return guarded("read running tasks", options?.signal, () => this.client.smembers(this.keys.indexing));
  }

  /** Ids of all tasks that can fit, where they are few: then no walk is needed. */
  async #fewIds(filter: TaskFilter, options: Cancellable): Promise<readonly string[] | undefined> {
    if (filter.taskIds) return filter.taskIds;
    // No more than there are indexers.
    const runningOnly = filter.statuses?.every((status) => status === "indexing");
    return runningOnly ? this.#indexingIds(options) : undefined;
  }

  async #pick(
    ids: readonly string[],
    filter: TaskFilter,
    below: string | undefined,
    options: Cancellable,
  ): Promise<TaskRecord[]> {
    const { tasks, taskPrefix } = this.keys;
    const highest = below === undefined ? Number.POSITIVE_INFINITY : Number(below);
    const found: TaskRecord[] = [];
    for (const chunk of chunksOf([...new Set(ids)])) {
      const reply = await this.run(
        scripts.pick,
        [tasks],
        [taskPrefix, ...filterArgs(filter), ...chunk],
        options,
      );
      for (const record of this.#readable(reply)) if (record.order < highest) found.push(record);
    }
    return found.sort((a, b) => b.order - a.order);
  }

  /** From the newest: by score, which no two ids share, so what is created or removed meanwhile moves no page. */
  async #walk(
    filter: TaskFilter,
    below: string | undefined,
    wanted: number,
    options: Cancellable,
  ): Promise<TaskRecord[]> {
    const { tasks, facts, taskPrefix } = this.keys;
    const ofLabel = filter.listId === undefined ? undefined : this.keys.tasksOf(filter.listId);
    // A task's place in the order of creation is never below its time of creation; above it may be.
    const lowest = filter.createTime?.gteMs === undefined ? "-inf" : filter.createTime.gteMs * 1000;
    const found: TaskRecord[] = [];
    let highest = below === undefined ? "+inf" : `(${below}`;
    for (;;) {
      const most = Math.min(chunkSize, wanted - found.length);
      const part = await this.run(
        scripts.find,
        [tasks, facts, ...(ofLabel === undefined ? [] : [ofLabel])],
        [taskPrefix, highest, lowest, tasksPerWalk, most, ...filterArgs(filter)],
        options,
      );
      await this.#forget(part.vanished, ofLabel, options);
      found.push(...this.#readable(part.found));
      if (part.reached === "" || found.length >= wanted) return found;
      highest = `(${part.reached}`;
    }
  }

  async #queuePart(
    input: { from: string; most: number; readyOnly: boolean },
    options: Cancellable,
  ): Promise<ReturnType<typeof scripts.queue.parse> & { records: TaskRecord[] }> {
    const { from, most, readyOnly } = input;
    const part = await this.run(
      scripts.queue,
      [this.keys.queue],
      [this.keys.taskPrefix, from, readyOnly ? tasksPerWalk : most, most, readyOnly ? "1" : "0"],
      options,
    );
    await this.#forget(part.vanished, undefined, options);
    return { ...part, count: part.count - part.vanished.length, records: this.#readable(part.found) };
  }

  /** What a version before `ended` and `tasks_of` left in Redis would else be kept for ever, and found by no list. */
  async #enlistAll({ signal }: Cancellable): Promise<void> {
    const { tasks, ended, facts, taskPrefix, tasksOfPrefix } = this.keys;
    // Facts of tasks that such a version removed go as well; until all are there again, no look goes by them.
    await guarded("drop the facts of tasks", signal, () => this.client.unlink(facts));
    const ids = await guarded("read all tasks", signal, () => this.client.zrange(tasks, 0, "-1"));
    for (const chunk of chunksOf(ids))
      await this.run(scripts.enlist, [tasks, ended, facts], [taskPrefix, tasksOfPrefix, ...chunk], {
        signal,
      });
    this.#log?.info({ tasks: ids.length }, "tasks were entered into sets that missed some");
  }

  #readable(found: readonly (readonly string[])[]): TaskRecord[] {
    const records: TaskRecord[] = [];
    for (const pairs of found) {
      const record = recordOfPairs(pairs);
      if (record) records.push(record);
      else this.#noteUnreadable(String(pairs[pairs.indexOf("task_id") + 1]));
    }
    return records;
  }

  /** The records of at most a chunk of ids, in their order, and the ids that have none. */
  async #read(
    ids: readonly string[],
    options: Cancellable | undefined,
  ): Promise<{ records: TaskRecord[]; vanished: string[] }> {
    const hashes = await guarded("read tasks", options?.signal, () =>
      Promise.all(ids.map((id) => this.client.hgetall(this.keys.task(id)))),
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
  async #forget(
    ids: readonly string[],
    ofLabel: string | undefined,
    options: Cancellable | undefined,
  ): Promise<void> {
    const { tasks, queue, indexing, ended, facts, taskPrefix } = this.keys;
    const keys = [tasks, queue, indexing, ended, facts, ...(ofLabel === undefined ? [] : [ofLabel])];
    for (const chunk of chunksOf(ids)) await this.run(scripts.forget, keys, [taskPrefix, ...chunk], options);
  }
}

/** As task_filter.lua reads it. */
function filterArgs(filter: TaskFilter): (string | number)[] {
  const bounds = (range: TimeRange | undefined) =>
    [range?.gteMs, range?.ltMs].map((ms) => (ms === undefined ? "" : ms * 1000));
  return [
    filter.statuses ? `,${filter.statuses.join(",")},` : "",
    filter.listId ?? "",
    filter.indexer ?? "",
    ...bounds(filter.createTime),
    ...bounds(filter.startTime),
    ...bounds(filter.endTime),
  ];
}

export function* chunksOf<T>(items: readonly T[]): Generator<T[]> {
  for (let start = 0; start < items.length; start += chunkSize) yield items.slice(start, start + chunkSize);
}
