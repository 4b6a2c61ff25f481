import type { BuildOutcome, BuildRequest, IndexerState, Task } from "@lim/contracts";
import { LimError, maxReportedOutcomes } from "@lim/contracts";
import type { Refusal } from "@lim/coordination";
import type { IndexStorage, PublishedIndex } from "@lim/index-storage";
import type { DispatchDeps } from "../src/dispatching.ts";
import type { CommandResult } from "../src/indexer-client.ts";
import { idle, task } from "./reconcile-cases.ts";

/** A model of the store that keeps to the table of docs/task-states.md, of one label each task; time is in steps. */
export function createModelStore(now: () => number) {
  const records = new Map<string, Task>();
  let queue: { id: string; readyAt: number }[] = [];
  const removedWhileRunning = new Set<string>();
  const ends = new Map<string, number>();
  const refused = (refusal: Refusal) => ({ ok: false, refusal }) as const;
  const check = (
    id: string,
    attempt: number,
  ): { ok: true; record: Task } | { ok: false; refusal: Refusal } => {
    const record = records.get(id);
    if (!record) return refused("unknown_task");
    if (record.attempt !== attempt) return refused("stale_attempt");
    if (record.status !== "indexing") return refused("wrong_status");
    return { ok: true, record };
  };
  const end = (record: Task, error: Task["error"]) => {
    records.set(record.task_id, { ...record, status: error ? "error" : "success", error });
    ends.set(record.task_id, (ends.get(record.task_id) ?? 0) + 1);
  };
  const store: DispatchDeps["store"] = {
    get: async (id) => records.get(id),
    async dispatch({ taskId, indexer }) {
      const record = records.get(taskId);
      if (!record) return refused("unknown_task");
      if (record.status !== "pending") return refused("wrong_status");
      queue = queue.filter((one) => one.id !== taskId);
      const attempt = record.attempt + 1;
      records.set(taskId, { ...record, status: "indexing", indexer, attempt, progress: null });
      return { ok: true, attempt };
    },
    async progress({ taskId, attempt, progress }) {
      const found = check(taskId, attempt);
      if (found.ok) records.set(taskId, { ...found.record, progress });
      return found.ok ? { ok: true } : found;
    },
    async finish({ taskId, attempt, error }) {
      const found = check(taskId, attempt);
      if (found.ok) end(found.record, error);
      return found.ok ? { ok: true } : found;
    },
    async requeue({ taskId, attempt, reason, maxAttempts, delayMs }) {
      const found = check(taskId, attempt);
      if (!found.ok) return found;
      if (attempt >= maxAttempts) {
        end(found.record, reason);
        return { ok: true, status: "error" };
      }
      records.set(taskId, { ...found.record, status: "pending", indexer: null, progress: null });
      queue = [{ id: taskId, readyAt: now() + delayMs }, ...queue];
      return { ok: true, status: "pending" };
    },
    async adopt({ taskId, listId, mode, attempt, indexer }) {
      if (removedWhileRunning.has(taskId)) return refused("unknown_task");
      if (records.has(taskId)) return refused("wrong_status");
      records.set(taskId, task({ task_id: taskId, content: { list_id: listId }, mode, attempt, indexer }));
      return { ok: true };
    },
  };
  const withStatus = (status: Task["status"]) => [...records.values()].filter((one) => one.status === status);
  return {
    store,
    ends,
    create(id: string) {
      const list_id = `list of ${id}`;
      records.set(
        id,
        task({ task_id: id, status: "pending", indexer: null, attempt: 0, content: { list_id } }),
      );
      queue.push({ id, readyAt: 0 });
    },
    remove(id: string) {
      if (records.get(id)?.status === "indexing") removedWhileRunning.add(id);
      queue = queue.filter((one) => one.id !== id);
      records.delete(id);
    },
    flush() {
      records.clear();
      removedWhileRunning.clear();
      queue = [];
    },
    record: (id: string) => records.get(id),
    indexing: () => withStatus("indexing"),
    open: () => [...withStatus("indexing"), ...withStatus("pending")],
    ready: () =>
      queue.flatMap(({ id, readyAt }) => {
        const record = records.get(id);
        return record && readyAt <= now() ? [record] : [];
      }),
  };
}

