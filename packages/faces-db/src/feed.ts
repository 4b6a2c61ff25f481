import { LimError, limits } from "@lim/contracts";
import type { Database } from "./database.ts";
import { maxDescriptorVersion } from "./faces.ts";
import { facesDbLimits } from "./limits.ts";
import { checkInteger, checkUuid, checkUuids, readListState } from "./lists.ts";
import type { Cancellable, ChangePacket, ChangePackets, FaceChanges } from "./port.ts";
import { noneSkipped, usableVector } from "./vectors.ts";

export interface PacketOptions extends Cancellable {
  listId: string;
  historyId: string;
  sinceRevision: number;
  descriptorVersion: number;
  dim: number;
  maxFaces?: number;
}

interface PacketRow {
  history_id: string;
  compacted_revision: string;
  head_revision: string;
  to_revision: string | null;
  face_id: string | null;
  /** Of the face's first row that was taken. */
  revision: string | null;
  /** Linked, with a descriptor of the version, usable or not. */
  described: boolean | null;
  data: Buffer | null;
}

/**
 * One statement, so that the feed and the state of its faces are of one snapshot. The feed's rows are taken while they
 * concern at most $4 distinct faces; `to_revision` is the last row taken. LIMIT 1 keeps the state a lookup by index a
 * face, whatever the statistics say of a list that is younger than they are.
 */
const packetQuery = `
  WITH scanned AS (
    SELECT c.revision, c.face_id, row_number() OVER (PARTITION BY c.face_id ORDER BY c.revision) = 1 AS is_first
    FROM (
      SELECT revision, face_id FROM faces.list_change
      WHERE list_id = $1 AND revision > $2 AND revision <= $7 ORDER BY revision LIMIT $6
    ) c
  ), taken AS MATERIALIZED (
    SELECT s.revision, s.face_id, s.is_first
    FROM (SELECT *, count(*) FILTER (WHERE is_first) OVER (ORDER BY revision) AS faces FROM scanned) s
    WHERE s.faces <= $4
  )
  SELECT l.history_id, l.compacted_revision,
         coalesce((SELECT max(revision) FROM faces.list_change WHERE list_id = l.list_id), 0) AS head_revision,
         (SELECT max(revision) FROM taken) AS to_revision,
         t.face_id, t.revision, d.face_id IS NOT NULL AS described,
         CASE WHEN octet_length(d.data) = $5 * 4 THEN d.data END AS data
  FROM faces.list l
  LEFT JOIN taken t ON t.is_first
  LEFT JOIN LATERAL (
    SELECT d.face_id, d.data FROM faces.list_face lf
    JOIN faces.descriptor d ON d.face_id = lf.face_id AND d.descriptor_version = $3
    WHERE lf.list_id = $1 AND lf.face_id = t.face_id LIMIT 1
  ) d ON true
  WHERE l.list_id = $1
  ORDER BY t.revision`;

export async function readPacket(database: Database, options: PacketOptions): Promise<ChangePacket> {
  const maxFaces = options.maxFaces ?? limits.refreshPacketFaces;
  const read = await readPackets(database, { ...options, maxFaces, packetFaces: maxFaces });
  if (read.kind !== "packets") return read;
  return read.packets[0] ?? { kind: "gap", gap: "list_deleted" };
}

export async function readPackets(
  database: Database,
  options: PacketOptions & { packetFaces?: number; toRevision?: number },
): Promise<ChangePackets> {
  const listId = checkUuid(options.listId, "list id");
  const historyId = checkUuid(options.historyId, "history id");
  const since = checkInteger(options.sinceRevision, "sinceRevision", 0, Number.MAX_SAFE_INTEGER);
  const most = options.toRevision ?? Number.MAX_SAFE_INTEGER;
  const upTo = checkInteger(most, "toRevision", 0, Number.MAX_SAFE_INTEGER);
  const version = checkInteger(options.descriptorVersion, "descriptor version", 0, maxDescriptorVersion);
  const dim = checkInteger(options.dim, "dim", limits.minDim, limits.maxDim);
  const { maxPacketFaces, packetScanRowsPerFace, packetScanExtraRows } = facesDbLimits;
  const maxFaces = checkInteger(options.maxFaces ?? maxPacketFaces, "maxFaces", 1, maxPacketFaces);
  const perPacket = options.packetFaces ?? limits.refreshPacketFaces;
  const packetFaces = checkInteger(perPacket, "packetFaces", 1, maxPacketFaces);
  const scanRows = Math.min(maxFaces * packetScanRowsPerFace, maxFaces + packetScanExtraRows);
  const rows = await database.run(options.signal, async (session) => {
    const result = await session.query<PacketRow>({
      name: "lim_read_packet",
      text: packetQuery,
      values: [listId, since, version, maxFaces, dim, scanRows, upTo],
    });
    return result.rows;
  });
  const [first] = rows;
  if (first === undefined) return { kind: "gap", gap: "list_deleted" };
  const headRevision = Number(first.head_revision);
  if (first.history_id !== historyId) return { kind: "gap", gap: "other_history" };
  if (since > headRevision) return { kind: "gap", gap: "ahead_of_list" };
  if (since < Number(first.compacted_revision)) return { kind: "gap", gap: "compacted" };
  if (first.to_revision === null) return { kind: "up_to_date", headRevision };
  const range = { fromRevision: since, toRevision: Number(first.to_revision), headRevision };
  return { kind: "packets", packets: packetsOf(rows, range, dim, packetFaces) };
}

