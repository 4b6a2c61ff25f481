/**
 * What can go wrong, for programs:
 * - `bad_input`: the call itself is wrong; nothing changed
 * - `full`: no slots are left
 * - `overloaded`: too many calls wait already
 * - `aborted`: the caller's signal fired
 * - `refused`: the file is not a whole, valid index
 * - `disk_full`: no space left for a file
 * - `failed`: something broke inside; after a change that broke, the index takes no further work
 * - `closed`: the index or its pool was closed
 * - `unsupported`: this Node cannot run the engine
 */
export const hnswErrorCodes = [
  "bad_input",
  "full",
  "overloaded",
  "aborted",
  "refused",
  "disk_full",
  "failed",
  "closed",
  "unsupported",
] as const;
export type HnswErrorCode = (typeof hnswErrorCodes)[number];

export class HnswError extends Error {
  readonly code: HnswErrorCode;
  constructor(code: HnswErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "HnswError";
    this.code = code;
  }
}

export const badInput = (message: string): HnswError => new HnswError("bad_input", message);

export const abortedError = (signal: AbortSignal): HnswError =>
  new HnswError("aborted", "aborted by the caller", { cause: signal.reason });

/** Throws once the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError(signal);
}

/** An error as it travels between threads. */
export interface PlainError {
  code: HnswErrorCode;
  message: string;
  /** The sandbox trapped: what it was writing may be half done. */
  trap: boolean;
}

const full = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

export function plainError(error: unknown): PlainError {
  if (error instanceof HnswError) return { code: error.code, message: error.message, trap: false };
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (full.has(code)) return { code: "disk_full", message, trap: false };
  const trap = !(error instanceof Error && "syscall" in error);
  return { code: "failed", message, trap };
}

export const errorFrom = (plain: PlainError): HnswError => new HnswError(plain.code, plain.message);

/** Whatever was thrown, as an HnswError. */
export const asHnswError = (error: unknown): HnswError =>
  error instanceof HnswError
    ? error
    : new HnswError(plainError(error).code, plainError(error).message, { cause: error });
