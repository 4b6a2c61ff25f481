import { mkdir, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { type DemoReport, demoReportSchema } from "@lim/contracts";
import { say } from "./say.ts";

export type FigureName = keyof DemoReport["figures"];

/** Collects checks and figures; prints each check when it is known. */
export class ReportBuilder {
  readonly #checks: DemoReport["checks"] = [];
  readonly #figures: DemoReport["figures"] = {
    import_rows_per_s: null,
    build_per_s: null,
    build_per_s_bare: null,
    recall_at_10: null,
    match_rps: null,
    match_rps_bare: null,
    match_p50_ms: null,
    match_p99_ms: null,
    failed_matches: null,
    refresh_findable_p99_ms: null,
    takeover_ms: null,
    reload_failed: null,
    label_key_expiry_ms: null,
  };

  check(name: string, ok: boolean, figure: string): void {
    this.#checks.push({ name, ok, figure });
    say(`  ${ok ? "✔" : "✘"} ${name}: ${figure}`);
  }

  figure(name: FigureName, value: number): void {
    this.#figures[name] = Number.isFinite(value) ? Math.round(value * 10_000) / 10_000 : null;
  }

  addFailedMatches(count: number): void {
    this.#figures.failed_matches = (this.#figures.failed_matches ?? 0) + count;
  }

  build(): DemoReport {
    const ok = this.#checks.length > 0 && this.#checks.every((check) => check.ok);
    return demoReportSchema.parse({ version: 1, ok, checks: this.#checks, figures: this.#figures });
  }
}

export async function writeReport(path: string, report: DemoReport): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(`${path}.part`, `${JSON.stringify(report, null, 2)}\n`);
  await rename(`${path}.part`, path);
}