/**
 * Rows are in the order of their faces' first changes: what changed before the first row of a packet's successor concerns
 * faces of that packet, or of one before it, whose state is read already.
 */
function packetsOf(
  rows: readonly PacketRow[],
  range: { fromRevision: number; toRevision: number; headRevision: number },
  dim: number,
  packetFaces: number,
): FaceChanges[] {
  const packets: FaceChanges[] = [];
  let fromRevision = range.fromRevision;
  for (let at = 0; at < rows.length; at += packetFaces) {
    const next = rows[at + packetFaces];
    const toRevision = next ? Number(next.revision) - 1 : range.toRevision;
    const state = stateOf(rows.slice(at, at + packetFaces), dim);
    packets.push({ ...state, fromRevision, toRevision, headRevision: range.headRevision });
    fromRevision = toRevision;
  }
  return packets;
}

function stateOf(rows: readonly PacketRow[], dim: number) {
  const upserts: { faceId: string; vector: Float32Array }[] = [];
  const removals: string[] = [];
  const skipped = noneSkipped();
  for (const { face_id: faceId, described, data } of rows) {
    if (faceId === null) continue;
    const vector = described ? usableVector(data, dim, skipped) : undefined;
    if (vector === undefined) removals.push(faceId);
    else upserts.push({ faceId, vector });
  }
  return { kind: "changes" as const, upserts, removals, skipped };
}

export async function countChanges(
  database: Database,
  options: Cancellable & { listId: string; sinceRevision: number; toRevision: number },
): Promise<{ additions: number; removals: number }> {
  const listId = checkUuid(options.listId, "list id");
  const since = checkInteger(options.sinceRevision, "sinceRevision", 0, Number.MAX_SAFE_INTEGER);
  const to = checkInteger(options.toRevision, "toRevision", 0, Number.MAX_SAFE_INTEGER);
  return await database.run(options.signal, async (session) => {
    await readListState(session, listId);
    const { rows } = await session.query<{ additions: string; removals: string }>(
      `SELECT count(*) FILTER (WHERE op <> 'unlink') AS additions,
              count(*) FILTER (WHERE op <> 'link') AS removals
       FROM faces.list_change WHERE list_id = $1 AND revision > $2 AND revision <= $3`,
      [listId, since, to],
    );
    return { additions: Number(rows[0]?.additions ?? 0), removals: Number(rows[0]?.removals ?? 0) };
  });
}

/**
 * A range of nothing but links needs no reading: its faces grew by as many as its revisions. So a bulk import costs as
 * little as no change at all. The row before the range may have been compacted away; then the range is counted.
 */
const removalsQuery = `
  SELECT r.list_id,
         CASE WHEN t.face_count - s.face_count = r.to_revision - r.since_revision THEN 0
              ELSE (SELECT count(*) FROM faces.list_change c
                    WHERE c.list_id = r.list_id AND c.revision > r.since_revision AND c.revision <= r.to_revision
                      AND c.op <> 'link')
         END AS removals
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS r (list_id, since_revision, to_revision)
  JOIN faces.list l ON l.list_id = r.list_id
  LEFT JOIN faces.list_change s ON s.list_id = r.list_id AND s.revision = r.since_revision
  LEFT JOIN faces.list_change t ON t.list_id = r.list_id AND t.revision = r.to_revision`;

export async function removalsOf(
  database: Database,
  options: Cancellable & {
    ranges: readonly { listId: string; sinceRevision: number; toRevision: number }[];
  },
): Promise<Map<string, number>> {
  const listIds = checkUuids(
    options.ranges.map((range) => range.listId),
    "list id",
  );
  if (new Set(listIds).size < listIds.length)
    throw new LimError("bad_input", "one range of a list at a time: a list is named twice");
  const since = options.ranges.map((range) =>
    checkInteger(range.sinceRevision, "sinceRevision", 0, Number.MAX_SAFE_INTEGER),
  );
  const to = options.ranges.map((range) =>
    checkInteger(range.toRevision, "toRevision", 0, Number.MAX_SAFE_INTEGER),
  );
  const removals = new Map<string, number>();
  for (let from = 0; from < listIds.length; from += facesDbLimits.listsPerQuery) {
    const until = from + facesDbLimits.listsPerQuery;
    const rows = await database.run(options.signal, async (session) => {
      const result = await session.query<{ list_id: string; removals: string }>({
        name: "lim_removals_of",
        text: removalsQuery,
        values: [listIds.slice(from, until), since.slice(from, until), to.slice(from, until)],
      });
      return result.rows;
    });
    for (const row of rows) removals.set(row.list_id, Number(row.removals));
  }
  return removals;
}

