import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { LimError } from "@lim/contracts";
import type { Database } from "./database.ts";
import type { Cancellable } from "./port.ts";

const folder = new URL("../migrations/", import.meta.url);
/** Any constant that nothing else locks. */
const migrationLock = "7309453672519001";

interface Migration {
  name: string;
  sql: string;
  checksum: string;
}

export async function readMigrations(from: URL = folder): Promise<Migration[]> {
  const names = (await readdir(from)).filter((name) => /^\d{4}_\w+\.sql$/.test(name)).sort();
  return await Promise.all(
    names.map(async (name) => {
      const sql = await readFile(new URL(name, from), "utf8");
      // Line ends differ between checkouts and mean nothing.
      const checksum = createHash("sha256").update(sql.replaceAll("\r\n", "\n")).digest("hex");
      return { name, sql, checksum };
    }),
  );
}

/** All missing migrations in one transaction. Migrations of a newer release are left alone. */
export async function migrate(
  database: Database,
  options: Cancellable = {},
  from: URL = folder,
): Promise<{ applied: string[] }> {
  const migrations = await readMigrations(from);
  return await database.transaction(options, async (session) => {
    await session.query("SELECT pg_advisory_xact_lock($1)", [migrationLock]);
    const { rows: found } = await session.query("SELECT to_regclass('faces.schema_migration') AS name");
    if (found[0]?.name === null) {
      await session.query("CREATE SCHEMA IF NOT EXISTS faces");
      await session.query(
        "CREATE TABLE faces.schema_migration (name text PRIMARY KEY, checksum text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now())",
      );
    }
    const { rows } = await session.query<{ name: string; checksum: string }>(
      "SELECT name, checksum FROM faces.schema_migration",
    );
    const known = new Map(rows.map((row) => [row.name, row.checksum]));
    const applied: string[] = [];
    for (const { name, sql, checksum } of migrations) {
      const recorded = known.get(name);
      if (recorded === checksum) continue;
      if (recorded !== undefined)
        throw new LimError(
          "bad_settings",
          `migration ${name} was changed after it was applied to this database: restore the file and add a new migration instead`,
        );
      await session.query(sql);
      await session.query("INSERT INTO faces.schema_migration (name, checksum) VALUES ($1, $2)", [
        name,
        checksum,
      ]);
      applied.push(name);
    }
    return { applied };
  });
}
