import { openFacesDb } from "@lim/faces-db";

/** Applies the migrations that Postgres lacks. Exit code 0, also where it lacked none. */
export async function runMigrate(command: {
  databaseUrl: string;
  json: boolean;
  signal: AbortSignal;
}): Promise<number> {
  const db = openFacesDb({ connectionString: command.databaseUrl, applicationName: "lim migrate" });
  try {
    const { applied } = await db.migrate({ signal: command.signal });
    if (command.json) console.log(JSON.stringify({ applied }));
    else console.log(applied.length === 0 ? "nothing to migrate" : `applied: ${applied.join(", ")}`);
    return 0;
  } finally {
    await db.close();
  }
}
