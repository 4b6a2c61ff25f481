import { LimError, limits, normalize } from "@lim/contracts";
import type { Database, Session } from "./database.ts";
import { violatedConstraint } from "./errors.ts";
import { facesDbLimits } from "./limits.ts";
import { checkInteger, checkUuid, checkUuids } from "./lists.ts";
import type { Cancellable } from "./port.ts";
import { noneSkipped, usableVector, vectorBytes } from "./vectors.ts";

export const maxDescriptorVersion = 2 ** 31 - 1;

export interface PutOptions extends Cancellable {
  listIds: readonly string[];
  descriptorVersion: number;
  faces: readonly { faceId: string; vector: Float32Array; externalId?: string }[];
}
interface CheckedFace {
  faceId: string;
  externalId: string | null;
  data: Buffer;
}

/** Valid, unit, one per face id (the last wins), in ascending order so that writers lock rows in one order. */
function checkFaces(faces: PutOptions["faces"]): CheckedFace[] {
  if (faces.length > facesDbLimits.maxPutFaces)
    throw new LimError(
      "bad_input",
      `${faces.length} faces in one call, at most ${facesDbLimits.maxPutFaces}`,
    );
  const checked = new Map<string, CheckedFace>();
  for (const face of faces) {
    const faceId = checkUuid(face.faceId, "face id");
    checkInteger(face.vector.length, `dimensions of face ${faceId}`, limits.minDim, limits.maxDim);
    const vector = face.vector.slice();
    const fault = normalize(vector, vector.length);
    if (fault !== undefined) throw new LimError("bad_input", `descriptor of face ${faceId}: ${fault}`);
    const externalId = face.externalId === undefined ? null : checkExternalId(face.externalId);
    checked.set(faceId, { faceId, externalId, data: vectorBytes(vector) });
  }
  return [...checked.values()].sort((a, b) => (a.faceId < b.faceId ? -1 : 1));
}

export function checkExternalId(externalId: string): string {
  const fault = externalIdFault(externalId);
  if (fault !== undefined) throw new LimError("bad_input", fault);
  return externalId;
}

export function externalIdFault(externalId: string): string | undefined {
  if (externalId === "") return "external id is empty";
  if (externalId.length > facesDbLimits.maxExternalIdChars)
    return `external id is longer than ${facesDbLimits.maxExternalIdChars} characters`;
  if (externalId.includes("\0")) return "external id holds a NUL character";
  return undefined;
}

/** Account that new faces of these lists get. */
async function accountOfLists(session: Session, listIds: readonly string[]): Promise<string> {
  if (listIds.length === 0) return "";
  const { rows } = await session.query<{ list_id: string; account_id: string }>(
    "SELECT list_id, account_id FROM faces.list WHERE list_id = ANY ($1)",
    [listIds],
  );
  const found = new Map(rows.map((row) => [row.list_id, row.account_id]));
  const missing = listIds.find((listId) => !found.has(listId));
  if (missing !== undefined) throw new LimError("list_not_found", `list ${missing} does not exist`);
  const accounts = [...new Set(found.values())];
  if (accounts.length > 1)
    throw new LimError(
      "bad_input",
      "the lists belong to different accounts: put the faces account by account",
    );
  return accounts[0] ?? "";
}

export async function putFaces(database: Database, options: PutOptions): Promise<void> {
  const listIds = [...new Set(checkUuids(options.listIds, "list id"))].sort();
  checkInteger(listIds.length, "number of lists", 0, facesDbLimits.maxListsPerPut);
  const version = checkInteger(options.descriptorVersion, "descriptor version", 0, maxDescriptorVersion);
  const faces = checkFaces(options.faces);
  // Two writers of one new face can collide on its external id first; told apart from a taken id by one more try.
  let collisions = 0;
  const again = (thrown: unknown) =>
    violatedConstraint(thrown) === "face_external_id_key" && collisions++ === 0;
  await database.transaction({ signal: options.signal, again }, async (session) => {
    const accountId = await accountOfLists(session, listIds);
    for (let start = 0; start < faces.length; start += facesDbLimits.descriptorChunkRows)
      await putChunk(session, faces.slice(start, start + facesDbLimits.descriptorChunkRows), {
        accountId,
        listIds,
        version,
      });
  });
}

async function putChunk(
  session: Session,
  faces: readonly CheckedFace[],
  to: { accountId: string; listIds: readonly string[]; version: number },
): Promise<void> {
  const faceIds = faces.map((face) => face.faceId);
  await session.query(
    `INSERT INTO faces.face AS f (face_id, account_id, external_id)
     SELECT face_id, $3, external_id FROM unnest($1::uuid[], $2::text[]) AS n (face_id, external_id)
     ON CONFLICT (face_id) DO UPDATE SET external_id = excluded.external_id, update_time = now()
     WHERE excluded.external_id IS NOT NULL AND f.external_id IS DISTINCT FROM excluded.external_id`,
    [faceIds, faces.map((face) => face.externalId), to.accountId],
  );
  await session.query(
    `INSERT INTO faces.descriptor AS d (face_id, descriptor_version, data)
     SELECT face_id, $3, data FROM unnest($1::uuid[], $2::bytea[]) AS n (face_id, data)
     ON CONFLICT (face_id, descriptor_version) DO UPDATE SET data = excluded.data, update_time = now()
     WHERE d.data <> excluded.data`,
    [faceIds, faces.map((face) => face.data), to.version],
  );
  if (to.listIds.length > 0)
    await session.query(
      `INSERT INTO faces.list_face (list_id, face_id)
       SELECT list_id, face_id FROM unnest($1::uuid[]) AS l (list_id), unnest($2::uuid[]) AS n (face_id)
       ORDER BY list_id, face_id ON CONFLICT DO NOTHING`,
      [to.listIds, faceIds],
    );
}

