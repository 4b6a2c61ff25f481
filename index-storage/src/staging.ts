import { randomUUID } from "node:crypto";
import { lstat, mkdir, rename, rm, rmdir, stat, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type IndexMeta, indexMetaFormatVersion, LimError } from "@lim/contracts";
import type { KeyedIndex } from "@lim/vector-index";
import {
  assertLive,
  digestFile,
  errorCode,
  exists,
  isMissing,
  namesIn,
  storageError,
  syncPath,
  writeDurably,
} from "./files.ts";
import { type DataFile, fileNames, isFolderId, type Layout, sizeOf, storageLimits } from "./layout.ts";
import { isMarked } from "./marks.ts";
import { formatMeta, readPublished } from "./meta.ts";
import { type LoadAdapter, loadVerified, verifyPublished } from "./opening.ts";
import type { PublishedIndex, StagedContent, Staging } from "./port.ts";
import { verifyReopened } from "./probe.ts";

type PublishOptions = Parameters<Staging["publish"]>[2];

export interface StagingContext {
  layout: Layout;
  loadAdapter: LoadAdapter;
}

/**
 * The attempt's folder is the heartbeat; its files are in a folder of a random name inside, so that a second
 * process with the same attempt, which replaces the attempt's folder, can never mix its files with the first one's.
 */
export async function stageAttempt(
  context: StagingContext,
  label: string,
  indexId: string,
  attempt: number,
): Promise<Staging> {
  const { layout } = context;
  const path = join(layout.staging, `${indexId}.${attempt}`);
  const work = join(path, randomUUID());
  try {
    await assertNotRemoved(layout, indexId);
    await discardFolder(layout, path);
    await mkdir(work, { recursive: true });
  } catch (thrown) {
    throw storageError(thrown, `staging index ${indexId}`);
  }
  return new StagedAttempt(context, { label, indexId, attempt, path, work });
}

function alreadyThere(thrown: unknown): boolean {
  const code = errorCode(thrown);
  return code === "ENOTEMPTY" || code === "EEXIST";
}

/** A folder cannot be renamed onto a folder with content (`alreadyThere`), nor onto a file or link (ENOTDIR). */
async function isTaken(folder: string, thrown: unknown): Promise<boolean> {
  if (errorCode(thrown) !== "ENOTDIR") return alreadyThere(thrown);
  return lstat(folder).then(
    () => true,
    () => false,
  );
}

async function assertNotRemoved(layout: Layout, indexId: string): Promise<void> {
  if (await isMarked(layout, indexId))
    throw new LimError("build_cancelled", `index ${indexId} was removed or cancelled`);
}

/** Takes a folder out of the way in one step, then deletes it. */
async function discardFolder(layout: Layout, path: string): Promise<void> {
  const grave = join(layout.trash, `${randomUUID()}.staging`);
  try {
    await rename(path, grave);
  } catch (thrown) {
    if (isMissing(thrown)) return;
    throw thrown;
  }
  await rm(grave, { recursive: true, force: true });
}

/** Moves a published index into the trash; false where it was not there. Its age there begins now. */
export async function moveToTrash(layout: Layout, label: string, indexId: string): Promise<boolean> {
  const folder = layout.index(label, indexId);
  const now = new Date();
  try {
    await utimes(folder, now, now);
    await rename(folder, join(layout.trash, `${indexId}.${randomUUID()}`));
  } catch (thrown) {
    if (isMissing(thrown)) return false;
    throw thrown;
  }
  await syncPath(dirname(folder));
  return true;
}

class StagedAttempt implements Staging {
  readonly indexId: string;
  readonly attempt: number;
  readonly path: string;
  private readonly label: string;
  private readonly work: string;
  private readonly context: StagingContext;
  private published: Promise<PublishedIndex> | undefined;

  constructor(
    context: StagingContext,
    names: { label: string; indexId: string; attempt: number; path: string; work: string },
  ) {
    this.context = context;
    this.label = names.label;
    this.indexId = names.indexId;
    this.attempt = names.attempt;
    this.path = names.path;
    this.work = names.work;
  }

  async touch(): Promise<void> {
    const now = new Date();
    try {
      await stat(this.work);
      await utimes(this.path, now, now);
    } catch (thrown) {
      throw await this.judged(thrown, "renewing the heartbeat");
    }
  }

  publish(keyed: KeyedIndex, content: StagedContent, options: PublishOptions): Promise<PublishedIndex> {
    if (this.published) return this.published;
    const publishing = this.run(keyed, content, options);
    this.published = publishing;
    // A publication that failed may be tried again; one that succeeded is repeated by its result.
    publishing.catch(() => {
      this.published = undefined;
    });
    return publishing;
  }

