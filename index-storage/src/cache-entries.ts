import { randomUUID } from "node:crypto";
import { rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { isMissing, namesIn } from "./files.ts";
import { isFolderId, Layout } from "./layout.ts";

/** A whole entry. Its folder's mtime is when a process of this host last used or wanted it. */
export interface CacheEntry {
  label: string;
  indexId: string;
  path: string;
  usedMs: number;
  sizeBytes: number;
}

export class CacheLayout extends Layout {
  /** Copies under way: `<index_id>.<random>`. */
  readonly fetching: string;
  readonly locks: string;

  constructor(root: string) {
    super(root);
    this.fetching = join(root, ".fetching");
    this.locks = join(root, ".locks");
  }
}

/** Undefined where it is gone. */
export async function timeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw thrown;
  }
}

/** Notes a use of `path`. What cannot be noted (a read-only folder) is not removed from there either. */
export async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined);
}

export async function listEntries(layout: CacheLayout): Promise<CacheEntry[]> {
  const entries: CacheEntry[] = [];
  for (const label of await namesIn(layout.root)) {
    if (!isFolderId(label)) continue;
    for (const indexId of await namesIn(layout.label(label))) {
      if (!isFolderId(indexId)) continue;
      const path = layout.index(label, indexId);
      const usedMs = await timeOf(path);
      if (usedMs === undefined) continue;
      let sizeBytes = 0;
      for (const name of await namesIn(path))
        sizeBytes += await stat(join(path, name)).then(
          ({ size }) => size,
          () => 0,
        );
      entries.push({ label, indexId, path, usedMs, sizeBytes });
    }
  }
  return entries;
}

/**
 * Takes an entry out of sight, then deletes it. With `unusedSinceMs` it is put back where someone began to use it in
 * between. False where it stays or was gone.
 */
export async function discardEntry(
  layout: CacheLayout,
  entry: Pick<CacheEntry, "indexId" | "path">,
  unusedSinceMs?: number,
): Promise<boolean> {
  const grave = join(layout.trash, `${entry.indexId}.${randomUUID()}`);
  try {
    await rename(entry.path, grave);
  } catch (thrown) {
    if (isMissing(thrown)) return false;
    throw thrown;
  }
  if (unusedSinceMs !== undefined && ((await timeOf(grave)) ?? 0) > unusedSinceMs) {
    const isBack = await rename(grave, entry.path).then(
      () => true,
      () => false,
    );
    if (isBack) return false;
  }
  await rm(grave, { recursive: true, force: true });
  return true;
}

/** Removes what processes left that died in the middle: copies, locks, graves. */
export async function removeLeftovers(layout: CacheLayout, olderThanMs: number): Promise<void> {
  for (const folder of [layout.fetching, layout.trash, layout.locks])
    for (const name of await namesIn(folder)) {
      const path = join(folder, name);
      if (((await timeOf(path)) ?? olderThanMs) < olderThanMs)
        await rm(path, { recursive: true, force: true });
    }
}