/** What the storage promises: an index appears once and whole, and never under a mark. */
export function createModelStorage() {
  const published = new Set<string>();
  const removed = new Set<string>();
  const storage: Pick<IndexStorage, "find"> = {
    find: async ({ indexId }) => (published.has(indexId) ? ({ indexId } as PublishedIndex) : undefined),
  };
  return { storage, published, removed };
}

export type DispatchFate = "taken" | "taken, word lost" | "lost" | "refused";

/** An indexer that keeps its contract, on a bad network. */
export interface ModelIndexer {
  readonly origin: string;
  state(): IndexerState;
  up: boolean;
  /** Steps for which its answers do not come, and for which each comes one lookup late. */
  hangs: number;
  slow: number;
  /** What becomes of the next dispatches, and of how many. */
  fate: { what: DispatchFate; times: number };
  build(request: BuildRequest): CommandResult;
  stop(taskId: string, attempt: number): CommandResult;
  crash(): void;
  restart(): void;
  drain(): void;
  /** One step of its build; `completed` is told of each that reached the storage. */
  work(completed: (taskId: string) => void): void;
}

const lost: CommandResult = { sent: false, certain: false, error: new LimError("indexer_lost", "") };
const refusedAs = (name: "indexer_busy" | "not_found"): CommandResult => ({
  sent: false,
  certain: true,
  error: new LimError(name, ""),
});

export function createModelIndexer(
  origin: string,
  { published, removed }: ReturnType<typeof createModelStorage>,
  options: { buildSteps: number; taken: (taskId: string) => void },
): ModelIndexer {
  const { buildSteps } = options;
  let boot = 0;
  let draining = false;
  let current: { request: BuildRequest; left: number } | undefined;
  let outcomes: BuildOutcome[] = [];
  const end = (error: LimError | null) => {
    if (!current) return;
    const { task_id, list_id, attempt } = current.request;
    const status = error ? "error" : "success";
    const body = error?.toBody() ?? null;
    const ended = { task_id, list_id, attempt, status, error: body, end_time: "2026-11-21T10:05:00.000Z" };
    outcomes = [ended as BuildOutcome, ...outcomes].slice(0, maxReportedOutcomes);
    current = undefined;
  };
  const forget = () => {
    current = undefined;
    outcomes = [];
    draining = false;
    boot++;
  };
  const self: ModelIndexer = {
    origin,
    up: true,
    hangs: 0,
    slow: 0,
    fate: { what: "taken", times: 0 },
    state: () =>
      idle({
        boot_id: `${origin} ${boot}`,
        state: draining ? "draining" : current ? "building" : "idle",
        outcomes,
        ...(current
          ? {
              task_id: current.request.task_id,
              list_id: current.request.list_id,
              attempt: current.request.attempt,
              mode: current.request.mode,
              progress: {
                phase: "build",
                done: current.left,
                total: buildSteps,
                rate_per_s: null,
                eta_s: null,
              },
            }
          : {}),
      }),
    build(request) {
      const what = self.fate.times-- > 0 ? self.fate.what : "taken";
      const fate = self.hangs > 0 ? "taken, word lost" : what;
      if (!self.up || fate === "lost") return lost;
      if (fate === "refused" || current || draining) return refusedAs("indexer_busy");
      current = { request, left: buildSteps };
      options.taken(request.task_id);
      return fate === "taken" ? { sent: true } : lost;
    },
    stop(taskId, attempt) {
      if (!self.up || self.hangs > 0) return lost;
      if (current?.request.task_id !== taskId || current.request.attempt !== attempt)
        return refusedAs("not_found");
      end(new LimError("build_cancelled", ""));
      return { sent: true };
    },
    crash() {
      self.up = false;
      forget();
    },
    restart() {
      self.up = true;
      self.hangs = 0;
      forget();
    },
    drain() {
      draining = true;
      end(new LimError("build_cancelled", ""));
    },
    work(completed) {
      if (!self.up || !current || --current.left > 0) return;
      const { task_id } = current.request;
      if (removed.has(task_id)) return end(new LimError("build_cancelled", ""));
      completed(task_id);
      published.add(task_id);
      end(null);
    },
  };
  return self;
}