/** Runs `statement` over the ids, sorted, by chunks that commit on their own. Sum of the rows it changed. */
async function changeByIds(
  database: Database,
  options: Cancellable & { faceIds: readonly string[] },
  statement: (session: Session, faceIds: readonly string[]) => Promise<number>,
): Promise<number> {
  const faceIds = [...new Set(checkUuids(options.faceIds, "face id"))].sort();
  let changed = 0;
  for (let start = 0; start < faceIds.length; start += facesDbLimits.idChunkRows) {
    const chunk = faceIds.slice(start, start + facesDbLimits.idChunkRows);
    changed += await database.statement(options, (session) => statement(session, chunk));
  }
  return changed;
}

export async function linkFaces(
  database: Database,
  options: Cancellable & { listId: string; faceIds: readonly string[] },
): Promise<number> {
  const listId = checkUuid(options.listId, "list id");
  return await changeByIds(database, options, async (session, faceIds) => {
    const { rowCount } = await session.query(
      `INSERT INTO faces.list_face (list_id, face_id) SELECT $1, unnest($2::uuid[]) ON CONFLICT DO NOTHING`,
      [listId, faceIds],
    );
    return rowCount ?? 0;
  });
}

export async function unlinkFaces(
  database: Database,
  options: Cancellable & { listId: string; faceIds: readonly string[] },
): Promise<number> {
  const listId = checkUuid(options.listId, "list id");
  return await changeByIds(database, options, async (session, faceIds) => {
    const { rowCount } = await session.query(
      "DELETE FROM faces.list_face WHERE list_id = $1 AND face_id = ANY ($2)",
      [listId, faceIds],
    );
    if (rowCount) return rowCount;
    const { rowCount: lists } = await session.query("SELECT FROM faces.list WHERE list_id = $1", [listId]);
    if (!lists) throw new LimError("list_not_found", `list ${listId} does not exist`);
    return 0;
  });
}

export async function deleteFaces(
  database: Database,
  options: Cancellable & { faceIds: readonly string[] },
): Promise<number> {
  return await changeByIds(database, options, async (session, faceIds) => {
    const { rowCount } = await session.query(
      `WITH doomed AS MATERIALIZED (
         SELECT face_id FROM faces.face WHERE face_id = ANY ($1) ORDER BY face_id FOR UPDATE
       ) DELETE FROM faces.face f USING doomed WHERE f.face_id = doomed.face_id`,
      [faceIds],
    );
    return rowCount ?? 0;
  });
}

export async function descriptorsOf(
  database: Database,
  options: Cancellable & { faceIds: readonly string[]; descriptorVersion: number },
): Promise<Map<string, Float32Array>> {
  const faceIds = checkUuids(options.faceIds, "face id");
  const version = checkInteger(options.descriptorVersion, "descriptor version", 0, maxDescriptorVersion);
  const found = new Map<string, Float32Array>();
  for (let start = 0; start < faceIds.length; start += facesDbLimits.descriptorChunkRows) {
    const chunk = faceIds.slice(start, start + facesDbLimits.descriptorChunkRows);
    const rows = await database.run(options.signal, async (session) => {
      const result = await session.query<{ face_id: string; data: Buffer }>(
        "SELECT face_id, data FROM faces.descriptor WHERE face_id = ANY ($1) AND descriptor_version = $2",
        [chunk, version],
      );
      return result.rows;
    });
    for (const { face_id, data } of rows) {
      const vector = usableVector(data, data.byteLength / 4, noneSkipped());
      if (vector !== undefined) found.set(face_id, vector);
    }
  }
  return found;
}

export async function externalIdsOf(
  database: Database,
  options: Cancellable & { faceIds: readonly string[] },
): Promise<Map<string, string>> {
  const faceIds = checkUuids(options.faceIds, "face id");
  const found = new Map<string, string>();
  for (let start = 0; start < faceIds.length; start += facesDbLimits.idChunkRows) {
    const chunk = faceIds.slice(start, start + facesDbLimits.idChunkRows);
    const rows = await database.run(options.signal, async (session) => {
      const result = await session.query<{ face_id: string; external_id: string }>(
        "SELECT face_id, external_id FROM faces.face WHERE face_id = ANY ($1) AND external_id IS NOT NULL",
        [chunk],
      );
      return result.rows;
    });
    for (const row of rows) found.set(row.face_id, row.external_id);
  }
  return found;
}
