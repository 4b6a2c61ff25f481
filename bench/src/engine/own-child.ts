// Process of our engine: everything by its public interface.
import { HnswIndex, HnswPool, planMemory } from "@lim/hnsw";
import { type Latency, latencyOf, missingKey } from "./figures.ts";
import { besideWriter } from "./own-writer.ts";
import { residentBytes, StopWatch } from "./process-figures.ts";
import {
  type AddArgs,
  type BuildFigures,
  type ChurnArgs,
  type CreateArgs,
  chunkRows,
  type LatencyArgs,
  type LoadArgs,
  type OwnOperations,
  type PointArgs,
  type PointFigures,
} from "./protocol.ts";
import { sendProgress, serveEngine } from "./rpc.ts";
import { gatherRows, readRows, rowsIn } from "./vector-file.ts";

/** Queries of a call, and calls under way for each thread, while throughput is measured. */
const batchQueries = 64;
const callersPerThread = 2;
const latencyWarmUp = 200;

let pool: HnswPool | undefined;
let poolThreads = 1;
let held: HnswIndex | undefined;
let dim = 0;
let queries: Float32Array = new Float32Array(0);
/** One for the life of the process, so that it adds nothing to the slope of memory. */
let chunk: Float32Array = new Float32Array(0);

function index(): HnswIndex {
  if (!held) throw new Error("no index yet");
  return held;
}

function usePool(threads: number): HnswPool {
  poolThreads = threads;
  pool ??= new HnswPool({ threads });
  return pool;
}

async function create(args: CreateArgs) {
  const { m, efConstruction, seed, capacity, rows, rowsFile } = args;
  dim = args.dim;
  chunk = new Float32Array(Math.min(capacity, chunkRows) * dim).fill(1);
  const place = rows === "file" ? { file: rowsFile ?? "" } : rows;
  const shape = { dim, m, metric: "ip" as const, rows: place };
  held = await HnswIndex.create({
    ...shape,
    efConstruction,
    seed,
    capacity,
    pool: usePool(args.poolThreads),
  });
  const planned = planMemory({ ...shape, capacity, threads: args.poolThreads });
  return { plannedBytesPerVector: planned.bytesPerVector };
}

async function add({ rowsPath, from, count, threads }: AddArgs): Promise<BuildFigures> {
  const watch = new StopWatch();
  const resident: [number, number][] = [];
  for (let at = from; at < from + count; at += chunkRows) {
    const step = Math.min(chunkRows, from + count - at);
    const vectors = readRows(rowsPath, dim, at, step, chunk);
    const keys = Uint32Array.from({ length: step }, (_, i) => at + i);
    watch.start();
    await index().upsert(keys, vectors, { threads });
    watch.stop();
    sendProgress(`${(at + step).toLocaleString("en-US")} rows added`);
    resident.push([at + step, await residentBytes()]);
  }
  return { seconds: watch.seconds, cpuSeconds: watch.cpuSeconds, resident };
}

async function addMapped(args: { rowsPath: string; rowOf: Uint32Array; threads: number }) {
  const { rowsPath, rowOf, threads } = args;
  const vectors = gatherRows(rowsPath, dim, rowOf, new Float32Array(rowOf.length * dim));
  const keys = Uint32Array.from(rowOf, (_, key) => key);
  await index().upsert(keys, vectors, { threads });
}

/** Packets one after another, each awaited, as a follower of a feed applies them. */
async function churn({ rowsPath, keys, rows, packet }: ChurnArgs) {
  const vectors = new Float32Array(packet * dim);
  const watch = new StopWatch();
  for (let at = 0; at < keys.length; at += packet) {
    const changed = keys.subarray(at, at + packet);
    const read = gatherRows(rowsPath, dim, rows.subarray(at, at + packet), vectors);
    watch.start();
    await index().change({ upsert: { keys: changed, vectors: read } });
    watch.stop();
  }
  return { seconds: watch.seconds };
}

async function open({ path, rows, rowsPath, poolThreads: threads }: LoadArgs): Promise<HnswIndex> {
  return HnswIndex.load(path, {
    pool: usePool(threads),
    rows,
    ...(rows === "none" ? {} : { rowsPath }),
  });
}

