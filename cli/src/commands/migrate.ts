import { openFacesDb } from "@lim/faces-db";
import type { Command } from "commander";
import { helpBelow, jsonOption } from "../options.ts";
import { type Program, requireUrl } from "../program.ts";
import { print } from "./manager-command.ts";

export function addMigrateCommand(root: Command, { settings, act }: Program): void {
  const migrate = root
    .command("migrate")
    .description("make or complete the tables in Postgres; managers and imports do it, too")
    .addOption(jsonOption("print the result as JSON"));
  helpBelow(migrate, { examples: ["lim migrate"], environment: "DATABASE_URL." }).action(
    (options: { json: boolean }) =>
      act((signal) =>
        runMigrate({ ...options, databaseUrl: requireUrl("DATABASE_URL", settings.databaseUrl), signal }),
      ),
  );
}

/** Applies the migrations that Postgres lacks. Exit code 0, also where it lacked none. */
async function runMigrate(command: {
  databaseUrl: string;
  json: boolean;
  signal: AbortSignal;
}): Promise<number> {
  const db = openFacesDb({ connectionString: command.databaseUrl, applicationName: "lim migrate" });
  try {
    const { applied } = await db.migrate({ signal: command.signal });
    print(command, { applied }, () =>
      applied.length === 0 ? "nothing to migrate" : `applied: ${applied.join(", ")}`,
    );
    return 0;
  } finally {
    await db.close();
  }
}
