import { type Priority, priorities } from "@lim/contracts";
import type { Idempotency, Refusal } from "../src/port.ts";

export type Status = "pending" | "indexing" | "success" | "error";
export interface ModelTask {
  label: string;
  status: Status;
  attempt: number;
  priority: Priority;
  /** Pending, and not to be dispatched yet. */
  waits: boolean;
  /** Place in the order of creation. */
  order: number;
}

export type CreatedInModel =
  | "created"
  | { replayed: string }
  | { keyTaken: string }
  | { conflict: string }
  | { refusal: "stale_epoch" };

/** What the task store should do, without Redis: the table of docs/task-states.md as plain code. */
export class TaskModel {
  epoch: number | undefined;
  readonly tasks = new Map<string, ModelTask>();
  readonly removed = new Set<string>();
  readonly idempotencyKeys = new Map<string, { taskId: string; fingerprint: string }>();
  /** How often each record's life ended; a record made anew begins again at 0. */
  readonly endings = new Map<string, number>();
  /** Front first. */
  readonly #lanes = new Map<Priority, string[]>(priorities.map((priority) => [priority, []]));
  #newest = 0;

  /** Front first. */
  get queue(): string[] {
    return priorities.toReversed().flatMap((priority) => this.#lane(priority));
  }

  get newestFirst(): string[] {
    return [...this.tasks].sort(([, a], [, b]) => b.order - a.order).map(([id]) => id);
  }

  idsIn(...statuses: readonly Status[]): string[] {
    return this.newestFirst.filter((id) => statuses.includes(this.tasks.get(id)?.status ?? "pending"));
  }

  openOf(label: string): string | undefined {
    return this.idsIn("pending", "indexing").find((id) => this.tasks.get(id)?.label === label);
  }

  create(input: {
    id: string;
    label: string;
    epoch: number | undefined;
    priority: Priority | undefined;
    idempotency: Idempotency | undefined;
  }): CreatedInModel {
    const { id, label, epoch, priority = "default", idempotency } = input;
    if (epoch !== undefined && epoch !== this.epoch) return { refusal: "stale_epoch" };
    const known = idempotency && this.idempotencyKeys.get(idempotency.key);
    if (known) {
      const same = known.fingerprint === idempotency.fingerprint && this.tasks.has(known.taskId);
      return same ? { replayed: known.taskId } : { keyTaken: known.taskId };
    }
    const open = this.openOf(label);
    if (open) return { conflict: open };
    if (this.tasks.has(id)) return { conflict: id };
    const order = ++this.#newest;
    this.tasks.set(id, { label, status: "pending", attempt: 0, priority, waits: false, order });
    this.#lane(priority).push(id);
    this.endings.set(id, 0);
    if (idempotency)
      this.idempotencyKeys.set(idempotency.key, { taskId: id, fingerprint: idempotency.fingerprint });
    return "created";
  }

  dispatch(id: string, epoch: number): Refusal | number {
    const task = this.#judge(id, epoch, "pending", undefined);
    if (typeof task === "string") return task;
    this.#leaveQueue(id);
    task.status = "indexing";
    task.waits = false;
    task.attempt++;
    return task.attempt;
  }

  progress(id: string, epoch: number, attempt: number): Refusal | "ok" {
    const task = this.#judge(id, epoch, "indexing", attempt);
    return typeof task === "string" ? task : "ok";
  }

  finish(id: string, epoch: number, attempt: number, failed: boolean): Refusal | "ok" {
    const task = this.#judge(id, epoch, "indexing", attempt);
    if (typeof task === "string") return task;
    this.#end(id, task, failed ? "error" : "success");
    return "ok";
  }

  requeue(
    id: string,
    epoch: number,
    attempt: number,
    input: { maxAttempts: number; delayed: boolean },
  ): Refusal | Status {
    const task = this.#judge(id, epoch, "indexing", attempt);
    if (typeof task === "string") return task;
    if (attempt >= input.maxAttempts) {
      this.#end(id, task, "error");
    } else {
      task.status = "pending";
      task.waits = input.delayed;
      this.#lane(task.priority).unshift(id);
    }
    return task.status;
  }

  /** All are adopted with the same start, before whatever was created: the highest place that is free from there on. */
  adopt(id: string, label: string, epoch: number, attempt: number): Refusal | "ok" {
    if (epoch !== this.epoch) return "stale_epoch";
    if (this.removed.has(id)) return "unknown_task";
    if (this.tasks.has(id) || this.openOf(label)) return "wrong_status";
    const taken = new Set([...this.tasks.values()].map((task) => task.order));
    let order = 0;
    while (taken.has(order)) order--;
    this.tasks.set(id, { label, status: "indexing", attempt, priority: "default", waits: false, order });
    this.endings.set(id, 0);
    return "ok";
  }

  remove(id: string): boolean {
    const task = this.tasks.get(id);
    if (!task) return false;
    if (task.status === "indexing" || task.status === "pending") this.removed.add(id);
    this.tasks.delete(id);
    this.#leaveQueue(id);
    return true;
  }

  flush(): void {
    this.epoch = undefined;
    for (const id of [...this.tasks.keys()]) this.remove(id);
    this.removed.clear();
    this.idempotencyKeys.clear();
  }

  #lane(priority: Priority): string[] {
    return this.#lanes.get(priority) ?? [];
  }

  #leaveQueue(id: string): void {
    for (const [priority, lane] of this.#lanes)
      this.#lanes.set(
        priority,
        lane.filter((queued) => queued !== id),
      );
  }

  #judge(id: string, epoch: number, status: Status, attempt: number | undefined): Refusal | ModelTask {
    if (epoch !== this.epoch) return "stale_epoch";
    const task = this.tasks.get(id);
    if (!task) return "unknown_task";
    if (attempt !== undefined && task.attempt !== attempt) return "stale_attempt";
    return task.status === status ? task : "wrong_status";
  }

  #end(id: string, task: ModelTask, status: Status): void {
    task.status = status;
    this.endings.set(id, (this.endings.get(id) ?? 0) + 1);
  }
}
