import { pipeline } from "node:stream/promises";
import { LimError, limits, normalize, uuidSchema, writeUuid } from "@lim/contracts";
import { from as copyFrom } from "pg-copy-streams";
import { type CopyRow, encodeCopyBinary } from "./copy-binary.ts";
import { type Database, type Session, throwIfAborted } from "./database.ts";
import { violatedConstraint } from "./errors.ts";
import { externalIdFault, maxDescriptorVersion } from "./faces.ts";
import { facesDbLimits } from "./limits.ts";
import { checkInteger, checkUuid } from "./lists.ts";
import type { ImportFault, ImportOptions, ImportProgress, ImportResult, ImportRow } from "./port.ts";
import { vectorBytes } from "./vectors.ts";

interface StagedRow {
  line: number;
  faceId: string | undefined;
  externalId: string | undefined;
  data: Buffer;
}

/** Rows of the source that commit together, with what is wrong in them. Of rows with the same key the last wins. */
class Chunk {
  readonly #dim: number;
  readonly #staged = new Map<string, StagedRow>();
  readonly #faceOfExternalId = new Map<string, string>();
  readonly faults: ImportFault[] = [];
  rows = 0;

  constructor(dim: number) {
    this.#dim = dim;
  }

  get staged(): StagedRow[] {
    return [...this.#staged.values()];
  }

  add(row: ImportRow | ImportFault): void {
    this.rows++;
    if ("reason" in row) {
      this.faults.push({ line: row.line, reason: row.reason });
      return;
    }
    const reason = this.#stage(row);
    if (reason !== undefined) this.faults.push({ line: row.line, reason });
  }

  /** The reason where the row is bad. */
  #stage(row: ImportRow): string | undefined {
    const { externalId } = row;
    if (row.faceId === undefined && externalId === undefined) return "neither face id nor external id";
    const parsed = row.faceId === undefined ? undefined : uuidSchema.safeParse(row.faceId);
    if (parsed?.success === false) return "face id is not a UUID";
    const externalFault = externalId === undefined ? undefined : externalIdFault(externalId);
    if (externalFault !== undefined) return externalFault;
    const vector = row.vector.slice();
    const fault = normalize(vector, this.#dim);
    if (fault !== undefined)
      return fault === "wrong_length" ? `wrong_length: ${vector.length} instead of ${this.#dim}` : fault;
    const faceId = parsed?.data;
    if (faceId !== undefined && externalId !== undefined) {
      const other = this.#faceOfExternalId.get(externalId);
      if (other !== undefined && other !== faceId) return `external id belongs to face ${other}`;
      this.#faceOfExternalId.set(externalId, faceId);
    }
    const key = faceId ?? `external ${externalId}`;
    const earlier = this.#staged.get(key);
    // Deleted first: a map keeps the place of a key, but lines must ascend.
    this.#staged.delete(key);
    this.#staged.set(key, {
      line: row.line,
      faceId,
      externalId: externalId ?? earlier?.externalId,
      data: vectorBytes(vector),
    });
    return undefined;
  }
}

const createStage = `
  CREATE TEMPORARY TABLE IF NOT EXISTS lim_import_stage (
    place integer NOT NULL, face_id uuid, external_id text, data bytea NOT NULL
  ) ON COMMIT DELETE ROWS`;

// The subqueries below are scalar on purpose: each is one lookup by index a staged row. As a join, statistics that do
// not know the account yet let Postgres walk all of its faces for every staged row.
const faceOfExternalId =
  "(SELECT f.face_id FROM faces.face f WHERE f.account_id = $1 AND f.external_id = s.external_id)";
const accountOfFace = "(SELECT f.account_id FROM faces.face f WHERE f.face_id = s.face_id)";

/** Rows that contradict what is stored. They leave the stage. */
const takeConflicts = `
  DELETE FROM pg_temp.lim_import_stage s
  WHERE s.face_id IS NOT NULL AND (${faceOfExternalId} <> s.face_id OR ${accountOfFace} <> $1)
  RETURNING s.place, coalesce(${accountOfFace} <> $1, false) AS other_account, ${faceOfExternalId} AS face_id`;

