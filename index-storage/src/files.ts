import { createHash } from "node:crypto";
import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { isLimError, LimError } from "@lim/contracts";
import { storageLimits } from "./layout.ts";

export function errorCode(thrown: unknown): string {
  const code = (thrown as { code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : "";
}

export function isMissing(thrown: unknown): boolean {
  const code = errorCode(thrown);
  return code === "ENOENT" || code === "ENOTDIR";
}

/** A failed file operation as the storage reports it. */
export function storageError(thrown: unknown, doing: string): LimError {
  if (isLimError(thrown)) return thrown;
  const code = errorCode(thrown);
  if (code === "ENOSPC" || code === "EDQUOT")
    return new LimError("disk_full", `${code} while ${doing}`, { cause: thrown });
  const from = LimError.from(thrown, "storage_unavailable");
  if (from.errorName !== "storage_unavailable") return from;
  return new LimError("storage_unavailable", `${doing}: ${from.detail}`, { cause: thrown });
}

export function assertLive(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new LimError("aborted", "cancelled by the caller");
}

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (thrown) {
    if (isMissing(thrown)) return false;
    throw thrown;
  }
}

/** Names in a folder; none where it does not exist. */
export async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (thrown) {
    if (isMissing(thrown)) return [];
    throw thrown;
  }
}

export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function writeDurably(path: string, bytes: Uint8Array | string): Promise<void> {
  const handle = await open(path, "w");
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export interface FileDigest {
  size: number;
  sha256: string;
}

/**
 * Reads a file once from its beginning to its end, hashing, and hands each chunk on: what `sink` received is what
 * was hashed. A chunk is valid until the sink's promise resolves.
 */
export async function digestFile(
  path: string,
  options: { signal?: AbortSignal | undefined; sink?: (chunk: Uint8Array) => Promise<void> | void } = {},
): Promise<FileDigest> {
  const { signal, sink } = options;
  const hash = createHash("sha256");
  const chunk = new Uint8Array(storageLimits.copyChunkBytes);
  let size = 0;
  const handle: FileHandle = await open(path, "r");
  try {
    for (;;) {
      assertLive(signal);
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, size);
      if (bytesRead === 0) break;
      const bytes = chunk.subarray(0, bytesRead);
      hash.update(bytes);
      await sink?.(bytes);
      size += bytesRead;
    }
  } finally {
    await handle.close();
  }
  return { size, sha256: hash.digest("hex") };
}
