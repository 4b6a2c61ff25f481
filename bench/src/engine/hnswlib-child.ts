// Process of hnswlib-node: one thread, number[] in and out, as its users have it.
import hnswlib from "hnswlib-node";
import { latencyOf, missingKey } from "./figures.ts";
import { residentBytes, StopWatch } from "./process-figures.ts";
import { type BuildArgs, type BuildFigures, chunkRows, type HnswlibOperations } from "./protocol.ts";
import { sendProgress, serveEngine } from "./rpc.ts";
import { readRows, rowsIn } from "./vector-file.ts";

type Index = InstanceType<typeof hnswlib.HierarchicalNSW>;

const sayEveryMs = 10_000;
let held: Index | undefined;
let queries: number[][] = [];

function index(): Index {
  if (!held) throw new Error("no index yet");
  return held;
}

async function build(args: BuildArgs): Promise<BuildFigures> {
  const { dim, rows, m, efConstruction, seed } = args;
  held = new hnswlib.HierarchicalNSW("ip", dim);
  held.initIndex({ maxElements: rows, m, efConstruction, randomSeed: seed });
  const chunk = new Float32Array(Math.min(rows, chunkRows) * dim);
  const watch = new StopWatch();
  const resident: [number, number][] = [];
  let saidMs = performance.now();
  for (let from = 0; from < rows; from += chunkRows) {
    const count = Math.min(chunkRows, rows - from);
    const vectors = readRows(args.rowsPath, dim, from, count, chunk);
    watch.start();
    // The conversion is part of the price: nothing but number[] is taken.
    for (let i = 0; i < count; i++) {
      held.addPoint(Array.from(vectors.subarray(i * dim, (i + 1) * dim)), from + i);
      if (i % 100 === 0 && performance.now() - saidMs > sayEveryMs) {
        saidMs = performance.now();
        sendProgress(`${(from + i).toLocaleString("en-US")} of ${rows.toLocaleString("en-US")} rows added`);
      }
    }
    watch.stop();
    resident.push([from + count, await residentBytes()]);
  }
  return { seconds: watch.seconds, cpuSeconds: watch.cpuSeconds, resident };
}

const operations: HnswlibOperations = {
  build,
  async save({ path }) {
    const startedMs = performance.now();
    await index().writeIndex(path);
    return { seconds: (performance.now() - startedMs) / 1000 };
  },
  async load({ path, dim }) {
    const startedMs = performance.now();
    const loaded = new hnswlib.HierarchicalNSW("ip", dim);
    await loaded.readIndex(path);
    held = loaded;
    return { seconds: (performance.now() - startedMs) / 1000 };
  },
  async queries({ path, dim }) {
    const count = rowsIn(path, dim);
    const vectors = readRows(path, dim, 0, count);
    queries = Array.from({ length: count }, (_, q) => Array.from(vectors.subarray(q * dim, (q + 1) * dim)));
  },
  async point({ k, ef, durationMs, withKeys }) {
    const searched = index();
    searched.setEf(ef);
    let keys: Uint32Array | undefined;
    if (withKeys) {
      keys = new Uint32Array(queries.length * k).fill(missingKey);
      for (const [q, query] of queries.entries()) keys.set(searched.searchKnn(query, k).neighbors, q * k);
    }
    const watch = new StopWatch();
    const untilMs = performance.now() + durationMs;
    let done = 0;
    watch.start();
    for (; performance.now() < untilMs; done++) searched.searchKnn(queries[done % queries.length] ?? [], k);
    watch.stop();
    return { perS: done / watch.seconds, cpuUs: (watch.cpuSeconds / done) * 1e6, keys };
  },
  async latency({ k, ef, durationMs }) {
    const searched = index();
    searched.setEf(ef);
    const samplesMs: number[] = [];
    const untilMs = performance.now() + durationMs;
    for (let nowMs = performance.now(); nowMs < untilMs; ) {
      searched.searchKnn(queries[samplesMs.length % queries.length] ?? [], k);
      const afterMs = performance.now();
      samplesMs.push(afterMs - nowMs);
      nowMs = afterMs;
    }
    return latencyOf(samplesMs);
  },
};

serveEngine(operations);