/** Twice: into a process whose memory is new to it, and into one that has a retired memory to use again. */
async function load(args: LoadArgs) {
  const timed = async () => {
    await held?.close();
    const startedMs = performance.now();
    held = await open(args);
    return (performance.now() - startedMs) / 1000;
  };
  // Threads and the compiled module are there before, as in a service that has run for a while.
  await create({ ...smallest, rows: "none", poolThreads: args.poolThreads });
  await index().upsert(Uint32Array.of(1), new Float32Array(smallest.dim).fill(1));
  const figures = { firstSeconds: await timed(), secondSeconds: await timed() };
  dim = index().dim;
  return figures;
}

const smallest = { dim: 64, m: 16, efConstruction: 200, seed: 1, capacity: 1 };

async function drops(args: LoadArgs & { times: number }) {
  const resident: number[] = [];
  let indexBytes = 0;
  for (let i = 0; i < args.times; i++) {
    const loaded = await open(args);
    await loaded.search(new Float32Array(loaded.dim).fill(1), { k: 10 });
    indexBytes = loaded.memoryBytes;
    await loaded.close();
    resident.push(process.memoryUsage.rss());
  }
  return { resident, settled: await residentBytes(), indexBytes };
}

/** All queries in one call; places without a result hold `missingKey`. */
async function allKeys({ k, ef, depth }: PointArgs): Promise<Uint32Array> {
  const { keys, counts } = await index().search(queries, {
    k,
    ef,
    ...(depth === undefined ? {} : { depth }),
  });
  const all = keys.slice();
  counts.forEach((count, q) => {
    all.fill(missingKey, q * k + count, (q + 1) * k);
  });
  return all;
}

async function point(args: PointArgs): Promise<PointFigures> {
  const { k, ef, depth, durationMs } = args;
  const options = { k, ef, ...(depth === undefined ? {} : { depth }) };
  const keys = args.withKeys ? await allKeys(args) : undefined;
  const count = queries.length / dim;
  const batches: Float32Array[] = [];
  for (let at = 0; at < count; at += batchQueries)
    batches.push(queries.subarray(at * dim, Math.min(count, at + batchQueries) * dim));
  let done = 0;
  let next = 0;
  const untilMs = performance.now() + durationMs;
  const call = async () => {
    while (performance.now() < untilMs) {
      const batch = batches[next++ % batches.length] ?? queries;
      await index().search(batch, options);
      done += batch.length / dim;
    }
  };
  const watch = new StopWatch();
  watch.start();
  await Promise.all(Array.from({ length: callersPerThread * poolThreads }, call));
  watch.stop();
  return { perS: done / watch.seconds, cpuUs: (watch.cpuSeconds / done) * 1e6, keys };
}

/** One query at a time, from the call to its promise's continuation. */
async function latency({ k, ef, depth, durationMs }: LatencyArgs): Promise<Latency> {
  const options = { k, ef, ...(depth === undefined ? {} : { depth }) };
  const count = queries.length / dim;
  const query = (i: number) => queries.subarray((i % count) * dim, ((i % count) + 1) * dim);
  for (let i = 0; i < latencyWarmUp; i++) await index().search(query(i), options);
  const samplesMs: number[] = [];
  const untilMs = performance.now() + durationMs;
  for (let nowMs = performance.now(); nowMs < untilMs; ) {
    await index().search(query(samplesMs.length), options);
    const afterMs = performance.now();
    samplesMs.push(afterMs - nowMs);
    nowMs = afterMs;
  }
  return latencyOf(samplesMs);
}

async function timed(run: () => Promise<void>) {
  const startedMs = performance.now();
  await run();
  return { seconds: (performance.now() - startedMs) / 1000 };
}

const operations: OwnOperations = {
  create,
  add,
  addMapped,
  churn,
  save: ({ path, rowsPath }) => timed(() => index().save(path, { rowsPath })),
  load,
  async queries(args) {
    queries = readRows(args.path, args.dim, 0, rowsIn(args.path, args.dim));
  },
  point,
  latency,
  besideWriter: (args) => besideWriter(index(), args, () => latency(args)),
  drops,
  async status() {
    const { size, slots, memoryBytes } = index();
    return { size, slots, memoryBytes, residentBytes: await residentBytes() };
  },
};

serveEngine(operations);
