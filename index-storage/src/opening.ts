import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { type EngineName, type IndexMeta, LimError } from "@lim/contracts";
import {
  type EngineAdapter,
  type EngineFiles,
  type EngineOptions,
  type KeyedIndex,
  openKeyedIndex,
} from "@lim/vector-index";
import { CopyWriteError, copyDigested } from "./copying.ts";
import { digestFile, exists, type FileDigest, isMissing, namesIn, storageError } from "./files.ts";
import { type DataFile, dataFilesOf, fileNames, type Layout, storageLimits } from "./layout.ts";
import { isMarked } from "./marks.ts";
import { readPublished } from "./meta.ts";
import type { OpenedIndex } from "./port.ts";
import { removedPositions, samplePositions, selfFoundShare } from "./probe.ts";

export type LoadAdapter = (name: EngineName, options?: EngineOptions) => Promise<EngineAdapter>;

function scratchName(): string {
  return `lim-open.${encodeURIComponent(hostname())}.${process.pid}.`;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * Removes what processes of this host left when they died: private copies (`lim-open`) and engines' working files
 * (`lim-rows`), and anyone's copies that are a day old; a working file is in use as long as its index. In a container
 * the process before the restart had this one's id: its files are known by being older than this process.
 */
export async function cleanScratch(scratchDir: string): Promise<void> {
  const startedMs = Date.now() - process.uptime() * 1_000;
  for (const name of await namesIn(scratchDir)) {
    const [, kind, host, pid] = /^lim-(open|rows)\.(.+)\.(\d+)\.[^.]+$/.exec(name) ?? [];
    if (host === undefined || pid === undefined) continue;
    const path = join(scratchDir, name);
    try {
      const { mtimeMs } = await stat(path);
      const isOwnId = Number(pid) === process.pid;
      const isDead = isOwnId ? mtimeMs < startedMs - storageLimits.startToleranceMs : !isAlive(Number(pid));
      const deadHere = host === encodeURIComponent(hostname()) && isDead;
      const old = kind === "open" && Date.now() - mtimeMs > storageLimits.scratchKeepMs;
      if (deadHere || old) await rm(path, { recursive: true, force: true });
    } catch {
      // Someone else's folder, or gone meanwhile: cleaning is a courtesy and never fails an opening.
    }
  }
}

export function assertDigest(name: string, found: FileDigest, expected: FileDigest): void {
  if (found.size !== expected.size)
    throw new LimError(
      "index_refused",
      `${name} is ${found.size < expected.size ? "truncated" : "extended"}: ${found.size} bytes, not ${expected.size}`,
    );
  if (found.sha256 !== expected.sha256)
    throw new LimError("index_refused", `${name} is corrupt: its hash differs`);
}

/** Compares a file with its digest; with `keep` returns the bytes that were compared. Throws `index_refused`. */
export async function readVerified(
  path: string,
  name: string,
  expected: FileDigest,
  { signal, keep }: { signal: AbortSignal | undefined; keep: boolean },
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(keep ? expected.size : 0);
  let filled = 0;
  const sink = (chunk: Uint8Array) => {
    bytes.set(chunk.subarray(0, Math.max(0, bytes.length - filled)), Math.min(filled, bytes.length));
    filled += chunk.length;
  };
  assertDigest(name, await digestFile(path, keep ? { signal, sink } : { signal }), expected);
  return bytes;
}

export async function published(layout: Layout, label: string, indexId: string) {
  if (await isMarked(layout, indexId)) throw new LimError("not_found", `index ${indexId} was removed`);
  const found = await readPublished(layout, label, indexId);
  if (!found) throw new LimError("not_found", `no index ${indexId} under label ${label}`);
  return found;
}

/** An index that vanished while it was read is not corrupt: tells the two apart once something went wrong. */
export async function judged(
  layout: Layout,
  label: string,
  indexId: string,
  thrown: unknown,
): Promise<LimError> {
  const vanished = !(await exists(layout.index(label, indexId)).catch(() => true));
  if (vanished)
    return new LimError("not_found", `index ${indexId} was removed while it was read`, { cause: thrown });
  if (isMissing(thrown))
    return new LimError("index_refused", `a file is missing in ${label}/${indexId}`, { cause: thrown });
  return storageError(thrown, `reading index ${indexId}`);
}

/** Every byte of the files against meta.json, nothing loaded. */
export async function verifyPublished(
  layout: Layout,
  label: string,
  indexId: string,
  signal: AbortSignal | undefined,
): Promise<IndexMeta> {
  const { meta } = await published(layout, label, indexId);
  try {
    for (const { name, ...expected } of dataFilesOf(meta.files))
      assertDigest(name, await digestFile(join(layout.index(label, indexId), name), { signal }), expected);
  } catch (thrown) {
    throw await judged(layout, label, indexId, thrown);
  }
  return meta;
}

/** What went wrong with the private copy says nothing of the index. */
async function scratched<T>(scratchDir: string, needBytes: number, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw storageError(
      isMissing(thrown) ? new LimError("storage_unavailable", `${scratchDir}: ${String(thrown)}`) : thrown,
      `copying ${needBytes} bytes into the scratch folder ${scratchDir}`,
    );
  }
}