/** Gives rows that came with an external id only their face: of this chunk, of the account, or a new one. */
const resolveInChunk = `
  UPDATE pg_temp.lim_import_stage s SET face_id = o.face_id FROM pg_temp.lim_import_stage o
  WHERE s.face_id IS NULL AND o.face_id IS NOT NULL AND o.external_id = s.external_id`;
const resolveStored = `UPDATE pg_temp.lim_import_stage s SET face_id = ${faceOfExternalId} WHERE s.face_id IS NULL`;
const createFaceIds = "UPDATE pg_temp.lim_import_stage SET face_id = gen_random_uuid() WHERE face_id IS NULL";

const upsertFaces = `
  INSERT INTO faces.face AS f (face_id, account_id, external_id)
  SELECT s.face_id, $1, max(s.external_id) FROM pg_temp.lim_import_stage s GROUP BY s.face_id ORDER BY s.face_id
  ON CONFLICT (face_id) DO UPDATE SET external_id = excluded.external_id, update_time = now()
  WHERE excluded.external_id IS NOT NULL AND f.external_id IS DISTINCT FROM excluded.external_id`;
const upsertDescriptors = `
  INSERT INTO faces.descriptor AS d (face_id, descriptor_version, data)
  SELECT DISTINCT ON (s.face_id) s.face_id, $1::integer, s.data FROM pg_temp.lim_import_stage s
  ORDER BY s.face_id, s.place DESC
  ON CONFLICT (face_id, descriptor_version) DO UPDATE SET data = excluded.data, update_time = now()
  WHERE d.data <> excluded.data`;
const linkStaged = `
  INSERT INTO faces.list_face (list_id, face_id)
  SELECT DISTINCT $1::uuid, s.face_id FROM pg_temp.lim_import_stage s ORDER BY s.face_id ON CONFLICT DO NOTHING`;

interface Target {
  listId: string;
  sourceKey: string;
  accountId: string;
  descriptorVersion: number;
}

function stageRow(row: StagedRow, place: number): CopyRow {
  const placeBytes = Buffer.allocUnsafe(4);
  placeBytes.writeInt32BE(place);
  let faceId: Buffer | null = null;
  if (row.faceId !== undefined) {
    faceId = Buffer.allocUnsafe(16);
    writeUuid(row.faceId, faceId);
  }
  return [placeBytes, faceId, row.externalId === undefined ? null : Buffer.from(row.externalId), row.data];
}

/** Writes the staged rows and returns those that contradict what is stored. */
async function writeStaged(
  session: Session,
  staged: readonly StagedRow[],
  target: Target,
): Promise<ImportFault[]> {
  if (staged.length === 0) return [];
  await session.query(createStage);
  await pipeline(
    [encodeCopyBinary(staged.map(stageRow))],
    session.query(copyFrom("COPY pg_temp.lim_import_stage FROM STDIN (FORMAT binary)")),
  );
  const account = [target.accountId];
  const conflicts = await session.query<{ place: number; other_account: boolean; face_id: string }>(
    takeConflicts,
    account,
  );
  const isMixed =
    staged.some((row) => row.faceId === undefined) && staged.some((row) => row.faceId !== undefined);
  if (isMixed) await session.query(resolveInChunk);
  await session.query(resolveStored, account);
  await session.query(createFaceIds);
  await session.query(upsertFaces, account);
  await session.query(upsertDescriptors, [target.descriptorVersion]);
  await session.query(linkStaged, [target.listId]);
  return conflicts.rows.map((row) => ({
    line: staged[row.place]?.line ?? 0,
    reason: row.other_account
      ? "face belongs to another account"
      : `external id belongs to face ${row.face_id}`,
  }));
}

async function commitChunk(
  database: Database,
  chunk: Chunk,
  target: Target,
  before: ImportProgress,
  signal: AbortSignal | undefined,
): Promise<{ progress: ImportProgress; faults: ImportFault[] }> {
  const { staged } = chunk;
  // Another writer created the same external id meanwhile: the next try finds it.
  const again = (thrown: unknown) => violatedConstraint(thrown) === "face_external_id_key";
  return await database.transaction({ signal, again }, async (session) => {
    const conflicts = await writeStaged(session, staged, target);
    const faults = [...chunk.faults, ...conflicts].sort((a, b) => a.line - b.line);
    const progress = {
      doneRows: before.doneRows + chunk.rows,
      imported: before.imported + chunk.rows - faults.length,
      bad: before.bad + faults.length,
    };
    const { rowCount } = await session.query(
      `UPDATE faces.import_progress SET done_rows = $4, imported = $5, bad = $6, update_time = now()
       WHERE list_id = $1 AND source_key = $2 AND done_rows = $3`,
      [target.listId, target.sourceKey, before.doneRows, progress.doneRows, progress.imported, progress.bad],
    );
    if (rowCount !== 1)
      throw new LimError("bad_input", "another run is importing the same source into this list");
    return { progress, faults };
  });
}

