import { z } from "zod";

const figure = z.number().nullable();

/** `reports/demo.json`. Figures that were not reached are null. */
export const demoReportSchema = z.strictObject({
  version: z.literal(1),
  ok: z.boolean(),
  checks: z.array(z.strictObject({ name: z.string(), ok: z.boolean(), figure: z.string() })),
  figures: z.strictObject({
    import_rows_per_s: figure,
    build_per_s: figure,
    build_per_s_bare: figure,
    recall_at_10: figure,
    match_rps: figure,
    match_rps_bare: figure,
    match_p50_ms: figure,
    match_p99_ms: figure,
    failed_matches: figure,
    refresh_findable_p99_ms: figure,
    takeover_ms: figure,
    reload_failed: figure,
    label_key_expiry_ms: figure,
  }),
});
export type DemoReport = z.infer<typeof demoReportSchema>;
