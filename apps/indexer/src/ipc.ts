import { buildRequestSchema, errorBodySchema, progressSchema } from "@lim/contracts";
import { z } from "zod";

/** What the service sends its build process, once, as the first message. */
export const buildOrderSchema = z.strictObject({
  type: z.literal("build"),
  request: buildRequestSchema,
  databaseUrl: z.string(),
  storageRoot: z.string(),
  memoryLimitBytes: z.int().positive(),
  logLevel: z.string(),
});
export type BuildOrder = z.infer<typeof buildOrderSchema>;

/** What the build process tells: progress any number of times, then exactly one of published and failed. */
export const buildReportSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), progress: progressSchema }),
  z.object({ type: z.literal("published"), count: z.int(), revision: z.int(), sizeBytes: z.int() }),
  z.object({ type: z.literal("failed"), error: errorBodySchema }),
]);
export type BuildReport = z.infer<typeof buildReportSchema>;
