import { createHash, randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EngineName, type IndexMeta, uuidBytes, writeUuid } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage } from "@lim/index-storage";
import { createFaceGenerator } from "@lim/testkit";
import { createKeyedIndex, loadEngine } from "@lim/vector-index";
import { onTestFinished } from "vitest";
import type { CheckReport, Finding, IndexCheck } from "../src/check/report.ts";
import { runChecks, type Scope } from "../src/check/run.ts";

export const dim = 32;
const generator = createFaceGenerator({ dim, effectiveDim: 24 });

export interface Face {
  faceId: string;
  vector: Float32Array;
}

/** The same vector for the same number, and that of no new face. */
export const personOf = (number: number): Float32Array => generator.vector(1_000_000 + number, 0);

let nextPerson = 0;
/** Faces of people that nobody else is. */
export function newFaces(count: number): Face[] {
  return Array.from({ length: count }, () => ({
    faceId: randomUUID(),
    vector: generator.vector(nextPerson++, 0),
  }));
}

export async function newStorage(): Promise<IndexStorage> {
  const root = await mkdtemp(join(tmpdir(), "lim-check-test-"));
  onTestFinished(() => rm(root, { recursive: true, force: true }));
  return openIndexStorage({ root, scratchDir: join(root, ".scratch") });
}

/** A list of these faces. */
export async function newList(db: FacesDb, faces: readonly Face[]): Promise<string> {
  const { listId } = await db.createList({ name: `list ${randomUUID()}` });
  await db.putFaces({ listIds: [listId], descriptorVersion: 1, faces });
  return listId;
}

export interface Publication {
  label: string;
  faces: readonly Face[];
  revision: number;
  historyId: string;
  engine?: EngineName;
  m?: number;
  efConstruction?: number;
}

export async function publish(storage: IndexStorage, publication: Publication): Promise<string> {
  const { label, faces, revision, historyId, engine = "hnsw", m = 16 } = publication;
  const params = { m, efConstruction: publication.efConstruction ?? 60 };
  const adapter = await loadEngine(engine);
  const keyed = createKeyedIndex(await adapter.create({ dim, capacity: faces.length, params }));
  try {
    const ids = new Uint8Array(faces.length * uuidBytes);
    const vectors = new Float32Array(faces.length * dim);
    faces.forEach(({ faceId, vector }, i) => {
      writeUuid(faceId, ids, i * uuidBytes);
      vectors.set(vector, i * dim);
    });
    await keyed.addNew(ids, vectors, { threads: 1 });
    const indexId = randomUUID();
    const staging = await storage.stage({ label, indexId, attempt: 1 });
    const content = {
      label,
      historyId,
      descriptorVersion: 1,
      revision,
      engine,
      params,
      mode: "rebuild" as const,
      removedSinceRebuild: 0,
      skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
    };
    await staging.publish(keyed, content, { phases: {} });
    return indexId;
  } finally {
    await keyed.close();
  }
}

/** Publishes what the list says now, or other faces as if they were the list's. */
export async function publishList(
  storage: IndexStorage,
  db: FacesDb,
  label: string,
  faces: readonly Face[],
  more: Pick<Publication, "engine" | "m" | "efConstruction"> = {},
): Promise<string> {
  const [state] = await db.listStates({ listIds: [label] });
  if (state === undefined) throw new Error(`no list ${label}`);
  const { revision, historyId } = state;
  return publish(storage, { label, faces, revision, historyId, ...more });
}

/** Changes a published data file or meta.json and makes every checksum right again. */
export async function reseal(
  folder: string,
  changes: { file?: keyof IndexMeta["files"]; bytes?: (bytes: Buffer) => void; meta?: Partial<IndexMeta> },
): Promise<void> {
  const path = join(folder, "meta.json");
  const { meta_sha256: _, ...meta } = JSON.parse(await readFile(path, "utf8")) as IndexMeta;
  Object.assign(meta, changes.meta);
  if (changes.file !== undefined) {
    const data = await readFile(join(folder, changes.file));
    changes.bytes?.(data);
    await writeFile(join(folder, changes.file), data);
    meta.files[changes.file] = { size: data.length, sha256: sha256(data) };
  }
  await writeFile(path, JSON.stringify({ ...meta, meta_sha256: sha256(JSON.stringify(meta)) }));
}
const sha256 = (data: Buffer | string) => createHash("sha256").update(data).digest("hex");

export function check(
  storage: IndexStorage,
  db: FacesDb | undefined,
  scope: Scope,
  more: { strict?: boolean; sample?: number; signal?: AbortSignal } = {},
): Promise<CheckReport> {
  const { strict = false, sample = 50, signal = new AbortController().signal } = more;
  return runChecks({ scope, storage, db, sample, seed: 7, strict, signal, onProgress: () => {} });
}

/** The only index of a report. */
export function only({ indexes }: CheckReport): IndexCheck {
  const [first, ...others] = indexes;
  if (first === undefined || others.length > 0) throw new Error(`${indexes.length} indexes in the report`);
  return first;
}

export const codes = (findings: readonly Finding[]): string[] =>
  findings.map(({ severity, code }) => `${severity} ${code}`).toSorted();
