import { createHash } from "node:crypto";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type IndexMeta,
  indexMetaFormatVersion,
  indexMetaSchema,
  LimError,
  uuidSchema,
} from "@lim/contracts";
import type { EngineAdapter, EngineFiles, KeyedIndex } from "@lim/vector-index";
import { assertLive, digestFile, type FileDigest } from "./files.ts";
import { type DataFile, dataFilesOf, fileNames, storageLimits } from "./layout.ts";
import { loadVerified, readVerified } from "./opening.ts";
import type { StagedContent } from "./port.ts";
import { samplePositions, verifyReopened } from "./probe.ts";

/** What meta.json will say, but for what only the verification knows, and where the attempt's files are. */
export const savedIndexSchema = indexMetaSchema
  .omit({ create_time: true, recall: true, meta_sha256: true })
  .extend({
    attempt: indexMetaSchema.shape.recall.shape.k,
    /** Name of the work folder within the attempt's folder. */
    work: uuidSchema,
    /** Digest of the file of known vectors, which never reaches the published folder. */
    known: indexMetaSchema.shape.files.shape[fileNames.index],
  });
/** A saved index that another process is to verify and publish. Plain facts that survive JSON. */
export type SavedIndex = ReturnType<typeof savedIndexSchema.parse>;

export interface StagedNames {
  label: string;
  indexId: string;
  attempt: number;
  /** The attempt's folder. */
  path: string;
  /** Name of the work folder in it. */
  work: string;
}

/** Beside the work folder, which becomes the published one. */
export function knownPath({ path, work }: Pick<StagedNames, "path" | "work">): string {
  return join(path, `${work}.known`);
}

