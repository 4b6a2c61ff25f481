import type { Refusal } from "../src/port.ts";

export type Status = "pending" | "indexing" | "success" | "error";
export interface ModelTask {
  label: string;
  status: Status;
  attempt: number;
}

/** What the task store should do, without Redis: the table of docs/task-states.md as plain code. */
export class TaskModel {
  epoch: number | undefined;
  readonly tasks = new Map<string, ModelTask>();
  /** Front first. */
  queue: string[] = [];
  readonly removed = new Set<string>();
  /** How often each record's life ended; a record made anew begins again at 0. */
  readonly endings = new Map<string, number>();

  openOf(label: string): string | undefined {
    for (const [id, task] of this.tasks)
      if (task.label === label && (task.status === "pending" || task.status === "indexing")) return id;
    return undefined;
  }

  create(
    id: string,
    label: string,
    epoch: number | undefined,
  ): "created" | { conflict: string } | { refusal: "stale_epoch" } {
    if (epoch !== undefined && epoch !== this.epoch) return { refusal: "stale_epoch" };
    const open = this.openOf(label);
    if (open) return { conflict: open };
    if (this.tasks.has(id)) return { conflict: id };
    this.tasks.set(id, { label, status: "pending", attempt: 0 });
    this.queue.push(id);
    this.endings.set(id, 0);
    return "created";
  }

  dispatch(id: string, epoch: number): Refusal | number {
    const task = this.#judge(id, epoch, "pending", undefined);
    if (typeof task === "string") return task;
    this.queue = this.queue.filter((queued) => queued !== id);
    task.status = "indexing";
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

  requeue(id: string, epoch: number, attempt: number, maxAttempts: number): Refusal | Status {
    const task = this.#judge(id, epoch, "indexing", attempt);
    if (typeof task === "string") return task;
    if (attempt >= maxAttempts) {
      this.#end(id, task, "error");
    } else {
      task.status = "pending";
      this.queue.unshift(id);
    }
    return task.status;
  }

  adopt(id: string, label: string, epoch: number, attempt: number): Refusal | "ok" {
    if (epoch !== this.epoch) return "stale_epoch";
    if (this.removed.has(id)) return "unknown_task";
    if (this.tasks.has(id) || this.openOf(label)) return "wrong_status";
    this.tasks.set(id, { label, status: "indexing", attempt });
    this.endings.set(id, 0);
    return "ok";
  }

  remove(id: string): boolean {
    const task = this.tasks.get(id);
    if (!task) return false;
    if (task.status === "indexing") this.removed.add(id);
    this.tasks.delete(id);
    this.queue = this.queue.filter((queued) => queued !== id);
    return true;
  }

  flush(): void {
    this.epoch = undefined;
    this.tasks.clear();
    this.queue = [];
    this.removed.clear();
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
