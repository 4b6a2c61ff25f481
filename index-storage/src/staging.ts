import { randomUUID } from "node:crypto";
import { lstat, mkdir, rename, rm, rmdir, stat, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type IndexMeta, LimError } from "@lim/contracts";
import type { KeyedIndex } from "@lim/vector-index";
import {
  assertLive,
  errorCode,
  exists,
  isMissing,
  namesIn,
  storageError,
  syncPath,
  writeDurably,
} from "./files.ts";
import {
  dataFilesOf,
  fileNames,
  folderId,
  isFolderId,
  type Layout,
  sizeOf,
  storageLimits,
} from "./layout.ts";
import { isMarked } from "./marks.ts";
import { formatMeta, readPublished } from "./meta.ts";
import { type LoadAdapter, verifyPublished } from "./opening.ts";
import type { PublishedIndex, SaveOptions, StagedContent, Staging } from "./port.ts";
import { knownPath, metaOf, type SavedIndex, type StagedNames, verifySaved, writeSaved } from "./saved.ts";

/** What a work folder that was taken away may look like from inside. */
const namesOfLostFiles: ReadonlySet<string> = new Set([
  "storage_unavailable",
  "engine_failed",
  "verification_failed",
]);
/** Saved, opened, compared. */
const verifySteps = 3;

export interface StagingContext {
  layout: Layout;
  loadAdapter: LoadAdapter;
}

/**
 * The attempt's folder is the heartbeat; its files are in a folder of a random name inside, so that a second
 * process with the same attempt, which replaces the attempt's folder, can never mix its files with the first one's.
 */
export async function stageAttempt(context: StagingContext, names: StagedNames): Promise<Staging> {
  const { layout } = context;
  const { indexId, path, work } = names;
  try {
    await assertNotRemoved(layout, indexId);
    await discardFolder(layout, path);
    await mkdir(join(path, work), { recursive: true });
  } catch (thrown) {
    throw storageError(thrown, `staging index ${indexId}`);
  }
  return new StagedAttempt(context, names);
}

/** Throws bad_input for what cannot name an attempt. */
export function stagedNames(
  layout: Layout,
  of: { label: string; indexId: string; attempt: number; work: string },
): StagedNames {
  const { attempt } = of;
  if (!Number.isSafeInteger(attempt) || attempt < 1) throw new LimError("bad_input", `attempt is ${attempt}`);
  const indexId = folderId("index id", of.indexId);
  return {
    label: folderId("label", of.label),
    indexId,
    attempt,
    path: join(layout.staging, `${indexId}.${attempt}`),
    work: folderId("work folder", of.work),
  };
}

/** Takes away one work folder and what belongs to it. Asks for no mark: left-overs of a removed id go as well. */
export async function discardAttempt(context: StagingContext, names: StagedNames): Promise<void> {
  await new StagedAttempt(context, names).discard();
}

