import {
  buildRequestSchema,
  errorBodySchema,
  progressSchema,
  skippedSchema,
  uuidSchema,
} from "@lim/contracts";
import { savedIndexSchema } from "@lim/index-storage";
import { z } from "zod";

/** What the service sends its build process, once, as the first message. */
export const buildOrderSchema = z.strictObject({
  type: z.literal("build"),
  request: buildRequestSchema,
  /** Name of its folder in the staging. */
  work: uuidSchema,
  databaseUrl: z.string(),
  storageRoot: z.string(),
  memoryLimitBytes: z.int().positive(),
  /** At which its list is read at most; 0 = no limit. */
  snapshotBytesPerS: z.int().min(0),
  logLevel: z.string(),
});
export type BuildOrder = z.infer<typeof buildOrderSchema>;

/** What it sends the publish process, once the build process has saved its index and is gone. */
export const publishOrderSchema = z.strictObject({
  type: z.literal("publish"),
  saved: savedIndexSchema,
  storageRoot: z.string(),
  logLevel: z.string(),
});
export type PublishOrder = z.infer<typeof publishOrderSchema>;

/**
 * What the processes of a build tell: progress any number of times, then exactly one last word. That of the build process
 * is saved, failed, or published where an earlier attempt had published already; that of the publish process is
 * published or failed.
 */
export const buildReportSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), progress: progressSchema }),
  z.object({ type: z.literal("saved"), saved: savedIndexSchema }),
  z.object({
    type: z.literal("published"),
    count: z.int(),
    revision: z.int(),
    sizeBytes: z.int(),
    skipped: skippedSchema,
    /** Milliseconds of each phase. */
    phases: z.record(z.string(), z.number().nonnegative()),
  }),
  z.object({ type: z.literal("failed"), error: errorBodySchema }),
]);
export type BuildReport = z.infer<typeof buildReportSchema>;
export type PublishedReport = BuildReport & { type: "published" };
