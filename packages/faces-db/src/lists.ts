import { LimError, uuidSchema } from "@lim/contracts";
import type { Database, Session } from "./database.ts";
import { facesDbLimits } from "./limits.ts";
import type { Cancellable, ListState } from "./port.ts";

interface ListRow {
  list_id: string;
  history_id: string;
  name: string;
  revision: string;
  face_count: string;
  removed_total: string;
  compacted_revision: string;
}

/** Columns of ListState: a list and its newest feed row. */
const stateQuery = `
  SELECT l.list_id, l.history_id, l.name, l.compacted_revision,
         coalesce(h.revision, 0) AS revision, coalesce(h.face_count, 0) AS face_count,
         coalesce(h.removed_total, 0) AS removed_total
  FROM faces.list l
  LEFT JOIN LATERAL (
    SELECT c.revision, c.face_count, c.removed_total FROM faces.list_change c
    WHERE c.list_id = l.list_id ORDER BY c.revision DESC LIMIT 1
  ) h ON true`;

function toState(row: ListRow): ListState {
  const compacted = Number(row.compacted_revision);
  return {
    listId: row.list_id,
    historyId: row.history_id,
    name: row.name,
    revision: Number(row.revision),
    faceCount: Number(row.face_count),
    removedTotal: Number(row.removed_total),
    oldestKeptRevision: compacted === 0 ? 0 : compacted + 1,
  };
}

export function checkUuid(text: string, what: string): string {
  const parsed = uuidSchema.safeParse(text);
  if (!parsed.success) throw new LimError("bad_input", `${what} "${text.slice(0, 80)}" is not a UUID`);
  return parsed.data;
}

export function checkUuids(texts: readonly string[], what: string): string[] {
  if (texts.length > facesDbLimits.maxIdsPerCall)
    throw new LimError(
      "bad_input",
      `${texts.length} ids in one call, at most ${facesDbLimits.maxIdsPerCall}`,
    );
  return texts.map((text) => checkUuid(text, what));
}

export function checkInteger(value: number, what: string, min: number, max: number): number {
  if (!Number.isSafeInteger(value) || value < min || value > max)
    throw new LimError("bad_input", `${what} must be an integer from ${min} to ${max}, not ${value}`);
  return value;
}

export async function readListState(session: Session, listId: string): Promise<ListState> {
  const { rows } = await session.query<ListRow>(`${stateQuery} WHERE l.list_id = $1`, [listId]);
  const [row] = rows;
  if (row === undefined) throw new LimError("list_not_found", `list ${listId} does not exist`);
  return toState(row);
}

export async function createList(
  database: Database,
  options: Cancellable & { listId?: string; name: string; accountId?: string },
): Promise<ListState> {
  const listId = options.listId === undefined ? null : checkUuid(options.listId, "list id");
  if (options.name === "" || options.name.length > facesDbLimits.maxNameChars)
    throw new LimError("bad_input", `a list's name has 1 to ${facesDbLimits.maxNameChars} characters`);
  return await database.transaction(options, async (session) => {
    const { rows } = await session.query<{ list_id: string }>(
      `INSERT INTO faces.list (list_id, name, account_id) VALUES (coalesce($1::uuid, gen_random_uuid()), $2, $3)
       ON CONFLICT DO NOTHING RETURNING list_id`,
      [listId, options.name, options.accountId ?? ""],
    );
    const [row] = rows;
    if (row === undefined) throw new LimError("bad_input", `list ${listId} exists already`);
    return await readListState(session, row.list_id);
  });
}

export async function deleteList(
  database: Database,
  options: Cancellable & { listId: string },
): Promise<boolean> {
  const listId = checkUuid(options.listId, "list id");
  return await database.statement(options, async (session) => {
    const { rowCount } = await session.query("DELETE FROM faces.list WHERE list_id = $1", [listId]);
    return rowCount === 1;
  });
}

/** Names are not unique: the oldest list of the name. */
export async function findListByName(
  database: Database,
  options: Cancellable & { name: string },
): Promise<ListState | undefined> {
  return await database.run(options.signal, async (session) => {
    const { rows } = await session.query<ListRow>(
      `${stateQuery} WHERE l.name = $1 ORDER BY l.create_time, l.list_id LIMIT 1`,
      [options.name],
    );
    return rows[0] && toState(rows[0]);
  });
}

export async function listStates(
  database: Database,
  options: Cancellable & { listIds?: readonly string[]; minFaceCount?: number } = {},
): Promise<ListState[]> {
  const listIds = options.listIds === undefined ? null : checkUuids(options.listIds, "list id");
  return await database.run(options.signal, async (session) => {
    const { rows } = await session.query<ListRow>(
      `${stateQuery}
       WHERE ($1::uuid[] IS NULL OR l.list_id = ANY ($1)) AND coalesce(h.face_count, 0) >= $2
       ORDER BY l.create_time, l.list_id`,
      [listIds, options.minFaceCount ?? 0],
    );
    return rows.map(toState);
  });
}
