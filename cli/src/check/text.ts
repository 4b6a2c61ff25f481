import { counted } from "../commands/manager-command.ts";
import { type CheckReport, type Finding, type IndexCheck, partNames } from "./report.ts";

const marks = { error: "✗", warning: "!", info: "·" } as const;

function findingLines({ severity, code, message, examples, remedy }: Finding): string[] {
  const lines = [`  ${marks[severity]} ${severity} ${code}: ${message}`];
  if (examples.length > 0) lines.push(`      such as ${examples.join(", ")}`);
  if (remedy !== "") lines.push(`      remedy: ${remedy}`);
  return lines;
}

function measuredLines(measured: IndexCheck["measured"]): string[] {
  const text = (value: number) => (Number.isInteger(value) ? String(value) : value.toPrecision(4));
  const parts = Object.entries(measured).map(
    ([name, value]) => `${name.replaceAll("_", " ")} ${text(value)}`,
  );
  return parts.length === 0 ? [] : [`  measured: ${parts.join(", ")}`];
}

function indexLines(check: IndexCheck): string[] {
  const about = [
    `list ${check.label}`,
    check.count === null ? "" : counted(check.count, "face"),
    check.revision === null ? "" : `revision ${check.revision}`,
    check.engine ?? "",
    check.newest ? "newest" : "",
  ];
  const checked = partNames.filter((name) => check.parts[name].checked);
  const reasons = new Map<string, string[]>();
  for (const name of partNames) {
    const { checked: isChecked, reason = "it was not reached" } = check.parts[name];
    if (!isChecked) reasons.set(reason, [...(reasons.get(reason) ?? []), name]);
  }
  return [
    `index ${check.index_id}`,
    `  ${about.filter((part) => part !== "").join(", ")}`,
    ...(checked.length > 0 ? [`  checked: ${checked.join(", ")}`] : []),
    ...[...reasons].map(([reason, names]) => `  not checked: ${names.join(", ")} (${reason})`),
    ...measuredLines(check.measured),
    ...check.findings.flatMap(findingLines),
  ];
}

/** One block for each index, one for the storage, a line that sums up. */
export function reportText(report: CheckReport): string {
  const { summary, failure } = report;
  const blocks = report.indexes.map((check) => indexLines(check).join("\n"));
  if (report.storage.length > 0) blocks.push(["storage", ...report.storage.flatMap(findingLines)].join("\n"));
  const last = [
    `${counted(summary.indexes, "index", "indexes")} checked in ${(summary.duration_ms / 1000).toFixed(1)} s: ` +
      `${summary.clean} clean, ${counted(summary.errors, "error")}, ${counted(summary.warnings, "warning")}`,
    `sample ${report.sample}, seed ${report.seed}${report.database ? "" : "; lists were not compared (--no-database)"}`,
  ];
  if (failure !== null)
    last.push(`could not go on: ${failure.desc}: ${failure.detail} (${failure.error_code})`);
  blocks.push(last.join("\n"));
  return blocks.join("\n\n");
}
