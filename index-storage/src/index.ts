import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { loadEngine } from "@lim/vector-index";
import { storageError } from "./files.ts";
import { Layout, storageLimits } from "./layout.ts";
import { byNewestFirst } from "./listing.ts";
import { cleanScratch, type LoadAdapter } from "./opening.ts";
import type { IndexStorage, PublishedIndex, StorageListing } from "./port.ts";
import { createStorage } from "./storage.ts";

export { type CacheTimes, type IndexCacheOptions, openIndexCache } from "./cache.ts";
export type { CacheContents, CacheEvent, IndexCache } from "./cache-port.ts";
export { storageLimits } from "./layout.ts";
export type { LoadAdapter } from "./opening.ts";
export * from "./port.ts";
export { type SavedIndex, savedIndexSchema } from "./saved.ts";

/** Opens (and creates where missing) a storage root on a local or shared file system. */
export async function openIndexStorage(options: {
  root: string;
  /** Folder for private copies while opening; default: the system's temporary folder. */
  scratchDir?: string;
  stagingSilentMs?: number;
  trashGraceMs?: number;
  markKeepMs?: number;
  /** How engines are loaded; default: `loadEngine`. */
  loadAdapter?: LoadAdapter;
}): Promise<IndexStorage> {
  const layout = new Layout(resolve(options.root));
  const scratchDir = resolve(options.scratchDir ?? tmpdir());
  try {
    for (const folder of [layout.root, layout.staging, layout.removed, layout.trash, scratchDir])
      await mkdir(folder, { recursive: true });
    await cleanScratch(scratchDir);
  } catch (thrown) {
    throw storageError(thrown, `opening the storage root ${layout.root}`);
  }
  return createStorage({
    layout,
    scratchDir,
    loadAdapter: options.loadAdapter ?? loadEngine,
    stagingSilentMs: options.stagingSilentMs ?? storageLimits.stagingSilentMs,
    trashGraceMs: options.trashGraceMs ?? storageLimits.trashGraceMs,
    markKeepMs: options.markKeepMs ?? storageLimits.markKeepMs,
  });
}

/**
 * Newest servable index of a label: highest (revision, create_time, index_id) of the descriptor version. With `list`
 * those that the list has outlived come last: a restored database is behind indexes of the time after its backup, and
 * their revisions would hide every later index.
 */
export function newestOf(
  listing: StorageListing,
  label: string,
  descriptorVersion: number,
  list?: { historyId: string; revision: number },
): PublishedIndex | undefined {
  const newest = listing.indexes
    .filter((index) => index.label === label && index.meta.descriptor_version === descriptorVersion)
    .toSorted(byNewestFirst);
  const fits = ({ meta }: PublishedIndex) =>
    list === undefined || (meta.history_id === list.historyId && meta.revision <= list.revision);
  return newest.find(fits) ?? newest[0];
}
