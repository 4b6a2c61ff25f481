import { z } from "zod";
import { uuidSchema } from "./ids.ts";
import { buildModeSchema, buildParamsSchema, engineNameSchema, skippedSchema } from "./index-meta.ts";
import { limits } from "./limits.ts";

export const errorBodySchema = z.object({
  error_code: z.int(),
  desc: z.string(),
  detail: z.string(),
  link: z.string().optional(),
});

export const taskStatusSchema = z.enum(["pending", "indexing", "success", "error"]);
export type TaskStatus = z.infer<typeof taskStatusSchema>;
export const taskTriggerSchema = z.enum(["plan", "request"]);
export type TaskTrigger = z.infer<typeof taskTriggerSchema>;

/** From last served to first. `maximum` is LIM's own: no caller may ask for it. */
export const priorities = [
  "lowest",
  "lower",
  "low",
  "default",
  "high",
  "higher",
  "highest",
  "maximum",
] as const;
export const prioritySchema = z.enum(priorities);
export type Priority = z.infer<typeof prioritySchema>;
export const callerPrioritySchema = prioritySchema.exclude(["maximum"]);

export const buildPhases = ["snapshot", "build", "verify", "store", "publish"] as const;
export const progressSchema = z.object({
  phase: z.enum(buildPhases),
  done: z.int().nonnegative(),
  total: z.int().nonnegative(),
  /** Units (descriptors, bytes) per second in this phase; null while unknown. */
  rate_per_s: z.number().nonnegative().nullable(),
  eta_s: z.number().nonnegative().nullable(),
});
export type Progress = z.infer<typeof progressSchema>;

export const timeSchema = z.iso.datetime();

export const taskSchema = z.object({
  task_id: uuidSchema,
  status: taskStatusSchema,
  create_time: timeSchema,
  start_time: timeSchema.nullable(),
  end_time: timeSchema.nullable(),
  /** Origin (`http://host:port`) of the indexer that has or had it. */
  indexer: z.string().nullable(),
  error: errorBodySchema.nullable(),
  content: z.object({ list_id: uuidSchema }),
  mode: buildModeSchema,
  trigger: taskTriggerSchema,
  priority: prioritySchema,
  /** Pending after a failed attempt: not dispatched before this time (Redis' clock). */
  not_before: timeSchema.nullable(),
  /** Dispatches so far: 0 while never dispatched. */
  attempt: z.int().nonnegative(),
  progress: progressSchema.nullable(),
  /** Descriptors that its build left out, by reason; null until it ended, and where its indexer did not tell. */
  skipped: skippedSchema.nullable().default(null),
});
export type Task = z.infer<typeof taskSchema>;

/** Body of the indexer's `POST /index_list`. The index id is the task id. */
export const buildRequestSchema = z.strictObject({
  task_id: uuidSchema,
  list_id: uuidSchema,
  attempt: z.int().positive(),
  /** Fencing: an indexer refuses an epoch lower than the highest it has seen. */
  epoch: z.int().positive(),
  mode: buildModeSchema,
  engine: engineNameSchema,
  params: buildParamsSchema,
  descriptor_version: z.int().nonnegative(),
  dim: z.int().min(limits.minDim).max(limits.maxDim),
});
export type BuildRequest = z.infer<typeof buildRequestSchema>;

/** Body of the indexer's `POST /stop`. A stop for another task or attempt than the running one changes nothing. */
export const stopRequestSchema = z.strictObject({
  task_id: uuidSchema,
  attempt: z.int().positive(),
  epoch: z.int().positive(),
});

export const buildOutcomeSchema = z.object({
  task_id: uuidSchema,
  list_id: uuidSchema,
  attempt: z.int().positive(),
  status: z.enum(["success", "error"]),
  error: errorBodySchema.nullable(),
  end_time: timeSchema,
  /** Descriptors left out, by reason; null where the build did not come to read its list. */
  skipped: skippedSchema.nullable().default(null),
});
export type BuildOutcome = z.infer<typeof buildOutcomeSchema>;

/** Answer of the indexer's `GET /state`. `boot_id` changes with every start, so a restart is told from a pause. */
export const indexerStateSchema = z.object({
  boot_id: uuidSchema,
  state: z.enum(["idle", "building", "draining"]),
  task_id: uuidSchema.nullable(),
  list_id: uuidSchema.nullable(),
  attempt: z.int().positive().nullable(),
  mode: buildModeSchema.nullable(),
  start_time: timeSchema.nullable(),
  progress: progressSchema.nullable(),
  /** The last builds that ended here, newest first; at most `maxReportedOutcomes`. */
  outcomes: z.array(buildOutcomeSchema),
});
export type IndexerState = z.infer<typeof indexerStateSchema>;
export const maxReportedOutcomes = 16;
