import { setTimeout as sleep } from "node:timers/promises";
import { LimError, type Task } from "@lim/contracts";
import { ManagerApi } from "../manager-api.ts";
import { createProgressBoard, formatTable } from "../output.ts";

const watchPeriodMs = 300;

interface Common {
  managerUrl: string;
  json: boolean;
  signal: AbortSignal;
}

export async function listTasks(
  command: Common & { list?: string; statuses?: string; limit: number },
): Promise<number> {
  const api = new ManagerApi(command.managerUrl);
  const tasks = await api.tasks(
    {
      limit: command.limit,
      ...(command.list === undefined ? {} : { list_id: command.list }),
      ...(command.statuses === undefined ? {} : { statuses: command.statuses }),
    },
    { signal: command.signal },
  );
  if (command.json) console.log(JSON.stringify({ count: tasks.length, tasks }));
  else
    console.log(
      formatTable(
        ["task", "status", "mode", "list", "created", "indexer", "progress or error"],
        tasks.map((task) => [
          task.task_id,
          task.status,
          task.mode,
          task.content.list_id,
          task.create_time,
          task.indexer ?? "",
          note(task),
        ]),
      ),
    );
  return 0;
}

export async function createTask(
  command: Common & { list: string; mode: "rebuild" | "update"; watch: boolean },
): Promise<number> {
  const api = new ManagerApi(command.managerUrl);
  const task = await api.createTask(
    { list_id: command.list, mode: command.mode },
    { signal: command.signal },
  );
  if (!command.watch) {
    console.log(command.json ? JSON.stringify(task) : `task ${task.task_id} is ${task.status}`);
    return 0;
  }
  const ended = await watchTask(api, task.task_id, command.signal);
  if (command.json) console.log(JSON.stringify(ended));
  else
    console.log(
      ended.status === "success" ? `index ${ended.task_id} is published` : `failed: ${note(ended)}`,
    );
  return ended.status === "success" ? 0 : 1;
}

export async function cancelTask(command: Common & { taskId: string }): Promise<number> {
  await new ManagerApi(command.managerUrl).cancelTask(command.taskId, { signal: command.signal });
  console.log(
    command.json ? JSON.stringify({ removed: command.taskId }) : `task ${command.taskId} is removed`,
  );
  return 0;
}

/** Follows one task to its end, a bar for each phase. */
export async function watchTask(api: ManagerApi, taskId: string, signal: AbortSignal): Promise<Task> {
  const board = createProgressBoard();
  let bar: { phase: string; line: ReturnType<typeof board.add> } | undefined;
  try {
    for (;;) {
      signal.throwIfAborted();
      const task = await api.task(taskId, { signal });
      const progress = task.progress;
      if (progress !== null && task.status === "indexing") {
        if (bar?.phase !== progress.phase) {
          bar?.line.finish();
          bar = { phase: progress.phase, line: board.add(progress.phase, progress.total, "") };
        }
        bar.line.setTotal(progress.total);
        bar.line.update(progress.done);
      }
      if (task.status === "success" || task.status === "error") {
        bar?.line.finish();
        return task;
      }
      await sleep(watchPeriodMs, undefined, { signal });
    }
  } catch (error) {
    if (signal.aborted) throw new LimError("aborted", "stopped watching; the task goes on", { cause: error });
    throw error;
  } finally {
    board.stop();
  }
}

function note(task: Task): string {
  if (task.error !== null) return `${task.error.error_code} ${task.error.desc}: ${task.error.detail}`;
  if (task.status !== "indexing" || task.progress === null) return "";
  const { phase, done, total, eta_s } = task.progress;
  return `${phase} ${done}/${total}${eta_s === null ? "" : `, ${Math.ceil(eta_s)} s left`}`;
}
