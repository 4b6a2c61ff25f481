import { stat } from "node:fs/promises";
import { join } from "node:path";
import { isLimError } from "@lim/contracts";
import { assertLive, isMissing, namesIn, storageError } from "./files.ts";
import { fileNames, folderId, isFolderId, type Layout, storageLimits } from "./layout.ts";
import { assertThere, markNames } from "./marks.ts";
import { readPublished } from "./meta.ts";
import type { PublishedIndex, StorageListing } from "./port.ts";

export function byNewestFirst(a: PublishedIndex, b: PublishedIndex): number {
  return (
    b.meta.revision - a.meta.revision ||
    Date.parse(b.meta.create_time) - Date.parse(a.meta.create_time) ||
    (a.indexId < b.indexId ? 1 : a.indexId > b.indexId ? -1 : 0)
  );
}

/** What tells one state of a meta.json from another without reading it. */
interface FileState {
  ino: bigint;
  size: bigint;
  mtimeNs: bigint;
  ctimeNs: bigint;
}

interface CachedMeta extends FileState {
  published: PublishedIndex;
  /** Until when the sizes of its data files are not looked at again, by performance.now(). */
  sizesTrustedUntilMs: number;
}

/**
 * Lists the indexes of a root. A meta.json does not change once it is published, so a validated one is remembered and
 * read again only where its file is another (inode, size, times). Sizes of data files are looked at again after
 * `sizesTrustedMs`. Only listings use what is remembered: opening reads everything anew.
 */
export class Lister {
  readonly #layout: Layout;
  readonly #maxEntries: number;
  readonly #sizesTrustedMs: number;
  readonly #labels = new Map<string, Map<string, CachedMeta>>();
  #entries = 0;

  constructor(layout: Layout, limits: { maxEntries?: number; sizesTrustedMs?: number } = {}) {
    this.#layout = layout;
    this.#maxEntries = limits.maxEntries ?? storageLimits.maxRememberedMetas;
    this.#sizesTrustedMs = limits.sizesTrustedMs ?? storageLimits.sizesTrustedMs;
  }

  /** Metas that are remembered. */
  get entries(): number {
    return this.#entries;
  }

  async list({
    label,
    signal,
  }: {
    label?: string;
    signal?: AbortSignal | undefined;
  }): Promise<StorageListing> {
    const layout = this.#layout;
    const marked = new Set(await markNames(layout));
    const labels =
      label === undefined ? (await namesIn(layout.root)).filter(isFolderId) : [folderId("label", label)];
    const listing: StorageListing = { indexes: [], refused: [] };
    const found = await mapBounded(labels.toSorted(), storageLimits.parallelReads, (current) =>
      this.#listLabel(current, marked, signal),
    );
    for (const { indexes, refused } of found) {
      for (const index of indexes) listing.indexes.push(index);
      for (const one of refused) listing.refused.push(one);
    }
    if (label === undefined) this.#forgetOtherLabels(new Set(labels));
    // A root that went away meanwhile must not look like one without indexes.
    await assertThere(layout);
    return listing;
  }

  async #listLabel(
    label: string,
    marked: ReadonlySet<string>,
    signal: AbortSignal | undefined,
  ): Promise<StorageListing> {
    assertLive(signal);
    const found: StorageListing = { indexes: [], refused: [] };
    let names: string[] = [];
    try {
      names = await namesIn(this.#layout.label(label));
    } catch (thrown) {
      const reason = storageError(thrown, "reading a label").detail;
      found.refused.push({ label, indexId: "", reason });
    }
    // Marked but still in place: whoever removed it died in between. Collecting takes it away.
    const wanted = names.filter((name) => !marked.has(name) && isFolderId(name)).toSorted();
    for (const indexId of wanted) {
      assertLive(signal);
      try {
        const published = await this.#read(label, indexId);
        if (published) found.indexes.push(published);
      } catch (thrown) {
        const reason = isLimError(thrown) ? thrown.detail : String(thrown);
        found.refused.push({ label, indexId, reason });
      }
    }
    this.#forgetOthers(label, new Set(wanted));
    found.indexes.sort(byNewestFirst);
    return found;
  }

  async #read(label: string, indexId: string): Promise<PublishedIndex | undefined> {
    const known = this.#labels.get(label)?.get(indexId);
    // Looked at before it is read: what changes in between is then another file at the next listing.
    const state = await fileState(join(this.#layout.index(label, indexId), fileNames.meta));
    const valid = known && state && isSame(known, state) ? known : undefined;
    if (valid && performance.now() < valid.sizesTrustedUntilMs) return valid.published;
    this.#forget(label, indexId);
    const published = await readPublished(this.#layout, label, indexId, valid?.published);
    if (published && state) this.#remember(label, indexId, state, published);
    return published;
  }

  #remember(label: string, indexId: string, state: FileState, published: PublishedIndex): void {
    // Past the limit the rest is read every time: to replace entries would miss all of them in every listing.
    if (this.#entries >= this.#maxEntries) return;
    const entries = this.#labels.get(label) ?? new Map<string, CachedMeta>();
    if (!entries.has(indexId)) this.#entries++;
    // Half of the time at random, so that not all sizes are looked at in the same listing.
    const trustedMs = this.#sizesTrustedMs * (0.5 + 0.5 * Math.random());
    entries.set(indexId, {
      ...state,
      published: deepFreeze(published),
      sizesTrustedUntilMs: performance.now() + trustedMs,
    });
    this.#labels.set(label, entries);
  }

  #forget(label: string, indexId: string): void {
    const entries = this.#labels.get(label);
    if (!entries?.delete(indexId)) return;
    this.#entries--;
    if (entries.size === 0) this.#labels.delete(label);
  }

  #forgetOthers(label: string, present: ReadonlySet<string>): void {
    for (const indexId of [...(this.#labels.get(label)?.keys() ?? [])])
      if (!present.has(indexId)) this.#forget(label, indexId);
  }

  #forgetOtherLabels(present: ReadonlySet<string>): void {
    for (const label of [...this.#labels.keys()])
      if (!present.has(label)) this.#forgetOthers(label, new Set());
  }
}

async function fileState(path: string): Promise<FileState | undefined> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return { ino, size, mtimeNs, ctimeNs };
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw thrown;
  }
}

function isSame(a: FileState, b: FileState): boolean {
  return a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

/** Every listing hands out the same object: nobody may change it for the others. */
function deepFreeze<T extends object>(value: T): T {
  for (const part of Object.values(value)) if (typeof part === "object" && part !== null) deepFreeze(part);
  return Object.freeze(value);
}

/** Results in input order, at most `parallel` running at a time. The first rejection rejects and starts no more. */
async function mapBounded<In, Out>(
  inputs: readonly In[],
  parallel: number,
  work: (input: In) => Promise<Out>,
): Promise<Out[]> {
  const results = new Array<Out>(inputs.length);
  const remaining = inputs.entries();
  let failed = false;
  const worker = async () => {
    for (const [i, input] of remaining) {
      if (failed) return;
      try {
        results[i] = await work(input);
      } catch (thrown) {
        failed = true;
        throw thrown;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, inputs.length) }, worker));
  return results;
}
