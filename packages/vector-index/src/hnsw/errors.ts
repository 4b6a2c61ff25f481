import { type ErrorName, isLimError, LimError } from "@lim/contracts";
import { HnswError, type HnswErrorCode } from "@lim/hnsw";

const names: Record<HnswErrorCode, ErrorName> = {
  bad_input: "bad_input",
  full: "out_of_memory",
  overloaded: "overloaded",
  aborted: "aborted",
  refused: "index_refused",
  disk_full: "disk_full",
  failed: "engine_failed",
  closed: "aborted",
  unsupported: "engine_failed",
};

/** What the engine threw, as the port's error. */
export function asLimError(thrown: unknown): LimError {
  if (isLimError(thrown)) return thrown;
  if (thrown instanceof HnswError) return new LimError(names[thrown.code], thrown.message, { cause: thrown });
  return LimError.from(thrown, "engine_failed");
}

export async function translated<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw asLimError(thrown);
  }
}

/** As `translated`, of work at a file of the caller's: where the system refuses it, the storage failed and not the engine. */
export async function translatedAtFile<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    const error = asLimError(thrown);
    const cause = thrown instanceof HnswError ? thrown.cause : undefined;
    if (error.errorName !== "engine_failed" || !(cause instanceof Error && "syscall" in cause)) throw error;
    throw new LimError("storage_unavailable", error.detail, { cause });
  }
}
