import { randomUUID } from "node:crypto";
import {
  type CreateTaskBody,
  type IndexSummary,
  indexesResponseSchema,
  LimError,
  type PlanResponse,
  planResponseSchema,
  queueResponseSchema,
  type RetentionResponse,
  removeIndexesResponseSchema,
  removeTasksResponseSchema,
  retentionResponseSchema,
  type Task,
  taskSchema,
  tasksResponseSchema,
} from "@lim/contracts";
import { z } from "zod";
import { type ApiConnection, call, callForText, type Query } from "./http.ts";
import { collectPages, type Pages } from "./pages.ts";
import { type ProgressEvent, readProgress } from "./progress-stream.ts";

/** Plans, retention and removals look at every list or index. */
const slowRequestTimeoutMs = 60_000;
/** Most that the manager gives in one answer. */
const maxPage = 1_000;
const maxDecisionsPage = 10_000;
const masterSchema = z.object({ is_master: z.boolean() });

export interface Cancellable {
  signal?: AbortSignal | undefined;
}

/** Filters of tasks as the API names them; times are RFC 3339. */
export interface TaskQuery {
  task_ids?: string | undefined;
  statuses?: string | undefined;
  list_id?: string | undefined;
  indexer?: string | undefined;
  create_time__gte?: string | undefined;
  create_time__lt?: string | undefined;
  start_time__gte?: string | undefined;
  start_time__lt?: string | undefined;
  end_time__gte?: string | undefined;
  end_time__lt?: string | undefined;
}

export type RemovedTasks = z.infer<typeof removeTasksResponseSchema>;
export type RemovedIndexes = z.infer<typeof removeIndexesResponseSchema>;
export type PlanDecision = PlanResponse["decisions"][number];

/** Client of the Index Manager's HTTP API. Errors of the API come back as the LimError that they are. */
export class ManagerApi {
  readonly #connection: ApiConnection;

  constructor(url: string, options: { token?: string | undefined } = {}) {
    this.#connection = { url: url.replace(/\/+$/, ""), token: options.token };
  }

  /** A connection that breaks is tried again: the key of this call keeps it from making a second task. */
  createTask(
    body: Pick<CreateTaskBody, "list_id"> & Partial<CreateTaskBody>,
    { signal }: Cancellable = {},
  ): Promise<Task> {
    return call(this.#connection, taskSchema, {
      method: "POST",
      path: "/1/tasks",
      body,
      idempotencyKey: randomUUID(),
      signal,
    });
  }

  task(taskId: string, { signal }: Cancellable = {}): Promise<Task> {
    return call(this.#connection, taskSchema, { method: "GET", path: `/1/tasks/${taskId}`, signal });
  }

  /** Newest first, at most `limit`. */
  async tasks(filter: TaskQuery, options: Cancellable & { limit: number }): Promise<Pages<Task>> {
    return collectPages(options.limit, maxPage, async (page) => {
      const query = { ...filter, ...page };
      const answer = await this.#get("/1/tasks", tasksResponseSchema, query, options);
      return { items: answer.tasks, total: undefined, nextCursor: answer.next_cursor };
    });
  }

  /** Pending tasks in the order of their dispatch; `total` is the whole queue. */
  async queue(options: Cancellable & { limit: number }): Promise<Pages<Task>> {
    return collectPages(options.limit, maxPage, async (page) => {
      const answer = await this.#get("/1/queue", queueResponseSchema, page, options);
      return { items: answer.tasks, total: answer.count, nextCursor: answer.next_cursor };
    });
  }

  async cancelTask(taskId: string, { signal }: Cancellable = {}): Promise<void> {
    await callForText(this.#connection, { method: "DELETE", path: `/1/tasks/${taskId}`, signal });
  }

  /** At most `limit` (1 to 1,000); `more` says that others match too. */
  removeTasks(
    filter: TaskQuery,
    { signal, ...query }: Cancellable & { limit: number; dry_run: boolean },
  ): Promise<RemovedTasks> {
    return call(this.#connection, removeTasksResponseSchema, {
      method: "DELETE",
      path: "/1/tasks",
      query: { ...filter, ...query },
      timeoutMs: slowRequestTimeoutMs,
      signal,
    });
  }

  /** Events of one task until the last one; ends early, without an error, where the stream breaks. */
  progress(taskId: string, options: { signal: AbortSignal }): AsyncGenerator<ProgressEvent> {
    return readProgress(this.#connection, taskId, options);
  }

  /** Of a label the newest first; `total` is how many match. */
  async indexes(
    filter: { label?: string | undefined; descriptor_version?: number | undefined },
    options: Cancellable & { limit: number },
  ): Promise<Pages<IndexSummary>> {
    return collectPages(options.limit, maxPage, async (page) => {
      const query = { ...filter, ...page };
      const answer = await this.#get("/1/indexes", indexesResponseSchema, query, options);
      return { items: answer.indexes, total: answer.count, nextCursor: answer.next_cursor };
    });
  }

  /** The index of each list that matchers serve. */
  async relevantIndexes(
    filter: { label?: string | undefined },
    options: Cancellable = {},
  ): Promise<IndexSummary[]> {
    return (await this.#get("/1/indexes/relevant", indexesResponseSchema, filter, options)).indexes;
  }

  async removeIndex(indexId: string, { signal }: Cancellable = {}): Promise<void> {
    await callForText(this.#connection, { method: "DELETE", path: `/1/indexes/${indexId}`, signal });
  }

  removeIndexes({
    signal,
    ...query
  }: Cancellable & {
    policy: "all" | "outdated";
    label?: string | undefined;
    dry_run: boolean;
  }): Promise<RemovedIndexes> {
    return call(this.#connection, removeIndexesResponseSchema, {
      method: "DELETE",
      path: "/1/indexes",
      query,
      timeoutMs: slowRequestTimeoutMs,
      signal,
    });
  }

  /** What the next planning would do, with at most `limit` decisions. */
  async plan(
    filter: { list_id?: string | undefined; action?: "create" | "skip" | undefined },
    options: Cancellable & { limit: number },
  ): Promise<PlanResponse> {
    let head: PlanResponse | undefined;
    const pages = await collectPages<PlanDecision>(options.limit, maxDecisionsPage, async (page) => {
      const answer = await this.#get("/1/plan", planResponseSchema, { ...filter, ...page }, options);
      head ??= answer;
      return { items: answer.decisions, total: answer.count, nextCursor: answer.next_cursor };
    });
    if (head === undefined) throw new LimError("internal", "no page of the plan was read");
    return { ...head, decisions: pages.items, next_cursor: pages.nextCursor };
  }

  retention(options: Cancellable = {}): Promise<RetentionResponse> {
    return this.#get("/1/retention", retentionResponseSchema, {}, options);
  }

  /** Whether this manager is the master, as far as it knows. */
  async isMaster(options: Cancellable = {}): Promise<boolean> {
    return (await this.#get("/1/master", masterSchema, {}, options)).is_master;
  }

  #get<Schema extends z.ZodType>(
    path: string,
    schema: Schema,
    query: Query,
    { signal }: Cancellable,
  ): Promise<z.output<Schema>> {
    const timeoutMs = slowRequestTimeoutMs;
    return call(this.#connection, schema, { method: "GET", path, query, timeoutMs, signal });
  }
}
