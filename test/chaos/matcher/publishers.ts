import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { EngineName } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { type IndexStorage, openIndexStorage, type PublishedIndex } from "@lim/index-storage";
import { corruptFile } from "@lim/testkit";
import { type Findings, textOf } from "../findings.ts";
import { publishIndex } from "../publish.ts";
import type { Chances } from "../random.ts";

const pauseMs = { least: 400, most: 2_500 } as const;
const keptIndexes = 3;
const engineFile = "index.dat";
const idsFile = "ids.dat";

export interface PublisherDeps {
  db: FacesDb;
  storage: IndexStorage;
  /** Beside the root and on its file system: where an index is damaged before anybody sees it. */
  workshop: string;
  engines: readonly EngineName[];
  labels: () => readonly string[];
  chances: Chances;
  findings: Findings;
  dim: number;
  descriptorVersion: number;
  /** Ids of damaged indexes are entered before they can be seen. */
  damaged: Set<string>;
}

export const damages = ["flipped byte", "truncated", "unreadable"] as const;
export type Damage = (typeof damages)[number];

/** Publishes newer indexes and removes old ones; one step at a time, whoever asks for it. */
export interface Publisher {
  run(signal: AbortSignal): Promise<void>;
  publish(label: string, engine?: EngineName): Promise<PublishedIndex>;
  /** A newest index of the label that is damaged from its first moment on; returns its id. */
  publishDamaged(label: string, damage: Damage): Promise<string>;
  remove(indexId: string): Promise<void>;
  /** While nothing is published or removed. */
  exclusive<T>(work: () => Promise<T>): Promise<T>;
}

export async function createPublisher(deps: PublisherDeps): Promise<Publisher> {
  const { db, storage, chances, findings, dim, descriptorVersion, workshop, damaged } = deps;
  const aside = await openIndexStorage({ root: workshop });
  let turn: Promise<unknown> = Promise.resolve();
  const exclusive = <T>(work: () => Promise<T>): Promise<T> => {
    const result = turn.then(work);
    turn = result.catch(() => {});
    return result;
  };
  const draw = () => chances.pick(deps.engines) ?? "hnsw";
  const publish = (label: string, engine = draw()) =>
    exclusive(async () => {
      const published = await publishIndex({ storage, db }, { label, engine, dim, descriptorVersion });
      const { indexId, meta } = published;
      findings.event({ kind: "index published", label, indexId, engine, revision: meta.revision });
      findings.count("publisher", `published, ${engine}`);
      return published;
    });
  const tidy = (label: string) =>
    exclusive(async () => {
      const { indexes } = await storage.list({ label });
      for (const { indexId } of indexes.slice(keptIndexes)) {
        await storage.remove({ indexId });
        findings.count("publisher", "removed");
      }
    });
  return {
    exclusive,
    publish,
    remove: (indexId) =>
      exclusive(async () => {
        await storage.remove({ indexId });
        findings.event({ kind: "index removed", indexId });
        findings.count("publisher", "removed");
      }),
    publishDamaged: (label, damage) =>
      exclusive(async () => {
        const engine = draw();
        const { indexId, meta } = await publishIndex(
          { storage: aside, db },
          { label, engine, dim, descriptorVersion },
        );
        damaged.add(indexId);
        const folder = join(workshop, label, indexId);
        await damageFolder(folder, damage, chances);
        await mkdir(join(storage.root, label), { recursive: true });
        await rename(folder, join(storage.root, label, indexId));
        findings.event({
          kind: `index published, ${damage}`,
          label,
          indexId,
          engine,
          revision: meta.revision,
        });
        findings.count("publisher", `published, ${damage}`);
        return indexId;
      }),
    async run(signal) {
      while (!signal.aborted) {
        const label = chances.pick(deps.labels());
        if (label !== undefined)
          await publish(label)
            .then(() => tidy(label))
            // Postgres may be away; what is published whole is never half.
            .catch((error: unknown) => findings.count("publisher", `failed: ${textOf(error).slice(0, 80)}`));
        await sleep(chances.between(pauseMs.least, pauseMs.most), undefined, { signal }).catch(() => {});
      }
      await turn;
    },
  };
}

async function damageFolder(folder: string, damage: Damage, chances: Chances): Promise<void> {
  const path = join(folder, chances.hits(0.7) ? engineFile : idsFile);
  if (damage === "flipped byte") return corruptFile(path, { flipByteAt: chances.whole(4_000) });
  if (damage === "truncated") return corruptFile(path, { truncateTo: chances.whole(4_000) });
  // Permissions mean nothing to root; a folder in the place of a file is unreadable for anybody.
  await rm(path);
  await mkdir(path);
}
