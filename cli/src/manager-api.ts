import {
  errorBodySchema,
  type IndexSummary,
  indexesResponseSchema,
  LimError,
  type Task,
  taskSchema,
  tasksResponseSchema,
} from "@lim/contracts";
import { z } from "zod";

const requestTimeoutMs = 10_000;
const masterSchema = z.object({ is_master: z.boolean() });

/** Client of the Index Manager's HTTP API. Errors of the API come back as the LimError that they are. */
export class ManagerApi {
  readonly #url: string;

  constructor(url: string) {
    this.#url = url.replace(/\/+$/, "");
  }

  createTask(
    body: { list_id: string; mode?: "rebuild" | "update" },
    options: { signal?: AbortSignal } = {},
  ): Promise<Task> {
    return this.#send("POST", "/1/tasks", taskSchema, { ...options, body });
  }

  task(taskId: string, options: { signal?: AbortSignal } = {}): Promise<Task> {
    return this.#send("GET", `/1/tasks/${taskId}`, taskSchema, options);
  }

  async tasks(
    filter: { list_id?: string; statuses?: string; limit?: number } = {},
    options: { signal?: AbortSignal } = {},
  ): Promise<Task[]> {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(filter))
      if (value !== undefined) query.set(name, String(value));
    return (await this.#send("GET", `/1/tasks?${query}`, tasksResponseSchema, options)).tasks;
  }

  async cancelTask(taskId: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#send("DELETE", `/1/tasks/${taskId}`, undefined, options);
  }

  async indexes(
    filter: { label?: string } = {},
    options: { signal?: AbortSignal } = {},
  ): Promise<IndexSummary[]> {
    const query = new URLSearchParams(filter);
    return (await this.#send("GET", `/1/indexes?${query}`, indexesResponseSchema, options)).indexes;
  }

  async removeIndex(indexId: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#send("DELETE", `/1/indexes/${indexId}`, undefined, options);
  }

  /** Whether this manager is the master, as far as it knows. */
  async isMaster(options: { signal?: AbortSignal } = {}): Promise<boolean> {
    return (await this.#send("GET", "/1/master", masterSchema, options)).is_master;
  }

  #send<Schema extends z.ZodType>(
    method: string,
    path: string,
    schema: Schema,
    options: { signal?: AbortSignal; body?: unknown },
  ): Promise<z.output<Schema>>;
  #send(method: string, path: string, schema: undefined, options: { signal?: AbortSignal }): Promise<void>;
  async #send(
    method: string,
    path: string,
    schema: z.ZodType | undefined,
    options: { signal?: AbortSignal; body?: unknown },
  ): Promise<unknown> {
    const timeout = AbortSignal.timeout(requestTimeoutMs);
    const response = await fetch(this.#url + path, {
      method,
      signal: options.signal ? AbortSignal.any([options.signal, timeout]) : timeout,
      ...(options.body === undefined
        ? {}
        : { body: JSON.stringify(options.body), headers: { "content-type": "application/json" } }),
    }).catch((cause: unknown) => {
      options.signal?.throwIfAborted();
      throw new LimError(
        "timeout",
        `no answer from the Index Manager at ${this.#url}: is it running (LIM_MANAGER_URL)?`,
        { cause },
      );
    });
    const text = await response.text();
    if (!response.ok) {
      const error = errorBodySchema.safeParse(parseJson(text));
      throw error.success
        ? LimError.fromBody(error.data)
        : new LimError("internal", `${method} ${path}: HTTP ${response.status}`);
    }
    return schema?.parse(parseJson(text));
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
