import { counted } from "../commands/manager-command.ts";
import type { DoctorReport, Finding, Status } from "./finding.ts";

const marks: Record<Status, string> = { ok: "✔", warn: "!", fail: "✘", skip: "–" };

/** One line for each finding, its remedy below it. */
export function doctorText({ findings, summary, duration_ms }: DoctorReport): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap((finding) => linesOf(finding, width));
  const skipped = summary.skip > 0 ? `, ${summary.skip} not looked at` : "";
  const verdict = `${counted(summary.fail, "failure")}, ${counted(summary.warn, "warning")}, ${summary.ok} fine${skipped}`;
  return `${lines.join("\n")}\n\n${verdict} (${(duration_ms / 1000).toFixed(1)} s)`;
}

function linesOf({ check, status, text, remedy }: Finding, width: number): string[] {
  const head = `${marks[status]} ${check.padEnd(width)}  ${text}`;
  return remedy === null ? [head] : [head, `  ${" ".repeat(width)}  → ${remedy}`];
}
