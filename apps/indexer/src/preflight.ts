import { statfs } from "node:fs/promises";
import { type BuildRequest, defaults, type EngineName, LimError, uuidBytes } from "@lim/contracts";
import type { EngineAdapter } from "@lim/vector-index";

export const mebibyte = 1024 * 1024;

/**
 * Measured, whatever the size of the list: the build process with Node, its libraries, the engine's threads and read
 * buffers (105 to 150 MB with engine hnsw), and the publish process that waits for its turn meanwhile (75 to 88 MB). When
 * that one works, the first is gone.
 */
const processBaseBytes: Record<EngineName, number> = { hnsw: 240 * mebibyte, hnswlib: 184 * mebibyte };
/** Tables of ids and keys beside the engine, bytes a face. */
const tableBytesPerFace = 64;
/** Left free on the storage's disk, so that a build never fills it for its neighbours. */
const diskReserveBytes = 64 * mebibyte;

export interface BuildNeed {
  engineBytes: number;
  /** Vectors that may wait for the engine in memory. */
  waitingBytes: number;
  memoryBytes: number;
  diskBytes: number;
}

/**
 * What building `capacity` faces takes at its peak, upper estimates. `inFile`: an engine that can has full precision in
 * a file and not in memory, and no vectors wait for it there. Else those that were read and wait give their pages back
 * as the engine takes them: so the larger of engine and vectors counts, once. For verification the index is opened by
 * another process once this one is gone, which reads full precision where it lies. On disk lie the engine's files, as
 * large as an engine in memory that has all of it there, and the ids; verifying makes no copy. Throws `out_of_memory`
 * where a matcher's engine could hold no index of so many.
 */
export function estimateNeed(
  engine: Pick<EngineAdapter, "estimateMemoryBytes"> & Partial<Pick<EngineAdapter, "name">>,
  request: Pick<BuildRequest, "dim" | "params">,
  capacity: number,
  { inFile = false }: { inFile?: boolean } = {},
): BuildNeed {
  const shape = {
    dim: request.dim,
    capacity,
    params: { m: request.params.m, efConstruction: request.params.ef_construction },
  };
  const wholeBytes = engine.estimateMemoryBytes(shape);
  const engineBytes = inFile ? engine.estimateMemoryBytes({ ...shape, spooled: true }) : wholeBytes;
  const vectorsBytes = capacity * (request.dim * Float32Array.BYTES_PER_ELEMENT + uuidBytes);
  const waitingBytes = inFile ? 0 : vectorsBytes;
  return {
    engineBytes,
    waitingBytes,
    memoryBytes:
      processBaseBytes[engine.name ?? defaults.engine] +
      Math.max(engineBytes, waitingBytes) +
      capacity * tableBytesPerFace,
    diskBytes: wholeBytes + capacity * uuidBytes + diskReserveBytes,
  };
}

export interface PreflightLimits {
  faces: number;
  dim: number;
  memoryLimitBytes: number;
  storageRoot: string;
  /** Where the base of an update is copied to, and the bytes of that. */
  scratch?: { folder: string; bytes: number };
}

/** Throws `out_of_memory` or `disk_full` with the numbers where the build cannot fit. */
export async function preflight(need: BuildNeed, limits: PreflightLimits): Promise<void> {
  const what = `${limits.faces} faces of ${limits.dim} dimensions`;
  if (need.memoryBytes > limits.memoryLimitBytes)
    throw new LimError(
      "out_of_memory",
      `${what} need about ${inMib(need.memoryBytes)} of memory (index ${inMib(need.engineBytes)}, vectors ` +
        `that wait ${inMib(need.waitingBytes)}), the limit is ${inMib(limits.memoryLimitBytes)}; raise LIM_BUILD_MEMORY_LIMIT_MB`,
    );
  const freeBytes = await freeDiskBytes(limits.storageRoot, "index storage");
  if (need.diskBytes > freeBytes)
    throw new LimError(
      "disk_full",
      `${what} need about ${inMib(need.diskBytes)} of disk, ${inMib(freeBytes)} are free in the index storage`,
    );
  if (!limits.scratch) return;
  const { folder, bytes } = limits.scratch;
  const scratchBytes = await freeDiskBytes(folder, "scratch folder");
  if (bytes > scratchBytes)
    throw new LimError(
      "disk_full",
      `the copy of the index to update needs ${inMib(bytes)} of disk, ${inMib(scratchBytes)} are free in ${folder}`,
    );
}

/** Bytes that an unprivileged process may still write to the file system of `path`. */
export async function freeDiskBytes(path: string, what: string): Promise<number> {
  try {
    const stats = await statfs(path);
    return stats.bavail * stats.bsize;
  } catch (cause) {
    const { detail } = LimError.from(cause);
    throw new LimError("storage_unavailable", `${what} cannot be examined: ${detail}`, { cause });
  }
}

export function inMib(bytes: number): string {
  return `${Math.ceil(bytes / mebibyte).toLocaleString("en-US")} MiB`;
}
