import { randomUUID } from "node:crypto";
import { rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { isLimError, LimError } from "@lim/contracts";
import { assertLive, exists, isMissing, namesIn, storageError } from "./files.ts";
import { folderId, isFolderId, type Layout } from "./layout.ts";
import { Lister } from "./listing.ts";
import { isMarked, mark, markNames } from "./marks.ts";
import { readPublished } from "./meta.ts";
import { type LoadAdapter, openPublished, verifyPublished } from "./opening.ts";
import type { CollectReport, IndexStorage, PublishedIndex } from "./port.ts";
import { savedIndexSchema } from "./saved.ts";
import { discardAttempt, moveToTrash, resumeAttempt, stageAttempt, stagedNames } from "./staging.ts";

export interface StorageContext {
  layout: Layout;
  scratchDir: string;
  loadAdapter: LoadAdapter;
  stagingSilentMs: number;
  trashGraceMs: number;
  markKeepMs: number;
}

export function createStorage(context: StorageContext): IndexStorage {
  const { layout } = context;
  const lister = new Lister(layout);
  const guarded = async <T>(doing: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (thrown) {
      throw storageError(thrown, doing);
    }
  };
  return {
    root: layout.root,
    async stage({ work = randomUUID(), signal, ...of }) {
      assertLive(signal);
      return stageAttempt(context, stagedNames(layout, { ...of, work }));
    },
    discard: ({ signal, ...of }) =>
      guarded("discarding an attempt", async () => {
        assertLive(signal);
        await discardAttempt(context, stagedNames(layout, of));
      }),
    async resume({ saved, signal }) {
      assertLive(signal);
      const parsed = savedIndexSchema.safeParse(saved);
      if (!parsed.success)
        throw new LimError("bad_input", `not a saved index: ${parsed.error.issues[0]?.message ?? ""}`);
      return resumeAttempt(context, parsed.data);
    },
    list: (options = {}) => guarded("listing indexes", () => lister.list(options)),
    find: ({ indexId, label, signal }) =>
      guarded("looking for an index", async () => {
        const id = folderId("index id", indexId);
        if (await isMarked(layout, id)) return undefined;
        return find(layout, id, label === undefined ? undefined : folderId("label", label), signal);
      }),
    open: ({ label, indexId, signal, rerank }) =>
      guarded("opening an index", () =>
        openPublished(
          context,
          folderId("label", label),
          folderId("index id", indexId),
          signal,
          rerank && { rerank },
        ),
      ),
    verify: ({ label, indexId, signal }) =>
      guarded("verifying an index", () =>
        verifyPublished(layout, folderId("label", label), folderId("index id", indexId), signal),
      ),
    remove: ({ indexId, signal }) =>
      guarded("removing an index", async () => {
        assertLive(signal);
        const id = folderId("index id", indexId);
        await mark(layout, id);
        let removed = false;
        for (const label of await namesIn(layout.root))
          if (isFolderId(label) && (await moveToTrash(layout, label, id))) removed = true;
        return { removed };
      }),
    markRemoved: ({ indexId, signal }) =>
      guarded("marking an index", async () => {
        assertLive(signal);
        await mark(layout, folderId("index id", indexId));
      }),
    isMarkedRemoved: ({ indexId }) =>
      guarded("looking for a mark", () => isMarked(layout, folderId("index id", indexId))),
    collect: (options = {}) => guarded("collecting", () => collect(context, options)),
  };
}

/** A bad folder of the same name under another label, a copy made by hand, does not hide the index. */
async function find(
  layout: Layout,
  indexId: string,
  label: string | undefined,
  signal: AbortSignal | undefined,
): Promise<PublishedIndex | undefined> {
  let refused: unknown;
  for (const candidate of label === undefined ? await namesIn(layout.root) : [label]) {
    assertLive(signal);
    if (!isFolderId(candidate) || !(await exists(layout.index(candidate, indexId)))) continue;
    try {
      const found = await readPublished(layout, candidate, indexId);
      if (found) return found;
    } catch (thrown) {
      if (!isLimError(thrown, "index_refused")) throw thrown;
      refused ??= thrown;
    }
  }
  if (refused !== undefined) throw refused;
  return undefined;
}

async function ageMs(path: string, nowMs: number): Promise<number | undefined> {
  try {
    return nowMs - (await stat(path)).mtimeMs;
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw thrown;
  }
}

async function olderThan(folder: string, limitMs: number, nowMs: number): Promise<string[]> {
  const old: string[] = [];
  for (const name of (await namesIn(folder)).toSorted()) {
    const age = await ageMs(join(folder, name), nowMs);
    if (age !== undefined && age > limitMs) old.push(name);
  }
  return old;
}

async function collect(
  context: StorageContext,
  options: { dryRun?: boolean; nowMs?: number; signal?: AbortSignal | undefined },
): Promise<CollectReport> {
  const { layout } = context;
  const { dryRun = false, nowMs = Date.now(), signal } = options;
  const report: CollectReport = { staging: [], trash: [], marks: [] };
  const faults: unknown[] = [];
  // One folder that cannot be deleted must not keep all others on the disk for ever.
  const each = async (names: string[], work: (name: string) => Promise<unknown>) => {
    for (const name of names) {
      assertLive(signal);
      await work(name).catch((thrown: unknown) => faults.push(thrown));
    }
  };
  await each(await olderThan(layout.trash, context.trashGraceMs, nowMs), async (name) => {
    if (!dryRun) await rm(join(layout.trash, name), { recursive: true, force: true });
    report.trash.push(name);
  });
  await each(await olderThan(layout.staging, context.stagingSilentMs, nowMs), async (name) => {
    if (dryRun || (await buryStaging(context, name, nowMs))) report.staging.push(name);
  });
  // Marks end after this only: without its mark an index that is still in place would be visible again.
  if (!dryRun) await buryMarked(layout, signal);
  await each(await olderThan(layout.removed, context.markKeepMs, nowMs), async (name) => {
    if (!dryRun) await rm(layout.mark(name), { force: true });
    report.marks.push(name);
  });
  if (faults.length > 0) throw storageError(faults[0], `collecting, ${faults.length} deletions failed`);
  return report;
}

/** Takes away marked indexes whose remover died. One look into each label, however many marks there are. */
async function buryMarked(layout: Layout, signal: AbortSignal | undefined): Promise<void> {
  const marked = new Set(await markNames(layout));
  for (const label of await namesIn(layout.root)) {
    assertLive(signal);
    if (!isFolderId(label)) continue;
    for (const name of await namesIn(layout.label(label)))
      if (isFolderId(name) && marked.has(name)) await moveToTrash(layout, label, name);
  }
}

/** Moves a silent attempt away, looks at its heartbeat once more (it may have beaten meanwhile), then deletes it. */
async function buryStaging(context: StorageContext, name: string, nowMs: number): Promise<boolean> {
  const { layout } = context;
  const path = join(layout.staging, name);
  const grave = join(layout.trash, `${name}.${randomUUID()}`);
  try {
    await rename(path, grave);
  } catch (thrown) {
    if (isMissing(thrown)) return false;
    throw thrown;
  }
  const age = await ageMs(grave, nowMs);
  if (age !== undefined && age <= context.stagingSilentMs) {
    await rename(grave, path);
    return false;
  }
  await rm(grave, { recursive: true, force: true });
  return true;
}
