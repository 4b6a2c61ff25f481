import { join } from "node:path";
import { type IndexMeta, LimError, uuidSchema } from "@lim/contracts";

/** Named limits of the storage. */
export const storageLimits = {
  /** Staging folders whose heartbeat is older are collected. */
  stagingSilentMs: 15 * 60_000,
  /** How often a publication renews its staging folder's heartbeat. */
  heartbeatMs: 30_000,
  /** Removed indexes stay this long, for readers that have begun to open them. */
  trashGraceMs: 10 * 60_000,
  /** Removal marks outlive every attempt that could still publish. */
  markKeepMs: 7 * 24 * 3_600_000,
  /** Private copies of another host's or an unknown process are collected at this age. */
  scratchKeepMs: 24 * 3_600_000,
  /** How far the clock of a file system and this process' idea of its own start may lie apart. */
  startToleranceMs: 1_000,
  maxMetaBytes: 1 << 20,
  copyChunkBytes: 1 << 20,
  /** Labels that one listing reads at the same time. */
  parallelReads: 16,
  /** Validated metas that a process remembers between listings, about 3 KB each. */
  maxRememberedMetas: 50_000,
  /** Listings look at the sizes of data files again after this long at most. */
  sizesTrustedMs: 60_000,
  /** Indexed vectors that a new index is asked for before it is published. */
  probeVectors: 64,
  /** Share of these that must find themselves: the search is approximate, so not quite all. */
  minProbeShare: 0.95,
  /**
   * Vectors that are compared exactly to estimate recall: this share of the index between these bounds. Reading one
   * back costs about a tenth of inserting it, so that a larger share would be felt in the time of a build.
   */
  recallSampleShare: 1 / 8,
  minRecallSample: 2048,
  maxRecallSample: 8192,
  recallK: 10,
  recallEf: 128,
  minSampledRecall: 0.5,
  /** Vectors that an opened index is asked for. */
  openProbeVectors: 8,
} as const;

export const fileNames = {
  meta: "meta.json",
  index: "index.dat",
  ids: "ids.dat",
  vectors: "vectors.dat",
} as const;
export type DataFile = keyof IndexMeta["files"];
const dataFiles: readonly DataFile[] = [fileNames.index, fileNames.ids, fileNames.vectors];

/** Every file of an index but meta.json itself, with its size and hash. */
export function dataFilesOf(files: IndexMeta["files"]): { name: DataFile; size: number; sha256: string }[] {
  return dataFiles.flatMap((name) => {
    const entry = files[name];
    return entry ? [{ name, ...entry }] : [];
  });
}

export function sizeOf(files: IndexMeta["files"]): number {
  return dataFilesOf(files).reduce((sum, { size }) => sum + size, 0);
}

export class Layout {
  readonly root: string;
  readonly staging: string;
  readonly removed: string;
  readonly trash: string;

  constructor(root: string) {
    this.root = root;
    this.staging = join(root, ".staging");
    this.removed = join(root, ".removed");
    this.trash = join(root, ".trash");
  }

  label(label: string): string {
    return join(this.root, label);
  }

  index(label: string, indexId: string): string {
    return join(this.root, label, indexId);
  }

  mark(indexId: string): string {
    return join(this.removed, indexId);
  }
}

/** Canonical form of an id that becomes a folder name; anything but a UUID is `bad_input`. */
export function folderId(what: string, text: string): string {
  const parsed = uuidSchema.safeParse(text);
  if (!parsed.success) throw new LimError("bad_input", `${what} "${text}" is not a UUID`);
  return parsed.data;
}

/** Folder names that the storage itself writes: canonical UUIDs. All others are none of its business. */
export function isFolderId(name: string): boolean {
  const parsed = uuidSchema.safeParse(name);
  return parsed.success && parsed.data === name;
}
