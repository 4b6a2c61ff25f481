import { statfs } from "node:fs/promises";
import { type BuildRequest, LimError, uuidBytes } from "@lim/contracts";
import type { EngineAdapter } from "@lim/vector-index";

export const mebibyte = 1024 * 1024;

/** Measured: Node, its libraries and the threads of engine and verification, whatever the size of the list. */
const processBaseBytes = 192 * mebibyte;
/** Left free on the storage's disk, so that a build never fills it for its neighbours. */
const diskReserveBytes = 64 * mebibyte;

export interface BuildNeed {
  engineBytes: number;
  vectorsBytes: number;
  memoryBytes: number;
  diskBytes: number;
}

/**
 * What building `capacity` faces takes at its peak, upper estimates. The engine is counted twice in memory (a saved
 * index is reopened beside the built one to be verified; by then the vectors that were read are gone), once on disk.
 */
export function estimateNeed(
  engine: Pick<EngineAdapter, "estimateMemoryBytes">,
  request: Pick<BuildRequest, "dim" | "params">,
  capacity: number,
): BuildNeed {
  const engineBytes = engine.estimateMemoryBytes({
    dim: request.dim,
    capacity,
    params: { m: request.params.m, efConstruction: request.params.ef_construction },
  });
  const vectorsBytes = capacity * (request.dim * Float32Array.BYTES_PER_ELEMENT + uuidBytes);
  return {
    engineBytes,
    vectorsBytes,
    memoryBytes: processBaseBytes + engineBytes + Math.max(vectorsBytes, engineBytes),
    diskBytes: engineBytes + capacity * uuidBytes + diskReserveBytes,
  };
}

/** Throws `out_of_memory` or `disk_full` with the numbers where the build cannot fit. */
export async function preflight(
  need: BuildNeed,
  limits: { faces: number; dim: number; memoryLimitBytes: number; storageRoot: string },
): Promise<void> {
  const what = `${limits.faces} faces of ${limits.dim} dimensions`;
  if (need.memoryBytes > limits.memoryLimitBytes)
    throw new LimError(
      "out_of_memory",
      `${what} need about ${inMib(need.memoryBytes)} of memory (index ${inMib(need.engineBytes)}, vectors ` +
        `${inMib(need.vectorsBytes)}), the limit is ${inMib(limits.memoryLimitBytes)}; raise LIM_BUILD_MEMORY_LIMIT_MB`,
    );
  const freeBytes = await freeDiskBytes(limits.storageRoot);
  if (need.diskBytes > freeBytes)
    throw new LimError(
      "disk_full",
      `${what} need about ${inMib(need.diskBytes)} of disk, ${inMib(freeBytes)} are free in the index storage`,
    );
}

/** Bytes that an unprivileged process may still write to the file system of `path`. */
export async function freeDiskBytes(path: string): Promise<number> {
  try {
    const stats = await statfs(path);
    return stats.bavail * stats.bsize;
  } catch (cause) {
    throw new LimError(
      "storage_unavailable",
      `index storage cannot be examined: ${LimError.from(cause).detail}`,
      {
        cause,
      },
    );
  }
}

export function inMib(bytes: number): string {
  return `${Math.ceil(bytes / mebibyte).toLocaleString("en-US")} MiB`;
}
