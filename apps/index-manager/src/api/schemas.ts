import {
  createTaskBodySchema,
  defaults,
  indexesResponseSchema,
  indexSummarySchema,
  planDecisionSchema,
  planResponseSchema,
  queueResponseSchema,
  removeIndexesResponseSchema,
  removeTasksResponseSchema,
  retentionResponseSchema,
  taskSchema,
  tasksResponseSchema,
  uuidSchema,
} from "@lim/contracts";
import { z } from "zod";

const listId = "0b9a2c1e-5a55-4c0e-8f5a-6d1f2b3c4d5e";
const indexId = "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11";

const taskExample: z.input<typeof taskSchema> = {
  task_id: indexId,
  status: "indexing",
  create_time: "2026-11-21T10:00:00.000Z",
  start_time: "2026-11-21T10:00:01.000Z",
  end_time: null,
  indexer: "http://10.0.0.7:5180",
  error: null,
  content: { list_id: listId },
  mode: "rebuild",
  trigger: "plan",
  priority: "default",
  not_before: null,
  attempt: 1,
  progress: { phase: "build", done: 12_000, total: 20_000, rate_per_s: 950, eta_s: 8.4 },
  skipped: null,
};
const pendingExample: z.input<typeof taskSchema> = {
  ...taskExample,
  status: "pending",
  start_time: null,
  indexer: null,
  attempt: 0,
  progress: null,
};
const indexExample: z.input<typeof indexSummarySchema> = {
  index_id: indexId,
  index_type: "list",
  label: listId,
  descriptor_version: 1,
  dim: defaults.descriptorDim,
  engine: defaults.engine,
  size: 44_800_000,
  count: 20_000,
  revision: 20_000,
  mode: "rebuild",
  base_index_id: null,
  removed_since_rebuild: 0,
  create_time: "2026-11-21T10:00:25.000Z",
  phases_ms: { snapshot: 400, build: 21_000, verify: 900, store: 300, publish: 20 },
};

export const createTaskBody = createTaskBodySchema.meta({
  id: "CreateTask",
  example: { list_id: listId, mode: "rebuild", priority: "high" },
});
export const task = taskSchema.meta({
  id: "Task",
  description:
    "A build of one list's index. The index it publishes has the task's id. `not_before` is set while it pauses before another attempt.",
  example: taskExample,
});
export const tasks = z.object({ ...tasksResponseSchema.shape, tasks: z.array(task) }).meta({
  id: "Tasks",
  description: "`count` is that of this answer; `next_cursor` is null on the last page.",
  example: { count: 1, tasks: [taskExample], next_cursor: null },
});
export const queue = z.object({ ...queueResponseSchema.shape, tasks: z.array(task) }).meta({
  id: "Queue",
  description: "`count` is that of the whole queue; `next_cursor` is null on the last page.",
  example: { count: 1, tasks: [pendingExample], next_cursor: null },
});
export const removedTasks = z.object({ ...removeTasksResponseSchema.shape, tasks: z.array(task) }).meta({
  id: "RemovedTasks",
  description:
    "The removed tasks as they were, or with `dry_run` those that would be removed. `more`: others match too; ask again.",
  example: { count: 1, dry_run: false, tasks: [taskExample], more: false },
});

const indexSummary = indexSummarySchema.meta({
  id: "Index",
  description:
    "A published index. `size` is the bytes of all its files, `label` the id of its list, `phases_ms` the time that each phase of its build took.",
  example: indexExample,
});
export const indexes = z.object({ ...indexesResponseSchema.shape, indexes: z.array(indexSummary) }).meta({
  id: "Indexes",
  description: "`count` is of all that match; `next_cursor` is null on the last page.",
  example: { count: 1, indexes: [indexExample], next_cursor: null },
});
export const removedIndexes = z
  .object({ ...removeIndexesResponseSchema.shape, indexes: z.array(indexSummary) })
  .meta({
    id: "RemovedIndexes",
    description:
      "The removed indexes, or with `dry_run` those that would be removed. `busy_labels`: left alone, because a task may be building from one of their indexes.",
    example: { count: 1, policy: "outdated", dry_run: false, indexes: [indexExample], busy_labels: [] },
  });

const planExample: z.input<typeof planDecisionSchema> = {
  list_id: listId,
  action: "create",
  mode: "update",
  reason: "stale",
  detail: "the list is at revision 20150, its newest index at 20000",
  task_id: null,
  face_count: 20_120,
  list_revision: 20_150,
  newest_index_id: indexId,
  newest_revision: 20_000,
};
const planDecision = planDecisionSchema.meta({
  id: "PlanDecision",
  description: "What the next plan would do with one list, and why.",
  example: planExample,
});
export const plan = z.object({ ...planResponseSchema.shape, decisions: z.array(planDecision) }).meta({
  id: "Plan",
  description:
    "`count`, `creates` and `skips` are of all lists considered, whatever the filter; `next_cursor` is null on the last page.",
  example: {
    due: false,
    last_plan_time: "2026-11-21T10:00:00.000Z",
    next_plan_time: "2026-11-21T11:00:00.000Z",
    count: 1,
    creates: 1,
    skips: 0,
    decisions: [planExample],
    next_cursor: null,
  },
});
const retentionExample: z.input<typeof retentionResponseSchema> = {
  tasks: { count: 10_250, remove: 250, keep: 10_000, retention_s: 2_592_000 },
  indexes: { keep_versions: 2, remove: [{ index_id: indexId, label: listId, reason: "outdated" }] },
  missing_lists: [
    {
      label: "9c1d7a52-2f60-4b7e-a3c4-58f1e0d2b6a7",
      missing_since: "2026-11-21T09:30:00.000Z",
      remove_time: "2026-11-21T10:30:00.000Z",
    },
  ],
  dead_letters: { count: 3, remove: 1, retention_s: 86_400 },
  feeds: { retention_s: 86_400, compact: [{ list_id: listId, up_to_revision: 19_800 }] },
  garbage: { staging: 0, trash: 1, marks: 4 },
};
export const retention = retentionResponseSchema.meta({
  id: "Retention",
  description: "What the next run of retention would remove. Lists of ids are cut at 1000; counts are not.",
  example: retentionExample,
});
export const master = z.object({ is_master: z.boolean() }).meta({
  id: "Master",
  description: "Role of the manager that answered.",
  example: { is_master: true },
});

export const progressStream = z.string().meta({
  id: "TaskProgressStream",
  description:
    "Server-sent events. `progress`: JSON object with `task_id`, `status`, `attempt` and `progress`. `end`: the whole Task. `removed`: JSON object with `task_id`. Lines that begin with a colon are comments.",
  example: [
    "retry: 2000",
    "",
    "event: progress",
    `data: ${JSON.stringify({ task_id: indexId, status: "indexing", attempt: 1, progress: taskExample.progress })}`,
    "",
    "event: end",
    `data: ${JSON.stringify({
      ...taskExample,
      status: "success",
      end_time: "2026-11-21T10:00:25.000Z",
      progress: null,
    })}`,
    "",
    "",
  ].join("\n"),
});

export const taskParams = z.object({ task_id: uuidSchema.describe("Id of the task") });
export const indexParams = z.object({ index_id: uuidSchema.describe("Id of the index") });

export function json<Schema extends z.ZodType>(description: string, schema: Schema) {
  return { description, content: { "application/json": { schema } } };
}
