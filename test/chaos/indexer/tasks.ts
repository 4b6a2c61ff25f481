import { setTimeout as sleep } from "node:timers/promises";
import { type ErrorName, errorNameOfCode, type Task, tasksResponseSchema } from "@lim/contracts";
import type { Findings } from "../findings.ts";
import type { Feeder } from "./feeder.ts";
import type { StorageReader } from "./reader.ts";

const observeEveryMs = 300;
const requestTimeoutMs = 15_000;
const maxPages = 1_000;
/** A build that tells of no progress this long, through all faults, hangs. */
const stuckMs = 120_000;

/** Errors that none of the faults of a run may cause. */
const wrongEnds: ReadonlySet<ErrorName> = new Set([
  "internal",
  "bad_input",
  "bad_settings",
  "indexer_busy",
  "disk_full",
  "out_of_memory",
  "verification_failed",
  "index_id_conflict",
  "index_refused",
  "engine_failed",
]);

export interface TaskWatch {
  /** Looks at the open tasks until the signal fires. */
  run(signal: AbortSignal): Promise<void>;
  open(): Promise<Task[]>;
  /** What must hold of all tasks once everything has come to rest. */
  judge(deps: { feeder: Feeder; reader: StorageReader }): Promise<void>;
}

export function createTaskWatch(deps: { manager: () => string | undefined; findings: Findings }): TaskWatch {
  const { findings } = deps;
  const everOpen = new Set<string>();
  const lastWord = new Map<string, { text: string; atMs: number }>();

  const page = async (query: Record<string, string>) => {
    const url = deps.manager();
    if (url === undefined) throw new Error("no manager runs");
    const response = await fetch(`${url}/1/tasks?${new URLSearchParams(query)}`, {
      signal: AbortSignal.timeout(requestTimeoutMs),
    });
    if (!response.ok) throw new Error(`tasks: ${response.status} ${await response.text()}`);
    return tasksResponseSchema.parse(await response.json());
  };
  const all = async (query: Record<string, string>): Promise<Task[]> => {
    const tasks: Task[] = [];
    let cursor: string | null = null;
    for (let i = 0; i < maxPages; i++) {
      const answer = await page({ limit: "1000", ...query, ...(cursor === null ? {} : { cursor }) });
      tasks.push(...answer.tasks);
      cursor = answer.next_cursor;
      if (cursor === null) break;
    }
    return tasks;
  };
  const open = async () => {
    const tasks = await all({ statuses: "pending,indexing" });
    for (const task of tasks) everOpen.add(task.task_id);
    return tasks;
  };
  const watchProgress = (tasks: readonly Task[]) => {
    const nowMs = performance.now();
    for (const { task_id, status, attempt, progress } of tasks) {
      if (status !== "indexing") continue;
      const text = JSON.stringify([attempt, progress]);
      const before = lastWord.get(task_id);
      if (before?.text !== text) lastWord.set(task_id, { text, atMs: nowMs });
      else if (nowMs - before.atMs > stuckMs) {
        findings.violation(`task ${task_id} has been stuck for ${stuckMs} ms at ${text}`);
        before.atMs = nowMs;
      }
    }
  };
  const judgeEnd = (task: Task, hasIndex: boolean, removed: boolean) => {
    const { task_id, status, error, attempt } = task;
    findings.count("attempts of ended tasks", String(attempt));
    if (status === "success") {
      findings.count("tasks ended", "success");
      if (!hasIndex && !removed) findings.violation(`task ${task_id} ended as success and was never visible`);
      return;
    }
    const name = error ? errorNameOfCode(error.error_code) : undefined;
    findings.count("tasks ended", `${error?.error_code ?? "no code"} ${name ?? "unknown"}`);
    const how = error?.detail ?? "";
    // Only killed processes crash: whatever else ended one is no fault of this run.
    const isCrash = name === "build_crashed" && !/was killed by SIGKILL/.test(how);
    if (name === undefined || wrongEnds.has(name) || isCrash)
      findings.violation(`task ${task_id} ended with ${error?.error_code}: ${how}`);
    if (hasIndex) findings.count("harness", `indexes of tasks that ended as error: ${name}`);
  };

  return {
    open,
    async run(signal) {
      while (!signal.aborted) {
        // The manager may be between two lives.
        await open().then(watchProgress, () => findings.count("harness", "looks at tasks without an answer"));
        await sleep(observeEveryMs, undefined, { signal }).catch(() => {});
      }
    },
    async judge({ feeder, reader }) {
      const tasks = await all({});
      const known = new Map(tasks.map((task) => [task.task_id, task]));
      for (const task of tasks) {
        const removed = feeder.removedTasks.has(task.task_id) || feeder.unsure.has(task.task_id);
        if (task.status === "pending" || task.status === "indexing")
          findings.violation(
            `task ${task.task_id} of list ${task.content.list_id} is stuck as ${task.status}, attempt ` +
              `${task.attempt}, progress ${JSON.stringify(task.progress)}`,
          );
        else judgeEnd(task, reader.hasSeen(task.task_id), removed);
      }
      for (const taskId of everOpen) {
        if (known.has(taskId)) continue;
        if (feeder.removedTasks.has(taskId)) findings.count("tasks ended", "removed");
        else if (feeder.forgotten.has(taskId)) findings.count("tasks ended", "ended, then removed");
        else if (feeder.unsure.has(taskId)) findings.count("tasks ended", "removed, unanswered");
        else findings.violation(`task ${taskId} was open, was not removed, and has no record`);
      }
    },
  };
}
