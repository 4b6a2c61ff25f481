import type { History, SeededTask } from "./history.ts";
import { uuidOf } from "./random.ts";

export interface Case {
  name: string;
  path: string;
}

const few = 20;
const idsPerFilter = 100;

const iso = (ms: number) => new Date(ms).toISOString();
const tasksAt = (query: Readonly<Record<string, string | number>>): string => {
  const text = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) text.set(name, String(value));
  return text.size > 0 ? `/1/tasks?${text}` : "/1/tasks";
};

/** Every filter, alone and together, with much, little and nothing to find. */
export function filterCases({ tasks, indexers }: History, random: () => number): Case[] {
  const one = tasks[0];
  const [frequent, rare] = [indexers[0], indexers.at(-1)];
  if (one === undefined || frequent === undefined || rare === undefined)
    throw new Error("there is no history");
  const byEnd = tasks.toSorted((a, b) => a.endMs - b.endMs);
  const byStart = tasks.toSorted((a, b) => a.startMs - b.startMs);
  const cases: [string, Record<string, string | number>][] = [
    ["no filter", {}],
    ["statuses=pending", { statuses: "pending" }],
    ["statuses=indexing (none)", { statuses: "indexing" }],
    ["statuses=success", { statuses: "success" }],
    ["statuses=error", { statuses: "error" }],
    ["statuses=success,error", { statuses: "success,error" }],
    ["list_id", { list_id: one.listId }],
    ["list_id (none)", { list_id: uuidOf(random) }],
    ["indexer (frequent)", { indexer: frequent }],
    ["indexer (rare)", { indexer: rare }],
    ["indexer (none)", { indexer: "http://indexer-none:5180" }],
    ...rangeCases("create_time", byStart, (task) => task.startMs),
    ...rangeCases("start_time", byStart, (task) => task.startMs),
    ...rangeCases("end_time", byEnd, (task) => task.endMs),
    [`task_ids (${idsPerFilter})`, { task_ids: sample(tasks, idsPerFilter, random).join(",") }],
    ["list_id, statuses=error", { list_id: one.listId, statuses: "error" }],
    ["indexer (rare), statuses=error", { indexer: rare, statuses: "error" }],
    [
      "indexer (frequent), end_time (the oldest few)",
      { indexer: frequent, end_time__lt: iso(at(byEnd, few).endMs) },
    ],
    [
      "statuses=error, create_time (little)",
      { statuses: "error", ...little("create_time", byStart, (task) => task.startMs) },
    ],
    [
      "task_ids, statuses, create_time",
      {
        task_ids: sample(tasks, idsPerFilter, random).join(","),
        statuses: "error",
        create_time__gte: iso(at(byStart, tasks.length / 2).startMs),
      },
    ],
    [
      "all filters but task_ids",
      {
        list_id: one.listId,
        indexer: one.indexer,
        statuses: one.status,
        create_time__gte: iso(one.startMs - 1_000),
        create_time__lt: iso(one.startMs + 1_000),
        start_time__gte: iso(one.startMs - 1_000),
        start_time__lt: iso(one.startMs + 1_000),
        end_time__gte: iso(one.endMs - 1_000),
        end_time__lt: iso(one.endMs + 1_000),
      },
    ],
    ["no filter, limit=1000", { limit: 1_000 }],
    ["statuses=error, limit=1000", { statuses: "error", limit: 1_000 }],
    ["indexer (rare), limit=1000", { indexer: rare, limit: 1_000 }],
  ];
  return [
    ...cases.map(([name, query]) => ({ name: `tasks: ${name}`, path: tasksAt(query) })),
    { name: "one task", path: `/1/tasks/${one.taskId}` },
  ];
}

const at = (tasks: readonly SeededTask[], place: number): SeededTask =>
  tasks[Math.min(Math.max(Math.floor(place), 0), tasks.length - 1)] as SeededTask;

/** A range that holds few tasks, in the middle of the history. */
function little(name: string, sorted: readonly SeededTask[], ms: (task: SeededTask) => number) {
  const middle = sorted.length / 2;
  return {
    [`${name}__gte`]: iso(ms(at(sorted, middle))),
    [`${name}__lt`]: iso(ms(at(sorted, middle + few))),
  };
}

function rangeCases(
  name: string,
  sorted: readonly SeededTask[],
  ms: (task: SeededTask) => number,
): [string, Record<string, string>][] {
  return [
    [`${name} (much)`, { [`${name}__gte`]: iso(ms(at(sorted, sorted.length / 10))) }],
    [`${name} (little)`, little(name, sorted, ms)],
    [`${name} (the oldest few)`, { [`${name}__lt`]: iso(ms(at(sorted, few))) }],
    [`${name} (none)`, { [`${name}__gte`]: "2001-01-01T00:00:00Z", [`${name}__lt`]: "2001-02-01T00:00:00Z" }],
  ];
}

function sample(tasks: readonly SeededTask[], count: number, random: () => number): string[] {
  return Array.from({ length: count }, () => at(tasks, random() * tasks.length).taskId);
}

export const queueCases: readonly Case[] = [
  { name: "queue", path: "/1/queue" },
  { name: "queue: limit=1000", path: "/1/queue?limit=1000" },
];
