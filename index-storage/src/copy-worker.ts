import { createHash } from "node:crypto";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { parentPort } from "node:worker_threads";

export interface CopyRequest {
  id: number;
  from: string;
  to: string;
  chunkBytes: number;
  /** One int32: anything but 0 ends the copy. */
  stop: SharedArrayBuffer;
}

export type CopyReply =
  | { id: number; kind: "progress" }
  | { id: number; kind: "done"; size: number; sha256: string }
  | { id: number; kind: "stopped" }
  | { id: number; kind: "failed"; isWrite: boolean; code: string | undefined; message: string };

const port = parentPort;
if (!port) throw new Error("copy-worker runs as a worker thread only");
// One for all copies: a thread with so little of its own seldom collects what it has dropped.
let chunk = new Uint8Array();
const tell = (reply: CopyReply) => port.postMessage(reply);

class WriteError extends Error {}

function writing<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new WriteError("", { cause });
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done);
}

function copy({ id, from, to, chunkBytes, stop }: CopyRequest): CopyReply {
  const stopped = new Int32Array(stop);
  const hash = createHash("sha256");
  if (chunk.length !== chunkBytes) chunk = new Uint8Array(chunkBytes);
  const source = openSync(from, "r");
  try {
    const target = writing(() => openSync(to, "wx", 0o600));
    try {
      for (let size = 0; ; ) {
        if (Atomics.load(stopped, 0) !== 0) return { id, kind: "stopped" };
        const got = readSync(source, chunk, 0, chunkBytes, size);
        if (got === 0) return { id, kind: "done", size, sha256: hash.digest("hex") };
        const bytes = chunk.subarray(0, got);
        hash.update(bytes);
        writing(() => writeAll(target, bytes));
        size += got;
        tell({ id, kind: "progress" });
      }
    } finally {
      writing(() => closeSync(target));
    }
  } finally {
    closeSync(source);
  }
}

port.on("message", (request: CopyRequest) => {
  try {
    tell(copy(request));
  } catch (thrown) {
    const isWrite = thrown instanceof WriteError;
    const { code, message } = (isWrite ? thrown.cause : thrown) as NodeJS.ErrnoException;
    tell({ id: request.id, kind: "failed", isWrite, code, message });
  }
});
