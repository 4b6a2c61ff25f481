import { parentPort } from "node:worker_threads";
import { type Chunk, type ChunkView, type ScanResult, type ScanTask, scan, viewOf } from "./scan.ts";

export type ExactRequest =
  | { op: "scan"; indexId: number; newChunks: Chunk[]; task: ScanTask }
  | { op: "forget"; indexId: number };

export type ExactReply = { ok: true; results: ScanResult[] } | { ok: false; detail: string };

const chunksOf = new Map<number, ChunkView[]>();

const port = parentPort;
if (!port) throw new Error("exact/worker runs as a worker thread only");
port.on("message", (request: ExactRequest) => {
  if (request.op === "forget") {
    chunksOf.delete(request.indexId);
    return;
  }
  let reply: ExactReply;
  try {
    const chunks = chunksOf.get(request.indexId) ?? [];
    chunksOf.set(request.indexId, chunks);
    for (const chunk of request.newChunks) chunks.push(viewOf(chunk));
    reply = { ok: true, results: scan(chunks, request.task) };
  } catch (thrown) {
    reply = { ok: false, detail: thrown instanceof Error ? thrown.message : String(thrown) };
  }
  port.postMessage(reply);
});
