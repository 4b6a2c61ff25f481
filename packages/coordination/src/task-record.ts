import { type ErrorBody, LimError, limits, progressSchema, type Task, taskSchema } from "@lim/contracts";

/** A task and its place in the order of creation, which no clock disturbs. */
export interface TaskRecord {
  task: Task;
  order: number;
  /** Of a pending task: since when, in microseconds. */
  pendingSinceUs: number;
  /** Decimal digits; "" unless it was read in the queue. */
  queueScore: string;
}

type TaskField =
  | "task_id"
  | "list_id"
  | "status"
  | "mode"
  | "trigger"
  | "priority"
  | "attempt"
  /** Place in the order of creation: microseconds, made unique. */
  | "order"
  | "create_us"
  | "start_us"
  | "end_us"
  | "not_before_us"
  /** Since when it has been pending again; without it, since its creation. */
  | "pending_us"
  | "indexer"
  | "error"
  | "progress"
  /** Not stored: put beside the record by what reads the queue. */
  | "queue_score"
  | "skipped";
type TaskHash = { readonly [Field in TaskField]?: string };

/** Reads a task's hash; undefined where it is missing or no task (a record must not break the list it stands in). */
export function recordOf(hash: TaskHash): TaskRecord | undefined {
  const parsed = taskSchema.safeParse({
    task_id: hash.task_id,
    status: hash.status,
    create_time: timeOf(hash.create_us),
    start_time: timeOf(hash.start_us),
    end_time: timeOf(hash.end_us),
    indexer: hash.indexer ?? null,
    error: jsonOf(hash.error),
    content: { list_id: hash.list_id },
    mode: hash.mode,
    trigger: hash.trigger,
    // Records of before there were priorities have none.
    priority: hash.priority ?? "default",
    not_before: timeOf(hash.not_before_us),
    attempt: Number(hash.attempt),
    progress: progressOf(hash.progress),
    skipped: jsonOf(hash.skipped),
  });
  const order = Number(hash.order);
  const pendingSinceUs = Number(hash.pending_us ?? hash.create_us);
  if (!parsed.success || !Number.isFinite(order)) return undefined;
  return { task: parsed.data, order, pendingSinceUs, queueScore: hash.queue_score ?? "" };
}

/** Fields and values one after the other, as Lua returns a hash. */
export function recordOfPairs(pairs: readonly unknown[]): TaskRecord | undefined {
  const hash: Record<string, string> = {};
  for (let i = 0; i + 1 < pairs.length; i += 2) hash[String(pairs[i])] = String(pairs[i + 1]);
  return recordOf(hash);
}

/** Microseconds since 1970 as decimal digits, from RFC 3339. Throws bad_input on other text. */
export function microsecondsOf(time: string): string {
  const ms = Date.parse(time);
  if (!Number.isFinite(ms)) throw new LimError("bad_input", `"${time}" is no RFC 3339 time`);
  return String(ms * 1000);
}

/** An error as the record keeps it, its detail bounded. */
export function errorText(error: ErrorBody): string {
  return JSON.stringify({ ...error, detail: error.detail.slice(0, limits.maxErrorDetailChars) });
}

function timeOf(microseconds: string | undefined): string | null {
  if (microseconds === undefined) return null;
  const date = new Date(Math.floor(Number(microseconds) / 1000));
  // Text that is no number fails the schema as "".
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

/** Null where it is not readable (another release may know other phases): a build is to be followed all the same. */
function progressOf(text: string | undefined): unknown {
  // A failed parse costs as much as a whole record.
  if (text === undefined) return null;
  return progressSchema.safeParse(jsonOf(text)).data ?? null;
}

function jsonOf(text: string | undefined): unknown {
  if (text === undefined) return null;
  try {
    return JSON.parse(text);
  } catch {
    // Fails the schema, as null would not.
    return text;
  }
}
