import {
  defaults,
  indexesResponseSchema,
  indexSummarySchema,
  taskSchema,
  taskStatusSchema,
  tasksResponseSchema,
  uuidSchema,
} from "@lim/contracts";
import { z } from "zod";
import { managerLimits } from "../limits.ts";

const taskExample = {
  task_id: "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11",
  status: "indexing" as const,
  create_time: "2026-11-21T10:00:00.000Z",
  start_time: "2026-11-21T10:00:01.000Z",
  end_time: null,
  indexer: "http://10.0.0.7:5180",
  error: null,
  content: { list_id: "0b9a2c1e-5a55-4c0e-8f5a-6d1f2b3c4d5e" },
  mode: "rebuild" as const,
  trigger: "plan" as const,
  attempt: 1,
  progress: { phase: "build" as const, done: 12_000, total: 20_000, rate_per_s: 950, eta_s: 8.4 },
};
const indexExample = {
  index_id: "5f0b1b0e-8a1f-4f0e-9d0c-0d1f6f0a7c11",
  index_type: "list" as const,
  label: "0b9a2c1e-5a55-4c0e-8f5a-6d1f2b3c4d5e",
  descriptor_version: 1,
  engine: defaults.engine,
  size: 44_800_000,
  count: 20_000,
  revision: 20_000,
  create_time: "2026-11-21T10:00:25.000Z",
};

export const task = taskSchema.meta({
  id: "Task",
  description: "A build of one list's index. The index it publishes has the task's id.",
  example: taskExample,
});
export const tasks = z.object({ ...tasksResponseSchema.shape, tasks: z.array(task) }).meta({
  id: "Tasks",
  example: { count: 1, tasks: [taskExample] },
});
const indexSummary = indexSummarySchema.meta({
  id: "Index",
  description: "A published index. `size` is the bytes of all its files, `label` the id of its list.",
  example: indexExample,
});
export const indexes = z.object({ ...indexesResponseSchema.shape, indexes: z.array(indexSummary) }).meta({
  id: "Indexes",
  example: { count: 1, indexes: [indexExample] },
});
export const master = z
  .object({ is_master: z.boolean() })
  .meta({ id: "Master", example: { is_master: true } });

/** Up to `maxIdsPerFilter` values of `item`, separated by commas: one parameter, however the client writes lists. */
function commaSeparated<Item extends z.ZodType<string>>(item: Item, what: string) {
  return z
    .string()
    .superRefine((text, context) => {
      const parts = text.split(",");
      if (
        parts.length > managerLimits.maxIdsPerFilter ||
        !parts.every((part) => item.safeParse(part).success)
      )
        context.addIssue({
          code: "custom",
          message: `must be 1 to ${managerLimits.maxIdsPerFilter} ${what}, separated by commas`,
        });
    })
    .describe(`${what}, separated by commas`);
}

export const taskQuery = z.strictObject({
  task_ids: commaSeparated(uuidSchema, "task ids").optional(),
  statuses: commaSeparated(taskStatusSchema, `statuses of ${taskStatusSchema.options.join(", ")}`).optional(),
  list_id: uuidSchema.optional(),
  limit: z.coerce
    .number()
    .int()
    .min(1)
    .max(managerLimits.maxTasksPerAnswer)
    .default(100)
    .describe("Most tasks in the answer"),
});
export const queueQuery = taskQuery.pick({ limit: true });
export const labelQuery = z.strictObject({
  label: uuidSchema.optional().describe("Only indexes of this list"),
});
export const taskParams = z.object({ task_id: uuidSchema });
export const indexParams = z.object({ index_id: uuidSchema });

export function parts(text: string | undefined): string[] | undefined {
  return text?.split(",").map((part) => part.toLowerCase());
}

export function json<Schema extends z.ZodType>(description: string, schema: Schema) {
  return { description, content: { "application/json": { schema } } };
}