  async discard(): Promise<void> {
    // Not the whole attempt: another process may have replaced it.
    await rm(this.work, { recursive: true, force: true });
    await this.removeEmptyAttempt();
  }

  private async run(
    keyed: KeyedIndex,
    content: StagedContent,
    options: PublishOptions,
  ): Promise<PublishedIndex> {
    this.assertContent(keyed, content);
    const heartbeat = setInterval(() => void this.touch().catch(() => {}), storageLimits.heartbeatMs);
    try {
      await assertNotRemoved(this.context.layout, this.indexId);
      const phases = { ...options.phases };
      const onPhase = options.onPhase ?? (() => {});
      const { recall, written } = await timed(phases, "verify", () =>
        this.save(keyed, content, options, onPhase),
      );
      const files = await timed(phases, "store", () => this.store(written, options, onPhase));
      onPhase("publish", 0, 1);
      const meta = this.metaOf(keyed, content, { files, recall, phases });
      const published = await this.reveal(meta, options.signal);
      onPhase("publish", 1, 1);
      return published;
    } catch (thrown) {
      throw await this.judged(thrown, `publishing index ${this.indexId}`);
    } finally {
      clearInterval(heartbeat);
    }
  }

  private assertContent(keyed: KeyedIndex, content: StagedContent): void {
    if (content.label !== this.label)
      throw new LimError("bad_input", `staged for label ${this.label}, content is of ${content.label}`);
    if (content.engine !== keyed.index.engine.name)
      throw new LimError(
        "bad_input",
        `content says ${content.engine}, the index is ${keyed.index.engine.name}`,
      );
    if (keyed.count === 0) throw new LimError("empty_list", "an index without faces is not published");
  }

  /** Writes the files, reopens them in a new object and compares. Returns the sampled recall and what was written. */
  private async save(
    keyed: KeyedIndex,
    content: StagedContent,
    { signal }: PublishOptions,
    onPhase: NonNullable<PublishOptions["onPhase"]>,
  ): Promise<{ recall: number; written: readonly DataFile[] }> {
    onPhase("verify", 0, 3);
    const paths = { index: join(this.work, fileNames.index), vectors: join(this.work, fileNames.vectors) };
    const ids = keyed.exportIds();
    await stat(this.work);
    const saved = await keyed.index.save(paths, { signal });
    await writeDurably(join(this.work, fileNames.ids), ids);
    onPhase("verify", 1, 3);
    const reopened = await loadVerified(
      await this.context.loadAdapter(content.engine),
      { files: saved.vectors ? paths : { index: paths.index }, ids },
      {
        dim: keyed.index.dim,
        slots: keyed.index.slots,
        count: keyed.count,
        params: { m: content.params.m, ef_construction: content.params.efConstruction },
      },
      signal,
    ).catch((cause: unknown) => {
      const { errorName, detail } = LimError.from(cause, "engine_failed");
      throw errorName === "index_refused" ? new LimError("verification_failed", detail, { cause }) : cause;
    });
    onPhase("verify", 2, 3);
    try {
      const recall = await verifyReopened(reopened, keyed, ids, signal);
      onPhase("verify", 3, 3);
      const written: DataFile[] = [fileNames.index, fileNames.ids];
      return { recall, written: saved.vectors ? [...written, fileNames.vectors] : written };
    } finally {
      await reopened.close();
    }
  }

  private async store(
    written: readonly DataFile[],
    { signal }: PublishOptions,
    onPhase: NonNullable<PublishOptions["onPhase"]>,
  ): Promise<IndexMeta["files"]> {
    onPhase("store", 0, written.length);
    const digests = await Promise.all(
      written.map(async (name) => {
        const path = join(this.work, name);
        const digest = await digestFile(path, { signal });
        await syncPath(path);
        return [name, digest] as const;
      }),
    );
    const {
      [fileNames.index]: index,
      [fileNames.ids]: ids,
      [fileNames.vectors]: vectors,
    } = Object.fromEntries(digests);
    if (!index || !ids) throw new LimError("internal", "a data file was not hashed");
    onPhase("store", written.length, written.length);
    return {
      [fileNames.index]: index,
      [fileNames.ids]: ids,
      ...(vectors ? { [fileNames.vectors]: vectors } : {}),
    };
  }

