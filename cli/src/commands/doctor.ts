import type { Command } from "commander";
import { runDoctor } from "../doctor/run.ts";
import { doctorText } from "../doctor/text.ts";
import { jsonOption, positive } from "../options.ts";
import type { Program } from "../program.ts";
import { print } from "./manager-command.ts";
import { instances } from "./up.ts";

const defaultTimeoutMs = 5_000;

export function addDoctorCommand(root: Command, { settings, ownSettings, act }: Program): void {
  root
    .command("doctor")
    .description("look at all that LIM rests on, and say what is wrong and what to do about it")
    .option("--timeout <ms>", "of each probe", positive, defaultTimeoutMs)
    .option("--strict", "warnings are failures too", false)
    .addOption(jsonOption("print the report as one JSON document"))
    .addHelpText(
      "after",
      `
Looks at Redis (version, noeviction, persistence, a write), Postgres (version, migrations), clocks, the storage (a
write, an atomic rename, free space), TMPDIR, the engines, the Index Manager and the ports that lim up takes. What is
not set is skipped. Nothing stays changed, and no password is shown.

Examples:
  lim doctor
  lim doctor --strict --json | jq '.findings[] | select(.status != "ok")'

Environment: REDIS_URL, DATABASE_URL, LIM_STORAGE_ROOT, LIM_MANAGER_URL, LIM_API_TOKEN, LIM_ENGINE, TMPDIR.
Exit codes: 0 no failure, 1 a failure (--strict: or a warning), 2 wrong use, 130 interrupted.`,
    )
    .action((options: { timeout: number; strict: boolean; json: boolean }) =>
      act(async (signal) => {
        const report = await runDoctor({
          ...settings,
          isOwnStack: settings !== ownSettings,
          ports: instances.map(({ kind, port }) => ({ service: kind, port })),
          timeoutMs: options.timeout,
          strict: options.strict,
          signal,
        });
        print(options, report, () => doctorText(report));
        // A probe that was given up may hold the process for as long as its server hangs.
        endSoon(report.exit_code);
        return report.exit_code;
      }),
    );
}

function endSoon(exitCode: number): void {
  setTimeout(() => process.exit(exitCode), 200).unref();
}
