import { LimError, taskStatusSchema, uuidSchema } from "@lim/contracts";
import type { TaskFilter, TimeRange } from "@lim/coordination";
import { z } from "zod";
import { managerLimits } from "../limits.ts";

const uuidPattern = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
const maxOriginChars = 300;
const maxTimeChars = 64;

/** Up to `most` values, separated by commas: one parameter, however the client writes lists. */
function commaSeparated(pattern: string, most: number, what: string) {
  return z
    .string()
    .regex(
      new RegExp(`^(?:${pattern})(?:,(?:${pattern})){0,${most - 1}}$`),
      `must be 1 to ${most} ${what}, separated by commas`,
    )
    .describe(`Only tasks with one of these: 1 to ${most} ${what}, separated by commas`);
}

const timeQuery = (what: string) =>
  z.iso
    .datetime({
      offset: true,
      error:
        'must be a time of RFC 3339 with seconds and Z or an offset, like 2026-11-21T10:00:00Z (in an address "+" is written %2B)',
    })
    .max(maxTimeChars)
    .optional()
    .describe(`Only tasks ${what} (RFC 3339 with Z or an offset)`);

/** Every filter of "get tasks" and "remove tasks": one shape for both. */
export const filterShape = {
  task_ids: commaSeparated(uuidPattern, managerLimits.maxIdsPerFilter, "task ids").optional(),
  statuses: commaSeparated(
    taskStatusSchema.options.join("|"),
    managerLimits.maxIdsPerFilter,
    `statuses of ${taskStatusSchema.options.join(", ")}`,
  ).optional(),
  list_id: uuidSchema.optional().describe("Only tasks of this list"),
  indexer: z
    .string()
    .regex(
      /^https?:\/\/(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?\/?$/,
      "must be an origin like http://host:5180",
    )
    .max(maxOriginChars)
    .optional()
    .describe("Only tasks that this indexer has or had: its origin, like http://host:5180"),
  create_time__gte: timeQuery("created at this time or later"),
  create_time__lt: timeQuery("created before this time"),
  start_time__gte: timeQuery("started at this time or later"),
  start_time__lt: timeQuery("started before this time"),
  end_time__gte: timeQuery("that ended at this time or later"),
  end_time__lt: timeQuery("that ended before this time"),
};
const filterSchema = z.object(filterShape);
export type FilterQuery = z.infer<typeof filterSchema>;

/**
 * Milliseconds since 1970, rounded up: times of tasks have milliseconds, so of those at or after 0.0001 s the first is
 * that of 0.001 s, and none before 0.001 s is lost by it.
 */
export function millisOf(time: string): number {
  const beyondMillis = /\.\d{3}(\d+)/.exec(time)?.[1] ?? "";
  return Date.parse(time) + (/[1-9]/.test(beyondMillis) ? 1 : 0);
}

function rangeOf(query: FilterQuery, name: "create_time" | "start_time" | "end_time"): TimeRange | undefined {
  const [gte, lt] = [query[`${name}__gte`], query[`${name}__lt`]];
  if (gte === undefined && lt === undefined) return undefined;
  const range: TimeRange = {
    ...(gte === undefined ? {} : { gteMs: millisOf(gte) }),
    ...(lt === undefined ? {} : { ltMs: millisOf(lt) }),
  };
  if (range.gteMs !== undefined && range.ltMs !== undefined && range.gteMs >= range.ltMs)
    throw new LimError("bad_input", `querystring: ${name}__gte (${gte}) must be before ${name}__lt (${lt})`);
  return range;
}

/** As indexers spell theirs. What looks like an origin but can be none, like http://1.2.3.999, is that of no task. */
const originOf = (text: string) => (URL.canParse(text) ? new URL(text).origin : text);

/** The filter that a query asks for. Throws bad_input for a range without a moment in it. Pure. */
export function filterOf(query: FilterQuery): TaskFilter {
  const filter: TaskFilter = {};
  if (query.task_ids !== undefined) filter.taskIds = [...new Set(query.task_ids.toLowerCase().split(","))];
  if (query.statuses !== undefined)
    filter.statuses = [...new Set(query.statuses.split(","))].map((status) => taskStatusSchema.parse(status));
  if (query.list_id !== undefined) filter.listId = query.list_id;
  if (query.indexer !== undefined) filter.indexer = originOf(query.indexer);
  const [createTime, startTime, endTime] = [
    rangeOf(query, "create_time"),
    rangeOf(query, "start_time"),
    rangeOf(query, "end_time"),
  ];
  if (createTime) filter.createTime = createTime;
  if (startTime) filter.startTime = startTime;
  if (endTime) filter.endTime = endTime;
  return filter;
}

/** Whether the query narrows anything down. */
export function hasFilter(query: FilterQuery): boolean {
  return Object.keys(filterShape).some((name) => query[name as keyof FilterQuery] !== undefined);
}