  private metaOf(
    keyed: KeyedIndex,
    content: StagedContent,
    measured: { files: IndexMeta["files"]; recall: number; phases: Record<string, number> },
  ): IndexMeta {
    const { index } = keyed;
    return {
      format_version: indexMetaFormatVersion,
      index_id: this.indexId,
      index_type: "list",
      label: this.label,
      history_id: content.historyId,
      descriptor_version: content.descriptorVersion,
      dim: index.dim,
      metric: "ip",
      engine: { name: index.engine.name, version: index.engine.version },
      params: { m: content.params.m, ef_construction: content.params.efConstruction },
      count: keyed.count,
      slots: index.slots,
      revision: content.revision,
      ...(content.baseIndexId === undefined ? {} : { base_index_id: content.baseIndexId }),
      removed_since_rebuild: content.removedSinceRebuild,
      create_time: new Date().toISOString(),
      build: { mode: content.mode, skipped: content.skipped, phases: measured.phases },
      recall: { k: storageLimits.recallK, sampled: measured.recall },
      files: measured.files,
    };
  }

  /** Meta last, then one atomic rename between two looks for a removal mark. */
  private async reveal(meta: IndexMeta, signal: AbortSignal | undefined): Promise<PublishedIndex> {
    const { layout } = this.context;
    const folder = layout.index(this.label, this.indexId);
    await writeDurably(join(this.work, fileNames.meta), formatMeta(meta));
    await syncPath(this.work);
    await this.assertNoForeignLabel();
    await assertNotRemoved(layout, this.indexId);
    // The last moment for an abort: past the rename the index is there.
    assertLive(signal);
    await mkdir(layout.label(this.label), { recursive: true });
    try {
      await rename(this.work, folder);
    } catch (thrown) {
      if (!(await isTaken(folder, thrown))) throw thrown;
      return this.accept(meta, signal);
    }
    await syncPath(layout.label(this.label));
    await syncPath(layout.root);
    await this.removeEmptyAttempt();
    try {
      await assertNotRemoved(layout, this.indexId);
    } catch (thrown) {
      await moveToTrash(layout, this.label, this.indexId);
      throw thrown;
    }
    return { indexId: this.indexId, label: this.label, meta, sizeBytes: sizeOf(meta.files) };
  }

  /** The id is there already: an earlier attempt's verified index is as good as this one, anything else a conflict. */
  private async accept(own: IndexMeta, signal: AbortSignal | undefined): Promise<PublishedIndex> {
    const { layout } = this.context;
    const conflict = (detail: string, cause?: unknown) =>
      new LimError("index_id_conflict", `${this.label}/${this.indexId}: ${detail}`, { cause });
    let held: PublishedIndex | undefined;
    try {
      await verifyPublished(layout, this.label, this.indexId, signal);
      held = await readPublished(layout, this.label, this.indexId);
    } catch (cause) {
      const { errorName, detail } = LimError.from(cause, "storage_unavailable");
      if (errorName === "index_refused") throw conflict(detail, cause);
      if (errorName !== "not_found") throw cause;
      await assertNotRemoved(layout, this.indexId);
      throw conflict("something that is no folder has its name", cause);
    }
    if (!held) throw new LimError("build_cancelled", `index ${this.indexId} was removed`);
    const { meta } = held;
    if (
      meta.history_id !== own.history_id ||
      meta.descriptor_version !== own.descriptor_version ||
      meta.dim !== own.dim
    )
      throw conflict("holds an index of another history, descriptor version or dimension");
    await this.discard();
    return held;
  }

  private async assertNoForeignLabel(): Promise<void> {
    const { layout } = this.context;
    for (const label of await namesIn(layout.root)) {
      if (!isFolderId(label) || label === this.label) continue;
      if (await exists(layout.index(label, this.indexId)))
        throw new LimError("index_id_conflict", `index ${this.indexId} exists under label ${label}`);
    }
  }

  private async removeEmptyAttempt(): Promise<void> {
    try {
      await rmdir(this.path);
    } catch (thrown) {
      if (!isMissing(thrown) && !alreadyThere(thrown)) throw thrown;
    }
  }

  /** Whatever failed after the work folder was taken away failed for that reason. */
  private async judged(thrown: unknown, doing: string): Promise<LimError> {
    const error = isMissing(thrown) ? undefined : storageError(thrown, doing);
    const own = error?.errorName !== "storage_unavailable" && error?.errorName !== "engine_failed";
    if ((error && own) || (await exists(this.work).catch(() => true)))
      return error ?? storageError(thrown, doing);
    return new LimError("fenced", "the staging folder was replaced by another attempt, or collected", {
      cause: thrown,
    });
  }
}

async function timed<T>(phases: Record<string, number>, phase: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  try {
    return await work();
  } finally {
    phases[phase] = performance.now() - start;
  }
}
