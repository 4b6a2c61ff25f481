import { z } from "zod";

export const severitySchema = z.enum(["error", "warning", "info"]);
export type Severity = z.infer<typeof severitySchema>;

export const findingSchema = z.strictObject({
  severity: severitySchema,
  /** Stable: for scripts. */
  code: z.string().regex(/^[a-z_]+$/),
  message: z.string(),
  numbers: z.record(z.string(), z.number()),
  /** Some of the faces, files or folders it is about. */
  examples: z.array(z.string()),
  /** What to do; empty where nothing is to be done. */
  remedy: z.string(),
});
export type Finding = z.infer<typeof findingSchema>;

export const partNames = ["files", "ids", "list", "vectors", "graph", "recall"] as const;
export type PartName = (typeof partNames)[number];
const partSchema = z.strictObject({
  checked: z.boolean(),
  /** Why not. */
  reason: z.string().optional(),
});

export const indexCheckSchema = z.strictObject({
  index_id: z.string(),
  label: z.string(),
  engine: z.string().nullable(),
  count: z.int().nullable(),
  revision: z.int().nullable(),
  create_time: z.string().nullable(),
  /** Whether it is the newest of its label and descriptor version. */
  newest: z.boolean(),
  parts: z.record(z.enum(partNames), partSchema),
  /** What was measured, also where nothing is wrong. */
  measured: z.record(z.string(), z.number()),
  findings: z.array(findingSchema),
});
export type IndexCheck = z.infer<typeof indexCheckSchema>;

export const checkReportSchema = z.strictObject({
  report_version: z.literal(1),
  time: z.iso.datetime(),
  storage_root: z.string(),
  seed: z.int(),
  sample: z.int(),
  /** Whether the lists in Postgres were compared. */
  database: z.boolean(),
  indexes: z.array(indexCheckSchema),
  /** What concerns no single index. */
  storage: z.array(findingSchema),
  summary: z.strictObject({
    indexes: z.int(),
    clean: z.int(),
    errors: z.int(),
    warnings: z.int(),
    duration_ms: z.int(),
  }),
  /** What ended the check before its end. */
  failure: z.strictObject({ error_code: z.int(), desc: z.string(), detail: z.string() }).nullable(),
  exit_code: z.int(),
});
export type CheckReport = z.infer<typeof checkReportSchema>;

export function finding(
  severity: Severity,
  code: string,
  message: string,
  more: { numbers?: Record<string, number>; examples?: readonly string[]; remedy?: string } = {},
): Finding {
  const { numbers = {}, examples = [], remedy = "" } = more;
  return { severity, code, message, numbers, examples: [...examples], remedy };
}

/** 0 clean, 1 errors (with `strict` warnings too), 3 not everything could be checked. */
export function exitCodeOf(counts: { errors: number; warnings: number; failed: boolean }, strict: boolean) {
  if (counts.failed) return 3;
  return counts.errors > 0 || (strict && counts.warnings > 0) ? 1 : 0;
}

export function summarise(
  indexes: readonly IndexCheck[],
  storage: readonly Finding[],
  durationMs: number,
): CheckReport["summary"] {
  const all = [...indexes.flatMap(({ findings }) => findings), ...storage];
  const having = (severity: Severity) => all.filter((one) => one.severity === severity).length;
  return {
    indexes: indexes.length,
    clean: indexes.filter(({ findings }) => findings.every(({ severity }) => severity === "info")).length,
    errors: having("error"),
    warnings: having("warning"),
    duration_ms: Math.round(durationMs),
  };
}
