// Process of the bare engine: inserts rows of a file and nothing else.
import type { EngineName } from "@lim/contracts";
import { loadEngine } from "@lim/vector-index";
import { StopWatch } from "../engine/process-figures.ts";
import { sendProgress, serveEngine } from "../engine/rpc.ts";
import { readRows } from "../engine/vector-file.ts";

export interface InsertArgs {
  engine: EngineName;
  rowsPath: string;
  dim: number;
  rows: number;
  m: number;
  efConstruction: number;
  /** Rows of one call. */
  batchRows: number;
}

export interface InsertFigures {
  seconds: number;
  /** Processor time of all threads of the process. */
  cpuSeconds: number;
}

export interface BareOperations {
  [name: string]: (args: never) => Promise<unknown>;
  insert(args: InsertArgs): Promise<InsertFigures>;
}

const tellEveryMs = 10_000;

async function insert(args: InsertArgs): Promise<InsertFigures> {
  const { dim, rows, m, efConstruction, batchRows } = args;
  // Shared, so that the engine takes them as they are: a copy would not be its own time.
  const vectors = new Float32Array(new SharedArrayBuffer(rows * dim * 4));
  readRows(args.rowsPath, dim, 0, rows, vectors);
  const engine = await loadEngine(args.engine);
  const index = await engine.create({ dim, capacity: rows, params: { m, efConstruction } });
  const watch = new StopWatch();
  let toldMs = performance.now();
  watch.start();
  for (let at = 0; at < rows; at += batchRows) {
    const end = Math.min(rows, at + batchRows);
    const positions = Uint32Array.from({ length: end - at }, (_, i) => at + i);
    await index.add(positions, vectors.subarray(at * dim, end * dim));
    if (performance.now() - toldMs < tellEveryMs) continue;
    toldMs = performance.now();
    sendProgress(`${Math.round((100 * end) / rows)} %`);
  }
  watch.stop();
  const { seconds, cpuSeconds } = watch;
  await index.close();
  return { seconds, cpuSeconds };
}

serveEngine({ insert } satisfies BareOperations);
