import { type CreateTaskBody, LimError, type Task } from "@lim/contracts";
import type { TaskQuery } from "../api/manager-api.ts";
import { formatFields, formatTable } from "../output.ts";
import {
  counted,
  type ManagerCommand,
  mayRemove,
  noteMore,
  print,
  type RemovalConsent,
} from "./manager-command.ts";
import { lookAgainAndAgain, watchTask } from "./watch.ts";

/** Most that the manager removes in one call, and the ids that one filter may name. */
const maxRemovedAtOnce = 1_000;
const idsPerFilter = 100;
/** Between two looks of `lim tasks list --watch`. */
const listPeriodMs = 1_000;
const clearScreen = "\u001b[H\u001b[2J";
/** Calls of one removal: whoever has more than a million tasks narrows the filter down. */
const maxRemovalCalls = 1_000;

interface TaskListing extends ManagerCommand {
  filter: TaskQuery;
  limit: number;
}

export async function listTasks(command: TaskListing): Promise<number> {
  const { api, filter, limit, signal } = command;
  const pages = await api.tasks(filter, { limit, signal });
  const { items: tasks, nextCursor } = pages;
  print(command, { count: tasks.length, tasks, next_cursor: nextCursor }, () => taskTable(tasks));
  noteMore(pages, "tasks");
  return 0;
}

/** The list again whenever it has changed: on a terminal in place, elsewhere one below the other. Ends by a signal. */
export async function watchTasks(command: TaskListing): Promise<number> {
  const { api, filter, limit, json, signal } = command;
  const isTerminal = process.stdout.isTTY === true && !json;
  let shown = "";
  return lookAgainAndAgain(
    async () => {
      const { items: tasks, nextCursor } = await api.tasks(filter, { limit, signal });
      const text = json
        ? JSON.stringify({ count: tasks.length, tasks, next_cursor: nextCursor })
        : taskTable(tasks);
      if (text === shown) return;
      shown = text;
      console.log(isTerminal ? `${clearScreen}${text}` : text);
    },
    { periodMs: listPeriodMs, signal },
  );
}

export async function showTask(command: ManagerCommand & { taskId: string }): Promise<number> {
  const task = await command.api.task(command.taskId, { signal: command.signal });
  print(command, task, () => taskFields(task));
  return 0;
}

export async function createTask(
  command: ManagerCommand & {
    listId: string;
    mode: CreateTaskBody["mode"];
    priority: CreateTaskBody["priority"];
    watch: boolean;
  },
): Promise<number> {
  const { api, listId, mode, priority, signal } = command;
  const task = await api.createTask({ list_id: listId, mode, priority }, { signal });
  if (command.watch) return watchToEnd({ ...command, taskId: task.task_id });
  print(command, task, () => `task ${task.task_id} is ${task.status}`);
  return 0;
}

/** Exit code 0 only where the index is published. */
export async function watchToEnd(command: ManagerCommand & { taskId: string }): Promise<number> {
  const ended = await watchTask(command.api, command.taskId, command.signal);
  print(command, ended, () =>
    ended.status === "success"
      ? `index ${ended.task_id} is published; matchers load it within seconds`
      : `failed: ${note(ended)}`,
  );
  return ended.status === "success" ? 0 : 1;
}

export async function cancelTask(command: ManagerCommand & { taskId: string }): Promise<number> {
  await command.api.cancelTask(command.taskId, { signal: command.signal });
  print(command, { removed: command.taskId }, () => `task ${command.taskId} is removed`);
  return 0;
}

export async function removeTasks(
  command: ManagerCommand & RemovalConsent & { filter: TaskQuery; limit: number; dryRun: boolean },
): Promise<number> {
  const { api, filter, limit, signal } = command;
  if (Object.values(filter).every((value) => value === undefined))
    throw new LimError("bad_input", "give at least one filter, for example --statuses success,error");
  if (command.yes && !command.dryRun) return reportRemoved(command, await removeMatching(command, filter));
  const found = await api.removeTasks(filter, {
    limit: Math.min(limit, maxRemovedAtOnce),
    dry_run: true,
    signal,
  });
  const more = found.more && found.count < limit;
  const what = `${more ? "more than " : ""}${counted(found.count, "task")}`;
  if (command.dryRun) {
    print(command, found, () =>
      found.count === 0 ? "no task matches" : `${taskTable(found.tasks)}\nwould remove ${what}`,
    );
    return 0;
  }
  const severally = found.count > 1 || more;
  if (severally && !(await mayRemove(command, { what, show: () => taskTable(found.tasks) }, signal))) {
    console.error("nothing was removed");
    return 1;
  }
  // Those that were shown, as far as they still match; what has come to match meanwhile was not agreed to.
  const removed = more ? await removeMatching(command, filter) : await removeShown(command, found.tasks);
  return reportRemoved(command, removed);
}

