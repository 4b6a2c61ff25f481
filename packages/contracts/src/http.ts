import { z } from "zod";
import { uuidSchema } from "./ids.ts";
import { buildModeSchema, engineNameSchema, indexMetaSchema } from "./index-meta.ts";
import { callerPrioritySchema, taskSchema, timeSchema } from "./task.ts";

/** Bodies of the Index Manager's HTTP API, version 1. Lists are paged: `next_cursor` is null on the last page. */
export const createTaskBodySchema = z.strictObject({
  list_id: uuidSchema,
  mode: buildModeSchema.default("rebuild"),
  priority: callerPrioritySchema.default("default"),
});
export type CreateTaskBody = z.infer<typeof createTaskBodySchema>;

const cursorSchema = z.string().nullable();
const countSchema = z.int().nonnegative();

/** `count`: tasks in this answer. */
export const tasksResponseSchema = z.object({
  count: countSchema,
  tasks: z.array(taskSchema),
  next_cursor: cursorSchema,
});
/** `count`: pending tasks in all. */
export const queueResponseSchema = tasksResponseSchema;

export const removeTasksResponseSchema = z.object({
  /** Removed, or with `dry_run` to be removed. */
  count: countSchema,
  dry_run: z.boolean(),
  /** As they were. */
  tasks: z.array(taskSchema),
  /** Others match too: one call removes a limited number. */
  more: z.boolean(),
});

export const indexSummarySchema = z.object({
  index_id: uuidSchema,
  index_type: z.literal("list"),
  label: uuidSchema,
  descriptor_version: countSchema,
  dim: z.int().positive(),
  engine: engineNameSchema,
  /** Bytes of all its files. */
  size: countSchema,
  count: countSchema,
  revision: countSchema,
  mode: buildModeSchema,
  base_index_id: uuidSchema.nullable(),
  removed_since_rebuild: countSchema,
  create_time: indexMetaSchema.shape.create_time,
  /** Milliseconds of each phase of its build. */
  phases_ms: indexMetaSchema.shape.build.shape.phases,
});
export type IndexSummary = z.infer<typeof indexSummarySchema>;
/** `count`: indexes that match in all. */
export const indexesResponseSchema = z.object({
  count: countSchema,
  indexes: z.array(indexSummarySchema),
  next_cursor: cursorSchema,
});

export const removalPolicySchema = z.enum(["all", "outdated"]);
export const removeIndexesResponseSchema = z.object({
  /** Removed, or with `dry_run` to be removed. */
  count: countSchema,
  policy: removalPolicySchema,
  dry_run: z.boolean(),
  indexes: z.array(indexSummarySchema),
  /** Labels whose indexes were left alone because a task may be building from one of them. */
  busy_labels: z.array(uuidSchema),
});

export const planDecisionSchema = z.object({
  list_id: uuidSchema,
  action: z.enum(["create", "skip"]),
  /** Null where nothing would be built. */
  mode: buildModeSchema.nullable(),
  reason: z.string(),
  /** The reason with its numbers, for people. */
  detail: z.string(),
  /** The open task that the list has already. */
  task_id: uuidSchema.nullable(),
  face_count: countSchema.nullable(),
  list_revision: countSchema.nullable(),
  newest_index_id: uuidSchema.nullable(),
  newest_revision: countSchema.nullable(),
});
export const planResponseSchema = z.object({
  /** Whether the master plans at its next look. */
  due: z.boolean(),
  last_plan_time: timeSchema.nullable(),
  /** Null where the schedule names no moment in the next 400 days. */
  next_plan_time: timeSchema.nullable(),
  /** Lists considered in all, and what the plan would do with them. */
  count: countSchema,
  creates: countSchema,
  skips: countSchema,
  decisions: z.array(planDecisionSchema),
  next_cursor: cursorSchema,
});
export type PlanResponse = z.infer<typeof planResponseSchema>;

/** What the next run of retention would remove, and why. Lists of ids are cut at a named limit; counts are not. */
export const retentionResponseSchema = z.object({
  tasks: z.object({
    /** Ended tasks on record. */
    count: countSchema,
    remove: countSchema,
    keep: countSchema,
    retention_s: countSchema,
  }),
  indexes: z.object({
    keep_versions: countSchema,
    remove: z.array(
      z.object({ index_id: uuidSchema, label: uuidSchema, reason: z.enum(["outdated", "list deleted"]) }),
    ),
  }),
  /** Labels with indexes whose list is gone, and when their indexes go. */
  missing_lists: z.array(
    z.object({ label: uuidSchema, missing_since: timeSchema.nullable(), remove_time: timeSchema.nullable() }),
  ),
  dead_letters: z.object({ count: countSchema, remove: countSchema, retention_s: countSchema }),
  /** Lists whose change feed would be shortened up to a revision, where its rows are old enough. */
  feeds: z.object({
    retention_s: countSchema,
    compact: z.array(z.object({ list_id: uuidSchema, up_to_revision: countSchema })),
  }),
  /** Left-overs in the storage: staging folders, removed indexes past their grace, old marks. */
  garbage: z.object({ staging: countSchema, trash: countSchema, marks: countSchema }),
});
export type RetentionResponse = z.infer<typeof retentionResponseSchema>;

/**
 * Events of `GET /1/tasks/{task_id}/progress` (server-sent events). `progress`: whenever something changed, monotone in
 * (attempt, phase, done). `end`: the task as it ended, last. `removed`: its record is gone, last.
 */
export const taskProgressEventSchema = z.object({
  task_id: uuidSchema,
  status: taskSchema.shape.status,
  attempt: taskSchema.shape.attempt,
  progress: taskSchema.shape.progress,
});

export const versionResponseSchema = z.object({ service: z.string(), version: z.string() });
export const healthResponseSchema = z.object({
  status: z.enum(["ok", "failing"]),
  /** Component → "ok" or the reason. */
  components: z.record(z.string(), z.string()),
});