/** The very work folder of an attempt that another process saved. */
export async function resumeAttempt(context: StagingContext, saved: SavedIndex): Promise<Staging> {
  const { index_id: indexId, label, attempt, work } = saved;
  const path = join(context.layout.staging, `${indexId}.${attempt}`);
  const staging = new StagedAttempt(context, { label, indexId, attempt, path, work });
  try {
    await assertNotRemoved(context.layout, indexId);
  } catch (thrown) {
    throw storageError(thrown, `resuming index ${indexId}`);
  }
  await staging.touch();
  return staging;
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
  readonly vectorsPath: string;
  private readonly label: string;
  private readonly names: StagedNames;
  private readonly work: string;
  private readonly context: StagingContext;
  private published: Promise<PublishedIndex> | undefined;

  constructor(context: StagingContext, names: StagedNames) {
    this.context = context;
    this.names = names;
    this.label = names.label;
    this.indexId = names.indexId;
    this.attempt = names.attempt;
    this.path = names.path;
    this.work = join(names.path, names.work);
    this.vectorsPath = join(this.work, fileNames.vectors);
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

  publish(keyed: KeyedIndex, content: StagedContent, options: SaveOptions): Promise<PublishedIndex> {
    return this.once(async () => {
      const saved = await this.save(keyed, content, options);
      return this.verifyAndReveal(saved, options);
    });
  }

  save(keyed: KeyedIndex, content: StagedContent, options: SaveOptions): Promise<SavedIndex> {
    return this.alive(`saving index ${this.indexId}`, async () => {
      this.assertContent(keyed, content);
      await assertNotRemoved(this.context.layout, this.indexId);
      const { signal, onPhase = () => {} } = options;
      onPhase("verify", 0, verifySteps);
      const phases = { ...options.phases };
      const saved = await timed(phases, "verify", () => writeSaved(this.names, keyed, content, signal));
      onPhase("verify", 1, verifySteps);
      return { ...saved, build: { ...saved.build, phases } };
    });
  }

  publishSaved(saved: SavedIndex, options: Omit<SaveOptions, "phases"> = {}): Promise<PublishedIndex> {
    return this.once(() => this.verifyAndReveal(saved, options));
  }

  async discard(): Promise<void> {
    // Not the whole attempt: another process may have replaced it.
    await rm(this.work, { recursive: true, force: true });
    await this.removeEmptyAttempt();
  }

  /** A publication that failed may be tried again; one that succeeded is repeated by its result. */
  private once(publish: () => Promise<PublishedIndex>): Promise<PublishedIndex> {
    if (this.published) return this.published;
    const publishing = publish();
    this.published = publishing;
    publishing.catch(() => {
      this.published = undefined;
    });
    return publishing;
  }

  /** With the heartbeat beating; what goes wrong is named. */
  private async alive<T>(doing: string, work: () => Promise<T>): Promise<T> {
    const heartbeat = setInterval(() => void this.touch().catch(() => {}), storageLimits.heartbeatMs);
    try {
      return await work();
    } catch (thrown) {
      throw await this.judged(thrown, doing);
    } finally {
      clearInterval(heartbeat);
    }
  }

  private verifyAndReveal(saved: SavedIndex, options: Omit<SaveOptions, "phases">): Promise<PublishedIndex> {
    return this.alive(`publishing index ${this.indexId}`, async () => {
      this.assertOwn(saved);
      await assertNotRemoved(this.context.layout, this.indexId);
      const { signal, onPhase = () => {} } = options;
      const phases = { ...saved.build.phases };
      // Beside the verification, which only reads them: the disk has until its end. It fails what it fails in `store`.
      const files = dataFilesOf(saved.files).map(({ name }) => join(this.work, name));
      const stored = Promise.allSettled(files.map((path) => syncPath(path)));
      const { recall, hashed } = await timed(phases, "verify", async () =>
        verifySaved(this.names, saved, await this.context.loadAdapter(saved.engine.name), {
          signal,
          onOpened: () => onPhase("verify", 2, verifySteps),
        }),
      ).catch(async (failure) => {
        await stored;
        throw failure;
      });
      onPhase("verify", verifySteps, verifySteps);
      onPhase("store", 0, files.length);
      await timed(phases, "store", () => allOf(stored));
      onPhase("store", files.length, files.length);
      onPhase("publish", 0, 1);
      await hashed.assertUntouched();
      const published = await this.reveal(metaOf(saved, { recall, phases }), signal);
      onPhase("publish", 1, 1);
      return published;
    });
  }

  private assertOwn(saved: SavedIndex): void {
    const { label, indexId, attempt, work } = this.names;
    if (
      saved.label !== label ||
      saved.index_id !== indexId ||
      saved.attempt !== attempt ||
      saved.work !== work
    )
      throw new LimError(
        "bad_input",
        `saved was attempt ${saved.attempt} of ${saved.index_id}, not this one of ${indexId}`,
      );
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
      await rm(knownPath(this.names), { force: true });
      await rmdir(this.path);
    } catch (thrown) {
      if (!isMissing(thrown) && !alreadyThere(thrown)) throw thrown;
    }
  }

  /** Whatever failed after the work folder was taken away failed for that reason. */
  private async judged(thrown: unknown, doing: string): Promise<LimError> {
    return (await this.lossBehind(thrown)) ?? storageError(thrown, doing);
  }

  async lossBehind(failure: unknown): Promise<LimError | undefined> {
    if (!isMissing(failure) && !namesOfLostFiles.has(storageError(failure, "building").errorName))
      return undefined;
    if (await exists(this.work).catch(() => true)) return undefined;
    return new LimError("fenced", "the staging folder was replaced by another attempt, or collected", {
      cause: failure,
    });
  }
}

async function allOf(settled: Promise<PromiseSettledResult<void>[]>): Promise<void> {
  for (const result of await settled) if (result.status === "rejected") throw result.reason;
}

async function timed<T>(phases: Record<string, number>, phase: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  try {
    return await work();
  } finally {
    phases[phase] = (phases[phase] ?? 0) + performance.now() - start;
  }
}
