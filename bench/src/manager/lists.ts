import { createHash, randomUUID } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { defaults, type IndexMeta, LimError } from "@lim/contracts";
import type { FacesDb, ListState } from "@lim/faces-db";
import { createRandom, forEachBounded, uuidOf } from "./random.ts";

export const dim = 8;
const parallel = 16;
const facesPerList = 3;
/** Lists of one transaction that links faces. */
const listsPerChunk = 200;

export interface SeededLists {
  lists: number;
  missing: number;
  stale: number;
  seconds: number;
}

/**
 * Lists with a few faces; nine of ten have an index, and a twentieth has got one face and lost another since. Only
 * what planning reads is real: the lists, their feeds, and the metas of their indexes.
 */
export async function seedLists(
  db: FacesDb,
  storageRoot: string,
  options: { lists: number; seed: number },
): Promise<SeededLists> {
  const startedMs = performance.now();
  const random = createRandom(options.seed + 2);
  const listIds = Array.from({ length: options.lists }, () => uuidOf(random));
  await forEachBounded(listIds, parallel, async (listId, place) => {
    await db.createList({ listId, name: `bench ${place}` });
  });
  const faces = Array.from({ length: facesPerList + 1 }, () => ({
    faceId: randomUUID(),
    vector: Float32Array.from({ length: dim }, () => random() - 0.5),
  }));
  const [added, ...linked] = faces;
  if (added === undefined) throw new LimError("internal", "no faces");
  const link = async (ids: readonly string[], which: typeof faces) => {
    for (let start = 0; start < ids.length; start += listsPerChunk)
      await db.putFaces({
        listIds: ids.slice(start, start + listsPerChunk),
        descriptorVersion: defaults.descriptorVersion,
        faces: which,
      });
  };
  await link(listIds, linked);
  const states = await db.listStates({});
  const indexed = states.slice(0, Math.floor(states.length * 0.9));
  await forEachBounded(indexed, parallel, (state) => writeIndex(storageRoot, state));
  const stale = indexed.slice(0, Math.floor(states.length / 20)).map((state) => state.listId);
  await link(stale, [added]);
  await forEachBounded(stale, parallel, async (listId) => {
    await db.unlinkFaces({ listId, faceIds: [linked[0]?.faceId ?? ""] });
  });
  return {
    lists: states.length,
    missing: states.length - indexed.length,
    stale: stale.length,
    seconds: (performance.now() - startedMs) / 1000,
  };
}

const sha256 = (data: Uint8Array | string) => createHash("sha256").update(data).digest("hex");

/** An index whose meta is valid and whose data files only have the sizes that it names. */
async function writeIndex(storageRoot: string, list: ListState): Promise<void> {
  const indexId = randomUUID();
  const folder = join(storageRoot, list.listId, indexId);
  const data = { "index.dat": Buffer.alloc(64, 1), "ids.dat": Buffer.alloc(list.faceCount * 16, 1) };
  const meta: Omit<IndexMeta, "meta_sha256"> = {
    format_version: 1,
    index_id: indexId,
    index_type: "list",
    label: list.listId,
    history_id: list.historyId,
    descriptor_version: defaults.descriptorVersion,
    dim,
    metric: "ip",
    engine: { name: defaults.engine, version: "bench" },
    params: { m: defaults.m, ef_construction: defaults.efConstruction },
    count: list.faceCount,
    slots: list.faceCount,
    revision: list.revision,
    removed_since_rebuild: 0,
    create_time: new Date().toISOString(),
    build: {
      mode: "rebuild",
      skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
      phases: { build: 1 },
    },
    recall: { k: 10, sampled: 1 },
    files: {
      "index.dat": { size: data["index.dat"].length, sha256: sha256(data["index.dat"]) },
      "ids.dat": { size: data["ids.dat"].length, sha256: sha256(data["ids.dat"]) },
    },
  };
  await mkdir(folder, { recursive: true });
  for (const [name, bytes] of Object.entries(data)) await writeFile(join(folder, name), bytes);
  const sealed = { ...meta, meta_sha256: sha256(JSON.stringify(meta)) };
  await writeFile(join(folder, "meta.json"), `${JSON.stringify(sealed, undefined, 2)}\n`);
}
