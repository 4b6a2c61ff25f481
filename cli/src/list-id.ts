import { LimError, uuidSchema } from "@lim/contracts";
import { type FacesDb, openFacesDb } from "@lim/faces-db";

/** Id of a list that is named by its id or name. */
export async function listIdOf(
  db: Pick<FacesDb, "findListByName">,
  nameOrId: string,
  signal: AbortSignal,
): Promise<string> {
  const asId = uuidSchema.safeParse(nameOrId);
  if (asId.success) return asId.data;
  const found = await db.findListByName({ name: nameOrId, signal });
  if (found === undefined) throw new LimError("list_not_found", `no list is called "${nameOrId}"`);
  return found.listId;
}

/** The same where no database is open: one is asked only for a name. */
export async function resolveListId(
  nameOrId: string,
  options: { databaseUrl: string | undefined; signal: AbortSignal },
): Promise<string> {
  const asId = uuidSchema.safeParse(nameOrId);
  if (asId.success) return asId.data;
  if (options.databaseUrl === undefined)
    throw new LimError(
      "bad_input",
      `"${nameOrId}" is no list id (UUID); to find a list by its name, set DATABASE_URL`,
    );
  const db = openFacesDb({ connectionString: options.databaseUrl, applicationName: "lim" });
  try {
    return await listIdOf(db, nameOrId, options.signal);
  } finally {
    await db.close();
  }
}
