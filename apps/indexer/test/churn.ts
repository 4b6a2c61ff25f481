import { randomUUID } from "node:crypto";
import { defaults, type EngineName } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { IndexStorage, OpenedIndex, PublishedIndex } from "@lim/index-storage";
import { createFaceGenerator, faceIdOf, lfwFaceModel } from "@lim/testkit";
import { createExactIndex, type KeyedIndex } from "@lim/vector-index";
import { buildHere, contextOf } from "./in-process.ts";

const k = 10;
const chunkFaces = 500;

export interface ChurnOptions {
  engine: EngineName;
  faces: number;
  /** Shares of the list that were replaced since the first build, rising: one update for each. */
  shares: readonly number[];
  probes: number;
  seed: number;
}

export interface ChurnRow {
  engine: EngineName;
  replacedShare: number;
  /** Recall@10 against exact search, of the updated index and of a fresh build of the same content. */
  updated: number;
  fresh: number;
  removedSinceRebuild: number;
  slots: number;
}

/**
 * Builds a list, then replaces persons by new ones share by share (each update starts from the last one's index), and
 * compares what the updated index finds with what a fresh build finds.
 */
export async function measureChurn(
  stores: { db: FacesDb; storage: IndexStorage },
  options: ChurnOptions,
): Promise<ChurnRow[]> {
  const { engine, faces, probes, seed } = options;
  const { db, storage } = stores;
  const { dim } = lfwFaceModel;
  const generator = createFaceGenerator({ ...lfwFaceModel, seed });
  const { listId } = await db.createList({ name: `churn-${randomUUID()}` });
  const put = async (first: number, count: number) => {
    for (let start = first; start < first + count; start += chunkFaces) {
      const people = Array.from({ length: Math.min(chunkFaces, first + count - start) }, (_, i) => start + i);
      await db.putFaces({
        listIds: [listId],
        descriptorVersion: 1,
        faces: people.map((person) => ({
          faceId: faceIdOf(listId, person),
          vector: generator.vector(person, 0),
        })),
      });
    }
  };
  const build = async (mode: "rebuild" | "update") =>
    buildHere(
      await contextOf(stores, {
        task_id: randomUUID(),
        list_id: listId,
        attempt: 1,
        epoch: 1,
        mode,
        engine,
        params: { m: defaults.m, ef_construction: defaults.efConstruction },
        descriptor_version: 1,
        dim,
      }),
    );
  const open = ({ indexId }: PublishedIndex): Promise<OpenedIndex> =>
    storage.open({ label: listId, indexId });

  await put(0, faces);
  await build("rebuild");
  const rows: ChurnRow[] = [];
  let replaced = 0;
  for (const replacedShare of options.shares) {
    // The oldest go, new persons come.
    const next = Math.round(faces * replacedShare);
    const gone = Array.from({ length: next - replaced }, (_, i) => faceIdOf(listId, replaced + i));
    await db.unlinkFaces({ listId, faceIds: gone });
    await put(faces + replaced, next - replaced);
    replaced = next;
    const updated = await build("update");
    const members = Array.from({ length: faces }, (_, i) => replaced + i);
    const exact = createExactIndex({ dim });
    exact.upsert(
      members.map((person) => ({ faceId: faceIdOf(listId, person), vector: generator.vector(person, 0) })),
    );
    // Another image of persons of whom half came with the churn.
    const queries = Array.from({ length: probes }, (_, i) =>
      generator.vector(i % 2 === 0 ? faces + replaced - 1 - (i >> 1) : replaced + (i >> 1), 1),
    );
    const truth = await Promise.all(
      queries.map(async (query) => idsOf((await exact.search(query, { limit: k }))[0])),
    );
    await exact.close();
    const recallOf = async (published: PublishedIndex) => {
      const { keyed } = await open(published);
      try {
        return await recall(keyed, queries, truth);
      } finally {
        await keyed.close();
      }
    };
    const updatedRecall = await recallOf(updated);
    // A fresh build would be the base of the next update: it is taken away again.
    const fresh = await build("rebuild");
    const freshRecall = await recallOf(fresh);
    await storage.remove({ indexId: fresh.indexId });
    if (updated.meta.build.mode !== "update") throw new Error("it was rebuilt instead of updated");
    rows.push({
      engine,
      replacedShare,
      updated: updatedRecall,
      fresh: freshRecall,
      removedSinceRebuild: updated.meta.removed_since_rebuild,
      slots: updated.meta.slots,
    });
  }
  return rows;
}

function idsOf(matches: readonly (readonly [string, number])[] | undefined): Set<string> {
  return new Set((matches ?? []).map(([faceId]) => faceId));
}

async function recall(keyed: KeyedIndex, queries: readonly Float32Array[], truth: readonly Set<string>[]) {
  let found = 0;
  for (const [i, query] of queries.entries()) {
    const [matches] = await keyed.search(query, { limit: k, ef: defaults.efSearch });
    for (const faceId of idsOf(matches)) if (truth[i]?.has(faceId)) found++;
  }
  return found / (queries.length * k);
}