/** The account to import into, and what earlier runs have committed. */
async function begin(
  database: Database,
  options: ImportOptions & { listId: string },
): Promise<{ accountId: string; progress: ImportProgress }> {
  return await database.transaction(options, async (session) => {
    const list = await session.query<{ account_id: string }>(
      "SELECT account_id FROM faces.list WHERE list_id = $1",
      [options.listId],
    );
    const [found] = list.rows;
    if (found === undefined) throw new LimError("list_not_found", `list ${options.listId} does not exist`);
    const key = [options.listId, options.sourceKey];
    await session.query(
      "INSERT INTO faces.import_progress (list_id, source_key) VALUES ($1, $2) ON CONFLICT DO NOTHING",
      key,
    );
    const { rows } = await session.query<{ done_rows: string; imported: string; bad: string }>(
      "SELECT done_rows, imported, bad FROM faces.import_progress WHERE list_id = $1 AND source_key = $2",
      key,
    );
    const progress = {
      doneRows: Number(rows[0]?.done_rows ?? 0),
      imported: Number(rows[0]?.imported ?? 0),
      bad: Number(rows[0]?.bad ?? 0),
    };
    return { accountId: options.accountId ?? found.account_id, progress };
  });
}

/** Cuts the source into chunks. While one is being committed the next is read and checked, no more than that. */
async function eachChunk(
  { rows, signal }: ImportOptions,
  cut: { dim: number; chunkRows: number; skipRows: number },
  commit: (chunk: Chunk) => Promise<void>,
): Promise<void> {
  let committing: Promise<void> = Promise.resolve();
  const commitNext = async (chunk: Chunk) => {
    await committing;
    committing = commit(chunk);
    // Its failure is thrown where it is awaited next.
    committing.catch(() => {});
  };
  let row = 0;
  let chunk = new Chunk(cut.dim);
  try {
    for await (const next of rows) {
      throwIfAborted(signal);
      if (row++ < cut.skipRows) continue;
      chunk.add(next);
      if (chunk.rows < cut.chunkRows) continue;
      await commitNext(chunk);
      chunk = new Chunk(cut.dim);
    }
    if (chunk.rows > 0) await commitNext(chunk);
  } finally {
    // Nothing is written any more once the import has ended, by a failure of the source included.
    await committing;
  }
}

export async function importRows(database: Database, options: ImportOptions): Promise<ImportResult> {
  const listId = checkUuid(options.listId, "list id");
  const dim = checkInteger(options.dim, "dim", limits.minDim, limits.maxDim);
  const { sourceKey } = options;
  checkInteger(sourceKey.length, "length of the source key", 1, facesDbLimits.maxSourceKeyChars);
  const chunkRows = checkInteger(
    options.chunkRows ?? facesDbLimits.importChunkRows,
    "chunkRows",
    1,
    facesDbLimits.maxImportChunkRows,
  );
  const descriptorVersion = checkInteger(
    options.descriptorVersion,
    "descriptor version",
    0,
    maxDescriptorVersion,
  );
  const begun = await begin(database, { ...options, listId });
  const target = { listId, sourceKey, accountId: begun.accountId, descriptorVersion };
  const resumedFromRow = begun.progress.doneRows;
  let progress = begun.progress;
  const faults: ImportFault[] = [];
  const commit = async (chunk: Chunk) => {
    const done = await commitChunk(database, chunk, target, progress, options.signal);
    progress = done.progress;
    faults.push(...done.faults.slice(0, facesDbLimits.maxReportedFaults - faults.length));
    options.onProgress?.(progress);
  };
  await eachChunk(options, { dim, chunkRows, skipRows: resumedFromRow }, commit);
  return { ...progress, resumedFromRow, faults };
}
