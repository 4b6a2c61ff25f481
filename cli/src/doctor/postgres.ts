import { type DatabaseReport, readDatabaseReport } from "@lim/faces-db";
import { type Finding, fail, ok, placeOf, reasonOf, warn } from "./finding.ts";

/** The oldest that its makers still mend. */
const minMajorVersion = 14;
/** What a small deployment's services and tools hold open. */
const enoughConnections = 20;

export interface PostgresProbe {
  findings: Finding[];
  report: DatabaseReport | undefined;
}

export async function probePostgres(url: string, timeoutMs: number): Promise<PostgresProbe> {
  const place = placeOf(url);
  try {
    const report = await readDatabaseReport({ connectionString: url, timeoutMs });
    return { findings: judgePostgres(report, place), report };
  } catch (thrown) {
    return { findings: [unreachable(place, reasonOf(thrown))], report: undefined };
  }
}

function unreachable(place: string, reason: string): Finding {
  if (/28P01|28000|no password supplied|client password must be a string/i.test(reason))
    return fail(
      "postgres",
      `${place} refuses the user or password of DATABASE_URL: ${reason}`,
      "mend DATABASE_URL; characters like @ : / # in a password are written %40 %3A %2F %23",
    );
  if (/3D000/.test(reason))
    return fail("postgres", `${place}: ${reason}`, "CREATE DATABASE …, or mend the name in DATABASE_URL");
  if (/ENOTFOUND|EAI_AGAIN/.test(reason))
    return fail(
      "postgres",
      `${place}: no such host (${reason})`,
      "mend the host of DATABASE_URL, or the name service",
    );
  if (/ECONNREFUSED/.test(reason))
    return fail("postgres", `nothing listens at ${place}`, "start Postgres, or mend DATABASE_URL");
  if (/53300/.test(reason))
    return fail(
      "postgres",
      `${place}: ${reason}`,
      "raise max_connections, or end sessions that nobody needs",
    );
  if (/42501/.test(reason))
    return fail(
      "postgres",
      `${place}: ${reason}`,
      "give the user of DATABASE_URL the rights on schema faces",
    );
  return fail(
    "postgres",
    `${place} does not answer: ${reason}`,
    "see whether Postgres runs, a firewall lies between, or it wants TLS (?sslmode=require)",
  );
}

export function judgePostgres(report: DatabaseReport, place: string): Finding[] {
  const { version, versionNumber, database, user, isReadOnly, freeConnections } = report;
  const server = `Postgres ${version} at ${place}, database ${database}, user ${user}`;
  return [
    Math.floor(versionNumber / 10_000) >= minMajorVersion
      ? ok("postgres", server)
      : warn("postgres", `${server}: an old version`, `run Postgres ${minMajorVersion} or newer`),
    isReadOnly
      ? fail("postgres.role", "it is read-only (a standby)", "let DATABASE_URL name the primary")
      : ok("postgres.role", "takes writes"),
    judgeMigrations(report),
    freeConnections >= enoughConnections
      ? ok("postgres.connections", `${freeConnections} connections free`)
      : warn(
          "postgres.connections",
          `${freeConnections} connections free, and each service takes up to ten`,
          "raise max_connections, or end sessions that nobody needs",
        ),
  ];
}

function judgeMigrations(report: DatabaseReport): Finding {
  const { missing, changed, unknown } = report.migrations;
  const apply = "lim migrate; an Index Manager, lim up or lim import does it, too";
  if (changed.length > 0)
    return fail(
      "postgres.migrations",
      `applied from other files than this release has: ${changed.join(", ")}`,
      "run the release that this database belongs to, or another database",
    );
  const { applied } = report.migrations;
  if (applied === 0) return warn("postgres.migrations", "an empty database: not migrated yet", apply);
  if (missing.length > 0)
    return fail("postgres.migrations", `not migrated: ${missing.join(", ")} missing`, apply);
  if (unknown.length > 0)
    return warn(
      "postgres.migrations",
      `migrated by a newer release: ${unknown.join(", ")}`,
      "bring this release up to the one that migrated it",
    );
  return ok("postgres.migrations", "migrated");
}