/**
 * The longest run of oldest rows that may go, at most a chunk. The list's row says how far it went: it is locked
 * first, so that a writer with an older snapshot cannot reuse a revision that is gone.
 */
const compactQuery = `
  SELECT coalesce(max(c.revision), 0) AS up_to FROM (
    SELECT revision, bool_and(create_time < clock_timestamp() - $2 * interval '1 millisecond')
             OVER (ORDER BY revision) AS is_old
    FROM faces.list_change
    WHERE list_id = $1 AND revision <= $3
      AND revision < (SELECT max(revision) FROM faces.list_change WHERE list_id = $1)
    ORDER BY revision LIMIT $4
  ) c WHERE c.is_old`;

export async function compactFeed(
  database: Database,
  options: Cancellable & { listId: string; keepMs: number; keepFromRevision?: number },
): Promise<number> {
  const listId = checkUuid(options.listId, "list id");
  const keepMs = checkInteger(options.keepMs, "keepMs", 0, Number.MAX_SAFE_INTEGER);
  const upTo = options.keepFromRevision ?? Number.MAX_SAFE_INTEGER;
  checkInteger(upTo, "keepFromRevision", 0, Number.MAX_SAFE_INTEGER);
  let removed = 0;
  for (;;) {
    const chunk = await database.transaction(options, async (session) => {
      await session.query("SELECT FROM faces.list WHERE list_id = $1 FOR NO KEY UPDATE", [listId]);
      await readListState(session, listId);
      const { rows } = await session.query<{ up_to: string }>(compactQuery, [
        listId,
        keepMs,
        upTo,
        facesDbLimits.compactChunkRows,
      ]);
      const upToRevision = rows[0]?.up_to ?? "0";
      if (upToRevision === "0") return 0;
      await session.query("UPDATE faces.list SET compacted_revision = $2 WHERE list_id = $1", [
        listId,
        upToRevision,
      ]);
      const { rowCount } = await session.query(
        "DELETE FROM faces.list_change WHERE list_id = $1 AND revision <= $2",
        [listId, upToRevision],
      );
      return rowCount ?? 0;
    });
    removed += chunk;
    if (chunk < facesDbLimits.compactChunkRows) return removed;
  }
}

const oldRowsQuery = `
  SELECT f.list_id FROM unnest($1::uuid[], $2::bigint[]) AS f (list_id, up_to_revision)
  CROSS JOIN LATERAL (
    SELECT c.revision, c.create_time FROM faces.list_change c
    WHERE c.list_id = f.list_id ORDER BY c.revision LIMIT 1
  ) oldest
  WHERE oldest.revision <= f.up_to_revision
    AND oldest.create_time < clock_timestamp() - $3 * interval '1 millisecond'
    AND EXISTS (SELECT FROM faces.list_change c WHERE c.list_id = f.list_id AND c.revision > oldest.revision)`;

export async function feedsWithOldRows(
  database: Database,
  options: Cancellable & { feeds: readonly { listId: string; upToRevision: number }[]; keepMs: number },
): Promise<Set<string>> {
  const listIds = checkUuids(
    options.feeds.map((feed) => feed.listId),
    "list id",
  );
  const upTo = options.feeds.map((feed) =>
    checkInteger(feed.upToRevision, "upToRevision", 0, Number.MAX_SAFE_INTEGER),
  );
  const keepMs = checkInteger(options.keepMs, "keepMs", 0, Number.MAX_SAFE_INTEGER);
  const old = new Set<string>();
  for (let from = 0; from < listIds.length; from += facesDbLimits.listsPerQuery) {
    const until = from + facesDbLimits.listsPerQuery;
    const rows = await database.run(options.signal, async (session) => {
      const result = await session.query<{ list_id: string }>({
        name: "lim_feeds_with_old_rows",
        text: oldRowsQuery,
        values: [listIds.slice(from, until), upTo.slice(from, until), keepMs],
      });
      return result.rows;
    });
    for (const row of rows) old.add(row.list_id);
  }
  return old;
}

export async function newHistory(database: Database, options: Cancellable = {}): Promise<number> {
  return await database.statement(options, async (session) => {
    const { rowCount } = await session.query(
      "UPDATE faces.list SET history_id = gen_random_uuid(), update_time = now()",
    );
    return rowCount ?? 0;
  });
}
