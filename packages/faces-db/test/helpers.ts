import { randomUUID } from "node:crypto";
import pg from "pg";
import type { FacesDb, ListState } from "../src/index.ts";

export const dim = 8;
export const version = 1;

let seed = 1;
/** A vector that differs from every other of the run. */
export function newVector(length = dim): Float32Array {
  const vector = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    vector[i] = seed / 2147483648 - 0.5;
  }
  return vector;
}

export function bytesOf(vector: Float32Array): Buffer {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
}

/** A client as psql would be: no search path into the schema, nothing of this package. */
export async function connectPlain(url: string, searchPath = "public"): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  await client.query(`SET search_path = ${searchPath}`);
  return client;
}

export interface FeedRow {
  revision: number;
  face: string;
  op: string;
  faceCount: number;
  removedTotal: number;
}
export async function feedOf(client: pg.Client, listId: string, since = 0): Promise<FeedRow[]> {
  const { rows } = await client.query(
    "SELECT * FROM faces.list_change WHERE list_id = $1 AND revision > $2 ORDER BY revision",
    [listId, since],
  );
  return rows.map((row) => ({
    revision: Number(row.revision),
    face: row.face_id,
    op: row.op,
    faceCount: Number(row.face_count),
    removedTotal: Number(row.removed_total),
  }));
}

export async function addFaces(client: pg.Client, count: number): Promise<string[]> {
  const faceIds = Array.from({ length: count }, () => randomUUID()).sort();
  await client.query("INSERT INTO faces.face (face_id) SELECT unnest($1::uuid[])", [faceIds]);
  return faceIds;
}

export async function setDescriptor(client: pg.Client, faceId: string, vector = newVector()): Promise<void> {
  await client.query(
    `INSERT INTO faces.descriptor (face_id, descriptor_version, data) VALUES ($1, $2, $3)
     ON CONFLICT (face_id, descriptor_version) DO UPDATE SET data = excluded.data`,
    [faceId, version, bytesOf(vector)],
  );
}

export async function link(client: pg.Client, listId: string, ...faceIds: string[]): Promise<void> {
  await client.query("INSERT INTO faces.list_face (list_id, face_id) SELECT $1, unnest($2::uuid[])", [
    listId,
    faceIds,
  ]);
}

/** What an index of a list would hold: face id → bytes of the descriptor as hexadecimal text. */
export type Content = Map<string, string>;

export async function currentContent(client: pg.Client, listId: string): Promise<Content> {
  const { rows } = await client.query<{ face_id: string; data: Buffer }>(
    `SELECT lf.face_id, d.data FROM faces.list_face lf JOIN faces.descriptor d USING (face_id)
     WHERE lf.list_id = $1 AND d.descriptor_version = $2`,
    [listId, version],
  );
  return new Map(rows.map((row) => [row.face_id, roundedHex(row.data)]));
}

/** Unit vectors as both the database and packets give them, rounded past normalisation's last bits. */
function roundedHex(data: Buffer): string {
  const vector = new Float32Array(new Uint8Array(data).buffer);
  let sum = 0;
  for (const value of vector) sum += value * value;
  return vectorText(vector.map((value) => value / Math.sqrt(sum)));
}
export function vectorText(vector: Float32Array): string {
  return [...vector].map((value) => value.toFixed(4).replace("-0.0000", "0.0000")).join(" ");
}

/** Follows a list's feed into a content, as a matcher does. */
export class Follower {
  readonly content: Content;
  revision: number;
  readonly listId: string;
  readonly #db: FacesDb;
  readonly #list: ListState;

  constructor(db: FacesDb, list: ListState, start?: { content: Content; revision: number }) {
    this.#db = db;
    this.#list = list;
    this.listId = list.listId;
    this.content = start?.content ?? new Map();
    this.revision = start?.revision ?? 0;
  }

  /** One packet; false once it is up to date. */
  async step(maxFaces?: number): Promise<boolean> {
    const packet = await this.#db.readPacket({
      listId: this.#list.listId,
      historyId: this.#list.historyId,
      sinceRevision: this.revision,
      descriptorVersion: version,
      dim,
      ...(maxFaces === undefined ? {} : { maxFaces }),
    });
    if (packet.kind === "gap") throw new Error(`gap: ${packet.gap}`);
    if (packet.kind === "up_to_date") return false;
    if (packet.fromRevision !== this.revision || packet.toRevision <= this.revision)
      throw new Error(
        `packet ${packet.fromRevision}..${packet.toRevision} does not go on from ${this.revision}`,
      );
    for (const { faceId, vector } of packet.upserts) this.content.set(faceId, vectorText(vector));
    for (const faceId of packet.removals) this.content.delete(faceId);
    this.revision = packet.toRevision;
    return true;
  }

  async drain(): Promise<void> {
    while (await this.step());
  }
}
