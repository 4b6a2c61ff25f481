import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type IndexMeta, isLimError, LimError } from "@lim/contracts";
import { type EngineOptions, loadEngine } from "@lim/vector-index";
import { CacheLayout, discardEntry, listEntries, removeLeftovers, touch } from "./cache-entries.ts";
import type { CacheContents, CacheEvent, IndexCache } from "./cache-port.ts";
import { CopyWriteError, copyDigested } from "./copying.ts";
import { errorCode, exists, namesIn } from "./files.ts";
import { type HostLock, HostLocks, type HostLockTimes } from "./host-lock.ts";
import { dataFilesOf, fileNames, folderId, Layout, sizeOf } from "./layout.ts";
import { byNewestFirst } from "./listing.ts";
import {
  assertDigest,
  judged,
  type LoadAdapter,
  openPublished,
  published,
  verifyPublished,
} from "./opening.ts";
import type { Cancellable, IndexStorage, OpenedIndex, PublishedIndex } from "./port.ts";

export interface IndexCacheOptions {
  /** The cache's own folder, the same for all processes of the host that share it. */
  root: string;
  storage: Pick<IndexStorage, "root" | "open" | "verify">;
  /** As `openIndexStorage`'s. */
  scratchDir?: string;
  loadAdapter?: LoadAdapter;
  /** Entries are removed, longest unused first, before they pass it together; default: no limit. */
  maxBytes?: number | undefined;
  onEvent?: (event: CacheEvent) => void;
  times?: Partial<CacheTimes>;
}

export interface CacheTimes extends HostLockTimes {
  /** An entry that was neither opened nor wanted for so long may be removed. */
  unusedMs: number;
  /** Least time between two runs of `tidy`. */
  tidyEveryMs: number;
  /** What dead processes left is removed at this age. */
  leftoverMs: number;
}

const defaultTimes: CacheTimes = {
  heartbeatMs: 1_000,
  staleMs: 5_000,
  pollMs: 100,
  stallMs: 60_000,
  maxWaitMs: 30 * 60_000,
  unusedMs: 120_000,
  tidyEveryMs: 15_000,
  leftoverMs: 15 * 60_000,
};
/** Times that an entry is looked for again after it was cleaned away, or found corrupt. */
const maxRounds = 4;

/** The cache's folder failed, not the storage. */
class CacheFault extends Error {}

async function onCache<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw new CacheFault(`${doing}: ${String(thrown)}`, { cause: thrown });
  }
}

export function openIndexCache(options: IndexCacheOptions): IndexCache {
  return new FolderCache(options);
}

type Named = Cancellable & { label: string; indexId: string };