interface VerifiedFiles {
  files: EngineFiles;
  ids: Uint8Array;
}

/** Copies what the engine reads into `scratch`, a folder of this opening, and the ids into memory. */
async function copyVerified(
  folder: string,
  meta: IndexMeta,
  options: { scratch: string; withVectors: boolean; signal: AbortSignal | undefined },
): Promise<VerifiedFiles> {
  const { scratch, withVectors, signal } = options;
  const idsPath = join(folder, fileNames.ids);
  const ids = await readVerified(idsPath, fileNames.ids, meta.files[fileNames.ids], { signal, keep: true });
  const copied = async (name: DataFile, expected: FileDigest) => {
    const copyPath = join(scratch, name);
    const digest = await copyDigested(join(folder, name), copyPath, { signal }).catch((thrown: unknown) => {
      if (!(thrown instanceof CopyWriteError)) throw thrown;
      return scratched(dirname(scratch), expected.size, () => Promise.reject(thrown.cause));
    });
    assertDigest(name, digest, expected);
    return copyPath;
  };
  const index = await copied(fileNames.index, meta.files[fileNames.index]);
  const vectors = meta.files[fileNames.vectors];
  if (!vectors || !withVectors) return { ids, files: { index } };
  return { ids, files: { index, vectors: await copied(fileNames.vectors, vectors) } };
}

/**
 * Loads verified bytes into a new object and checks that it holds what meta says. With `inPlace` the files stay where
 * they are and as they are until it is closed.
 */
export async function loadVerified(
  adapter: EngineAdapter,
  { files, ids }: VerifiedFiles,
  expected: Pick<IndexMeta, "dim" | "slots" | "count" | "params">,
  { signal, inPlace = false }: { signal: AbortSignal | undefined; inPlace?: boolean },
): Promise<KeyedIndex> {
  const removed = removedPositions(ids);
  if (expected.slots - removed.length !== expected.count)
    throw new LimError(
      "index_refused",
      `ids name ${expected.slots - removed.length} faces, meta ${expected.count}`,
    );
  const index = await adapter.load({
    files,
    dim: expected.dim,
    slots: expected.slots,
    removed,
    params: { m: expected.params.m, efConstruction: expected.params.ef_construction },
    inPlace,
    signal,
  });
  try {
    if (index.count !== expected.count || index.dim !== expected.dim)
      throw new LimError(
        "index_refused",
        `engine holds ${index.count} × ${index.dim}, not ${expected.count} × ${expected.dim}`,
      );
    return await openKeyedIndex(index, ids, { signal });
  } catch (thrown) {
    await index.close();
    throw thrown;
  }
}

export async function openPublished(
  context: { layout: Layout; scratchDir: string; loadAdapter: LoadAdapter },
  label: string,
  indexId: string,
  signal: AbortSignal | undefined,
  engineOptions: EngineOptions = {},
): Promise<OpenedIndex> {
  const { layout, scratchDir, loadAdapter } = context;
  const { meta } = await published(layout, label, indexId);
  const scratch = await scratched(scratchDir, meta.files[fileNames.index].size, async () => {
    await mkdir(scratchDir, { recursive: true });
    return mkdtemp(join(scratchDir, scratchName()));
  });
  let keyed: KeyedIndex | undefined;
  try {
    const adapter = await loadAdapter(meta.engine.name, engineOptions);
    const withVectors = adapter.readsVectors;
    const folder = layout.index(label, indexId);
    const copy = await copyVerified(folder, meta, { scratch, withVectors, signal });
    keyed = await loadVerified(adapter, copy, meta, { signal });
    const { ids } = copy;
    const positions = samplePositions(ids, storageLimits.openProbeVectors);
    const vectors = await keyed.index.read(positions, { signal });
    if ((await selfFoundShare(keyed, ids, positions, vectors, signal)) < 0.5)
      throw new LimError("index_refused", "known vectors do not find themselves");
    return { meta, keyed };
  } catch (thrown) {
    await keyed?.close();
    throw await judged(layout, label, indexId, thrown);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
