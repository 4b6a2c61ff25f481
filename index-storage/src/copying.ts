import { Worker } from "node:worker_threads";
import { LimError } from "@lim/contracts";
import type { CopyReply, CopyRequest } from "./copy-worker.ts";
import { assertLive, type FileDigest } from "./files.ts";
import { storageLimits } from "./layout.ts";

/** The copy could not be written; `cause` is the file system's error. Nothing is said of what was read. */
export class CopyWriteError extends Error {}

interface Pending {
  onProgress: () => void;
  resolve: (digest: FileDigest) => void;
  reject: (reason: unknown) => void;
}

let thread: Worker | undefined;
let lastId = 0;
const pending = new Map<number, Pending>();

/** One thread for all copies of the process: they wait for the disk, and a matcher's answers must not wait for them. */
function copyThread(): Worker {
  if (thread) return thread;
  const started = new Worker(
    new URL(import.meta.url.endsWith(".ts") ? "./copy-worker.ts" : "./copy-worker.js", import.meta.url),
    // Flags of the process that make no sense for a thread (--input-type) would end it.
    { name: "lim-copy", execArgv: [] },
  );
  started.unref();
  thread = started;
  started.on("message", (reply: CopyReply) => settle(started, reply));
  const lost = (detail: string) => {
    if (thread === started) thread = undefined;
    for (const { reject } of pending.values()) reject(new LimError("storage_unavailable", detail));
    pending.clear();
  };
  started.on("error", (cause) => lost(`the copying thread failed: ${String(cause)}`));
  started.on("exit", (code) => lost(`the copying thread ended with exit code ${code}`));
  return started;
}

function settle(worker: Worker, reply: CopyReply): void {
  const one = pending.get(reply.id);
  if (!one) return;
  if (reply.kind === "progress") {
    one.onProgress();
    return;
  }
  pending.delete(reply.id);
  if (pending.size === 0) worker.unref();
  if (reply.kind === "done") one.resolve({ size: reply.size, sha256: reply.sha256 });
  else if (reply.kind === "stopped") one.reject(new LimError("aborted", "cancelled by the caller"));
  else {
    const cause = Object.assign(
      new Error(reply.message),
      reply.code === undefined ? {} : { code: reply.code },
    );
    one.reject(reply.isWrite ? new CopyWriteError(reply.message, { cause }) : cause);
  }
}

/**
 * Copies a file into one that must not exist yet, and returns the digest of the bytes that were written; all of it off
 * this thread. Rejects with the file system's error where reading fails, with a CopyWriteError where writing does.
 */
export async function copyDigested(
  from: string,
  to: string,
  options: { signal: AbortSignal | undefined; onProgress?: () => void },
): Promise<FileDigest> {
  const { signal, onProgress = () => {} } = options;
  assertLive(signal);
  const worker = copyThread();
  const id = ++lastId;
  const stop = new SharedArrayBuffer(4);
  const request: CopyRequest = { id, from, to, chunkBytes: storageLimits.copyChunkBytes, stop };
  const onAbort = () => Atomics.store(new Int32Array(stop), 0, 1);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    return await new Promise<FileDigest>((resolve, reject) => {
      pending.set(id, { onProgress, resolve, reject });
      worker.ref();
      worker.postMessage(request);
    });
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}