class FolderCache implements IndexCache {
  private readonly layout: CacheLayout;
  private readonly storageLayout: Layout;
  private readonly storage: IndexCacheOptions["storage"];
  private readonly opening: { layout: Layout; scratchDir: string; loadAdapter: LoadAdapter };
  private readonly maxBytes: number;
  private readonly times: CacheTimes;
  private readonly locks: HostLocks;
  private readonly onEvent: (event: CacheEvent) => void;
  private tidiedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: IndexCacheOptions) {
    this.layout = new CacheLayout(resolve(options.root));
    this.storage = options.storage;
    this.storageLayout = new Layout(options.storage.root);
    this.opening = {
      layout: this.layout,
      scratchDir: resolve(options.scratchDir ?? tmpdir()),
      loadAdapter: options.loadAdapter ?? loadEngine,
    };
    this.maxBytes = options.maxBytes ?? Number.POSITIVE_INFINITY;
    this.times = { ...defaultTimes, ...options.times };
    this.locks = new HostLocks(this.layout.locks, this.times);
    this.onEvent = options.onEvent ?? (() => {});
  }

  open(of: Named & EngineOptions): Promise<OpenedIndex> {
    const engine = of.rerank && { rerank: of.rerank };
    return this.withEntry(
      of,
      ({ label, indexId, signal }) => openPublished(this.opening, label, indexId, signal, engine),
      () => this.storage.open(of),
    );
  }

  verify(of: Named): Promise<IndexMeta> {
    return this.withEntry(
      of,
      ({ label, indexId, signal }) => verifyPublished(this.layout, label, indexId, signal),
      () => this.storage.verify(of),
    );
  }

  async tidy(
    options: Cancellable & { wanted: ReadonlySet<string>; published: readonly PublishedIndex[] },
  ): Promise<CacheContents | undefined> {
    const now = performance.now();
    if (now - this.tidiedAtMs < this.times.tidyEveryMs) return undefined;
    this.tidiedAtMs = now;
    try {
      return await this.tidyNow(options.wanted, options.published);
    } catch {
      // Openings tell what is wrong with the folder; cleaning is a courtesy.
      return undefined;
    }
  }

  private async withEntry<T>(
    of: Named,
    work: (of: Named) => Promise<T>,
    direct: () => Promise<T>,
  ): Promise<T> {
    const named = { ...of, label: folderId("label", of.label), indexId: folderId("index id", of.indexId) };
    try {
      return await this.fromEntry(named, work);
    } catch (thrown) {
      if (!(thrown instanceof CacheFault)) throw thrown;
      this.onEvent({ kind: "bypassed", indexId: named.indexId, reason: thrown.message });
    }
    this.onEvent({ kind: "storage_read", indexId: named.indexId });
    return direct();
  }

  /** `work` on a whole entry. One that is refused is compared with what was published, once, and fetched again if it differs. */
  private async fromEntry<T>(of: Named, work: (of: Named) => Promise<T>): Promise<T> {
    let refusal: LimError | undefined;
    for (let round = 0; round < maxRounds; round++) {
      await this.ensure(of, refusal);
      const stopTouching = await this.touching(this.layout.index(of.label, of.indexId));
      try {
        return await work(of);
      } catch (thrown) {
        const error = LimError.from(thrown);
        if (error.errorName === "storage_unavailable" || error.errorName === "disk_full")
          throw new CacheFault(error.message, { cause: error });
        if (error.errorName === "index_refused" && refusal === undefined) refusal = error;
        // Anything else but a vanished entry is the index's own fault, or the caller's wish.
        else if (error.errorName !== "not_found") throw error;
      } finally {
        stopTouching();
      }
    }
    throw new CacheFault(`entry ${of.indexId} vanished ${maxRounds} times`);
  }

  /** The entry is there, fetched by this process or another one. With `refusal` every byte of it is verified. */
  private async ensure(of: Named, refusal: LimError | undefined): Promise<void> {
    const { label, indexId, signal } = of;
    const path = this.layout.index(label, indexId);
    const isThere = () => onCache("looking for an entry", () => exists(path));
    if (refusal === undefined && (await isThere())) return this.onEvent({ kind: "hit", indexId });
    await this.prepare();
    const unless = refusal === undefined ? isThere : () => Promise.resolve(false);
    const onTakenAway = () => this.onEvent({ kind: "taken_over", indexId });
    const lock = await this.locks
      .acquire(indexId, { signal, unless, onTakenAway })
      .catch((thrown: unknown) => {
        if (thrown instanceof CacheFault || isLimError(thrown, "aborted")) throw thrown;
        throw new CacheFault(`locking ${indexId}: ${String(thrown)}`, { cause: thrown });
      });
    if (!lock) return this.onEvent({ kind: "shared", indexId });
    try {
      if (await isThere()) {
        if (refusal === undefined || (await this.isIntact(of, lock)))
          return this.onEvent({ kind: "shared", indexId });
        this.onEvent({ kind: "corrupt", indexId, reason: refusal.detail });
        await onCache("discarding an entry", () => discardEntry(this.layout, { indexId, path }));
      }
      await this.fetch(of, lock);
      this.onEvent({ kind: "fetched", indexId });
    } finally {
      await lock.release();
    }
  }

  private async isIntact({ label, indexId, signal }: Named, lock: HostLock): Promise<boolean> {
    const moving = setInterval(() => lock.moved(), this.times.heartbeatMs);
    try {
      await verifyPublished(this.layout, label, indexId, signal);
      return true;
    } catch (thrown) {
      if (isLimError(thrown, "index_refused") || isLimError(thrown, "not_found")) return false;
      if (isLimError(thrown, "aborted")) throw thrown;
      throw new CacheFault(String(thrown), { cause: thrown });
    } finally {
      clearInterval(moving);
    }
  }

  /** The folders that an opening of an entry looks into, as a storage has them. */
  private prepare(): Promise<void> {
    const { root, removed, trash, fetching, locks } = this.layout;
    return onCache("making the cache's folders", async () => {
      await this.assertOwn();
      for (const folder of [root, removed, trash, fetching, locks]) await mkdir(folder, { recursive: true });
    });
  }

  /** An index storage has the same form: what a cache would tidy up there is what was published. */
  private async assertOwn(): Promise<void> {
    if (await exists(this.layout.staging))
      throw new Error(`${this.layout.root} is an index storage: a cache needs a folder of its own`);
  }

  /** Copies what is published into a folder of its own, verified on the way, and puts it in place by one rename. */
  private async fetch({ label, indexId, signal }: Named, lock: HostLock): Promise<void> {
    const from = this.storageLayout.index(label, indexId);
    const { meta } = await published(this.storageLayout, label, indexId);
    const { fetching } = this.layout;
    await onCache("making room", async () => {
      // A process that held the lock before and died, or sleeps, left its copy; it cannot be put in place any more.
      for (const name of await namesIn(fetching))
        if (name.startsWith(indexId)) await rm(join(fetching, name), { recursive: true, force: true });
      await this.makeRoom(sizeOf(meta.files));
    });
    const copy = join(fetching, `${indexId}.${randomUUID()}`);
    await onCache("making a folder", () => mkdir(copy));
    const stopTouching = await this.touching(copy);
    this.onEvent({ kind: "storage_read", indexId });
    try {
      for (const { name, ...expected } of dataFilesOf(meta.files)) {
        const onProgress = () => lock.moved();
        const copying = copyDigested(join(from, name), join(copy, name), { signal, onProgress });
        const digest = await copying.catch((thrown: unknown) => {
          if (thrown instanceof CopyWriteError) throw new CacheFault(`writing ${name}: ${thrown.message}`);
          throw thrown;
        });
        assertDigest(name, digest, expected);
      }
      const sealed = await readFile(join(from, fileNames.meta));
      await onCache("writing meta", () => writeFile(join(copy, fileNames.meta), sealed));
      await this.putInPlace(copy, this.layout.index(label, indexId));
    } catch (thrown) {
      if (thrown instanceof CacheFault) throw thrown;
      throw await judged(this.storageLayout, label, indexId, thrown);
    } finally {
      stopTouching();
      await rm(copy, { recursive: true, force: true }).catch(() => undefined);
    }
  }

  private putInPlace(copy: string, path: string): Promise<void> {
    return onCache("putting an entry in place", async () => {
      await mkdir(dirname(path), { recursive: true });
      try {
        await rename(copy, path);
      } catch (thrown) {
        // Two held the lock one after the other and both came to the end: the first entry is as good.
        if (errorCode(thrown) !== "ENOTEMPTY" && errorCode(thrown) !== "EEXIST") throw thrown;
      }
    });
  }

  private async makeRoom(neededBytes: number): Promise<void> {
    if (this.maxBytes === Number.POSITIVE_INFINITY) return;
    const entries = (await listEntries(this.layout)).toSorted((a, b) => a.usedMs - b.usedMs);
    let total = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, neededBytes);
    const before = Date.now() - this.times.unusedMs;
    for (const entry of entries) {
      if (total <= this.maxBytes || entry.usedMs >= before) break;
      if (await this.remove(entry, before)) total -= entry.sizeBytes;
    }
    if (total > this.maxBytes)
      throw new CacheFault(
        `${total} bytes would pass the limit of ${this.maxBytes}, and what is there is in use`,
      );
  }

  private async remove(entry: { indexId: string; path: string }, unusedSinceMs: number): Promise<boolean> {
    const isGone = await discardEntry(this.layout, entry, unusedSinceMs);
    if (isGone) this.onEvent({ kind: "removed", indexId: entry.indexId });
    return isGone;
  }

  private async tidyNow(
    wanted: ReadonlySet<string>,
    publishedNow: readonly PublishedIndex[],
  ): Promise<CacheContents> {
    await this.assertOwn();
    const entries = await listEntries(this.layout);
    const stored = new Set(entries.map(({ indexId }) => indexId));
    const publishedOf = new Map(publishedNow.map((index) => [index.indexId, index]));
    const before = Date.now() - this.times.unusedMs;
    const contents = { entries: 0, sizeBytes: 0 };
    for (const entry of entries) {
      const index = publishedOf.get(entry.indexId);
      const hasNewer = publishedNow.some(
        (other) =>
          index !== undefined &&
          stored.has(other.indexId) &&
          other.label === index.label &&
          other.meta.descriptor_version === index.meta.descriptor_version &&
          byNewestFirst(other, index) < 0,
      );
      if (wanted.has(entry.indexId)) await touch(entry.path);
      else if (entry.usedMs < before && (index === undefined || hasNewer))
        if (await this.remove(entry, before)) continue;
      contents.entries++;
      contents.sizeBytes += entry.sizeBytes;
    }
    await removeLeftovers(this.layout, Date.now() - this.times.leftoverMs);
    return contents;
  }

  /** Shows that a folder is in use until the returned function is called. */
  private async touching(path: string): Promise<() => void> {
    await touch(path);
    const timer = setInterval(() => void touch(path), this.times.unusedMs / 4);
    return () => clearInterval(timer);
  }
}
