import { connectSql } from "@lim/local-servers";
import { eventually } from "@lim/testkit";
import { type Findings, textOf } from "./findings.ts";
import { isAlive, processesMarked } from "./processes.ts";

const orphanLimitMs = 20_000;
const sessionsLimitMs = 20_000;

/** Marks the processes of a run; what is marked and still lives in the end is an orphan. */
export const markOf = (mark: string): string => `LIM_CHAOS_RUN=${mark}`;

/** All services have ended: none of the marked processes lives on. */
export async function judgeProcesses(mark: string, findings: Findings): Promise<void> {
  const left = await processesMarked(mark);
  if (left === undefined)
    findings.skipped.add("orphans: this system does not show environments of processes");
  for (const one of left ?? [])
    await eventually("it ends", async () => ((await isAlive(one)) ? undefined : true), {
      timeoutMs: orphanLimitMs,
    }).catch(() => findings.violation(`process ${one.pid} is left: ${one.commandLine}`));
}

/** All services have ended: none has a session on the database any more. */
export async function judgeSessions(databaseUrl: string, findings: Findings): Promise<void> {
  const sql = await connectSql(databaseUrl);
  try {
    await eventually(
      "Postgres has no session of a service",
      async () => {
        const rows = await sql.query(
          "SELECT application_name, state, query FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%index%'",
        );
        if (rows.length > 0) throw new Error(JSON.stringify(rows).slice(0, 500));
        return true;
      },
      { timeoutMs: sessionsLimitMs, intervalMs: 250 },
    ).catch((error: unknown) => findings.violation(textOf(error)));
  } finally {
    await sql.close();
  }
}
