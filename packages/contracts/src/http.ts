import { z } from "zod";
import { uuidSchema } from "./ids.ts";
import { buildModeSchema, engineNameSchema, indexMetaSchema } from "./index-meta.ts";
import { taskSchema } from "./task.ts";

/** Bodies of the Index Manager's HTTP API, version 1. */
export const createTaskBodySchema = z.strictObject({
  list_id: uuidSchema,
  mode: buildModeSchema.default("rebuild"),
});
export type CreateTaskBody = z.infer<typeof createTaskBodySchema>;

export const tasksResponseSchema = z.object({ count: z.int().nonnegative(), tasks: z.array(taskSchema) });
export const queueResponseSchema = tasksResponseSchema;

export const indexSummarySchema = z.object({
  index_id: uuidSchema,
  index_type: z.literal("list"),
  label: uuidSchema,
  descriptor_version: z.int().nonnegative(),
  engine: engineNameSchema,
  /** Bytes of all its files. */
  size: z.int().nonnegative(),
  count: z.int().nonnegative(),
  revision: z.int().nonnegative(),
  create_time: indexMetaSchema.shape.create_time,
});
export type IndexSummary = z.infer<typeof indexSummarySchema>;
export const indexesResponseSchema = z.object({
  count: z.int().nonnegative(),
  indexes: z.array(indexSummarySchema),
});

export const versionResponseSchema = z.object({ service: z.string(), version: z.string() });
export const healthResponseSchema = z.object({
  status: z.enum(["ok", "failing"]),
  /** Component → "ok" or the reason. */
  components: z.record(z.string(), z.string()),
});