function digestOf(bytes: Uint8Array): FileDigest {
  return { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/** Writes engine files, ids and known vectors and hashes them. Nothing is durable yet; phases are not measured. */
export async function writeSaved(
  names: StagedNames,
  keyed: KeyedIndex,
  content: StagedContent,
  signal: AbortSignal | undefined,
): Promise<SavedIndex> {
  const folder = join(names.path, names.work);
  const paths = { index: join(folder, fileNames.index), vectors: join(folder, fileNames.vectors) };
  await stat(folder);
  const ids = keyed.exportIds();
  const vectors = await keyed.index.read(samplePositions(ids, storageLimits.probeVectors), { signal });
  const known = new Uint8Array(vectors.buffer, vectors.byteOffset, vectors.byteLength);
  const saved = await keyed.index.save(paths, { signal });
  await writeFile(join(folder, fileNames.ids), ids);
  await writeFile(knownPath(names), known);
  const [index, rows] = await Promise.all([
    digestFile(paths.index, { signal }),
    saved.vectors ? digestFile(paths.vectors, { signal }) : undefined,
  ]);
  return {
    ...draftOf(names, keyed, content),
    files: {
      [fileNames.index]: index,
      [fileNames.ids]: digestOf(ids),
      ...(rows ? { [fileNames.vectors]: rows } : {}),
    },
    attempt: names.attempt,
    work: names.work,
    known: digestOf(known),
  };
}

function draftOf(
  names: StagedNames,
  { index, count }: KeyedIndex,
  content: StagedContent,
): Omit<IndexMeta, "files" | "recall" | "create_time" | "meta_sha256"> {
  return {
    format_version: indexMetaFormatVersion,
    index_id: names.indexId,
    index_type: "list",
    label: names.label,
    history_id: content.historyId,
    descriptor_version: content.descriptorVersion,
    dim: index.dim,
    metric: "ip",
    engine: { name: index.engine.name, version: index.engine.version },
    params: { m: content.params.m, ef_construction: content.params.efConstruction },
    count,
    slots: index.slots,
    revision: content.revision,
    ...(content.baseIndexId === undefined ? {} : { base_index_id: content.baseIndexId }),
    removed_since_rebuild: content.removedSinceRebuild,
    build: { mode: content.mode, skipped: content.skipped, phases: {} },
  };
}

/** meta.json in the order of its fields. */
export function metaOf(
  saved: SavedIndex,
  measured: { recall: number; phases: Record<string, number> },
): IndexMeta {
  const { attempt: _attempt, work: _work, known: _known, files, build, ...head } = saved;
  return {
    ...head,
    create_time: new Date().toISOString(),
    build: { ...build, phases: measured.phases },
    recall: { k: storageLimits.recallK, sampled: measured.recall },
    files,
  };
}

/** What tells whether someone wrote to a file between two looks. */
type FileState = readonly [ino: bigint, size: bigint, mtimeNs: bigint, ctimeNs: bigint];

async function stateOf(path: string): Promise<FileState> {
  const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return [ino, size, mtimeNs, ctimeNs];
}

/**
 * The data files of an attempt as they were when they were hashed. A private copy, as of an opening, would cost the
 * index's size again on the disk; nobody but this attempt knows the name of its work folder, so it is enough to notice
 * that someone wrote to it all the same: after loading, after all that was read of the file of vectors in place and,
 * again, before the index becomes visible.
 */
export class HashedFiles {
  private readonly states: ReadonlyMap<string, FileState>;

  private constructor(states: ReadonlyMap<string, FileState>) {
    this.states = states;
  }

  /** Hashes the files and compares. Throws `verification_failed`. Returns the ids besides. */
  static async of(
    folder: string,
    saved: SavedIndex,
    signal: AbortSignal | undefined,
  ): Promise<{ hashed: HashedFiles; ids: Uint8Array }> {
    const states = new Map<string, FileState>();
    let ids = new Uint8Array();
    const look = async (name: DataFile, expected: FileDigest) => {
      const path = join(folder, name);
      states.set(path, await stateOf(path));
      const isIds = name === fileNames.ids;
      const bytes = await readVerified(path, name, expected, { signal, keep: isIds });
      if (isIds) ids = bytes;
    };
    await Promise.all(dataFilesOf(saved.files).map(({ name, ...expected }) => look(name, expected)));
    const hashed = new HashedFiles(states);
    await hashed.assertUntouched();
    return { hashed, ids };
  }

  /** Throws `verification_failed` where a file is not the one that was hashed any more. */
  async assertUntouched(): Promise<void> {
    for (const [path, before] of this.states) {
      const now = await stateOf(path);
      if (before.some((value, i) => value !== now[i]))
        throw new LimError("verification_failed", `${path} was written to while it was verified`);
    }
  }
}

/**
 * Opens saved files in a new object and compares it with what was built: hashes before anything reads them, then
 * counts, known vectors, and how well it finds. Returns the sampled recall. Throws `verification_failed`.
 */
export async function verifySaved(
  names: StagedNames,
  saved: SavedIndex,
  adapter: EngineAdapter,
  options: { signal: AbortSignal | undefined; onOpened: () => void },
): Promise<{ recall: number; hashed: HashedFiles }> {
  const { signal, onOpened } = options;
  const folder = join(names.path, names.work);
  const files: EngineFiles = { index: join(folder, fileNames.index) };
  if (saved.files[fileNames.vectors]) files.vectors = join(folder, fileNames.vectors);
  try {
    const known = await readVerified(knownPath(names), "known vectors", saved.known, { signal, keep: true });
    const { hashed, ids } = await HashedFiles.of(folder, saved, signal);
    assertLive(signal);
    const reopened = await loadVerified(adapter, { files, ids }, saved, { signal, inPlace: true });
    try {
      await hashed.assertUntouched();
      onOpened();
      const vectors = new Float32Array(known.buffer, known.byteOffset, known.byteLength >> 2);
      const recall = await verifyReopened(reopened, vectors, ids, signal);
      await hashed.assertUntouched();
      return { recall, hashed };
    } finally {
      await reopened.close();
    }
  } catch (cause) {
    const { errorName, detail } = LimError.from(cause, "engine_failed");
    throw errorName === "index_refused" ? new LimError("verification_failed", detail, { cause }) : cause;
  }
}