async function removeMatching(
  { api, limit, signal }: ManagerCommand & { limit: number },
  filter: TaskQuery,
): Promise<Task[]> {
  const removed: Task[] = [];
  for (let calls = 0; calls < maxRemovalCalls && removed.length < limit; calls++) {
    const answer = await api.removeTasks(filter, {
      limit: Math.min(limit - removed.length, maxRemovedAtOnce),
      dry_run: false,
      signal,
    });
    removed.push(...answer.tasks);
    if (!answer.more || answer.count === 0) break;
  }
  return removed;
}

async function removeShown(
  command: ManagerCommand & { filter: TaskQuery; limit: number },
  shown: readonly Task[],
): Promise<Task[]> {
  const removed: Task[] = [];
  for (let start = 0; start < shown.length; start += idsPerFilter) {
    const ids = shown.slice(start, start + idsPerFilter).map((task) => task.task_id);
    removed.push(...(await removeMatching(command, { ...command.filter, task_ids: ids.join(",") })));
  }
  return removed;
}

function reportRemoved(command: ManagerCommand, tasks: readonly Task[]): number {
  const running = tasks.filter((task) => task.status === "indexing").length;
  print(command, { count: tasks.length, dry_run: false, tasks }, () =>
    tasks.length === 0
      ? "no task matches"
      : `removed ${counted(tasks.length, "task")}${running > 0 ? `, ${counted(running, "running build")} cancelled` : ""}`,
  );
  return 0;
}

/** The queue in the order of dispatch. */
export async function listQueue(command: ManagerCommand & { limit: number }): Promise<number> {
  const { api, limit, signal } = command;
  const pages = await api.queue({ limit, signal });
  const { items: tasks, total = tasks.length, nextCursor } = pages;
  print(command, { count: total, tasks, next_cursor: nextCursor }, () =>
    total === 0
      ? "the queue is empty"
      : formatTable(
          ["#", "task", "priority", "mode", "list", "created", "attempts", "not before"],
          tasks.map((task, place) => [
            String(place + 1),
            task.task_id,
            task.priority,
            task.mode,
            task.content.list_id,
            task.create_time,
            String(task.attempt),
            task.not_before ?? "",
          ]),
        ),
  );
  noteMore(pages, "pending tasks");
  return 0;
}

function taskTable(tasks: readonly Task[]): string {
  return formatTable(
    ["task", "status", "mode", "priority", "list", "created", "indexer", "progress or error"],
    tasks.map((task) => [
      task.task_id,
      task.status,
      task.mode,
      task.priority,
      task.content.list_id,
      task.create_time,
      task.indexer ?? "",
      note(task),
    ]),
  );
}

function taskFields(task: Task): string {
  return formatFields([
    ["task", task.task_id],
    ["list", task.content.list_id],
    ["status", task.status],
    ["mode", task.mode],
    ["priority", task.priority],
    ["asked for by", task.trigger],
    ["created", task.create_time],
    ["started", task.start_time],
    ["ended", task.end_time],
    ["attempts", String(task.attempt)],
    ["not before", task.not_before],
    ["indexer", task.indexer],
    ["progress", task.error === null ? note(task) : null],
    ["error", task.error === null ? null : note(task)],
  ]);
}

function note(task: Task): string {
  if (task.error !== null) return `${task.error.error_code} ${task.error.desc}: ${task.error.detail}`;
  if (task.status !== "indexing" || task.progress === null) return "";
  const { phase, done, total, rate_per_s, eta_s } = task.progress;
  const rate = rate_per_s === null ? "" : `, ${Math.round(rate_per_s)}/s`;
  return `${phase} ${done}/${total}${rate}${eta_s === null ? "" : `, ${Math.ceil(eta_s)} s left`}`;
}
