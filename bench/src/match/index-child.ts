// Process of an engine: builds and publishes an index, opens published ones, and searches one without any streams.
import { randomUUID } from "node:crypto";
import { type EngineName, uuidBytes, writeUuid } from "@lim/contracts";
import { openIndexStorage } from "@lim/index-storage";
import { faceIdOf } from "@lim/testkit";
import { createKeyedIndex, type KeyedIndex, loadEngine } from "@lim/vector-index";
import { descriptorVersion, faceIdsName } from "../build/lists.ts";
import { serveEngine } from "../engine/rpc.ts";
import { readRows, rowsIn } from "../engine/vector-file.ts";
import { type ClosedLoopFigures, closedLoop } from "../load/closed-loop.ts";

export interface PublishArgs {
  engine: EngineName;
  rowsPath: string;
  dim: number;
  faces: number;
  m: number;
  efConstruction: number;
  root: string;
  label: string;
  historyId: string;
  revision: number;
}

export interface IndexPlace {
  root: string;
  label: string;
  indexId: string;
}

export interface SearchArgs {
  seconds: number;
  limit: number;
  ef: number;
  /** Queries of one call. */
  batch: number;
  /** Calls at a time. */
  callers: number;
}

export interface SearchFigures extends ClosedLoopFigures {
  queriesPerS: number;
  /** Processor time of the whole process. */
  cpuUsPerQuery: number;
}

export interface IndexOperations {
  [name: string]: (args: never) => Promise<unknown>;
  /** Returns the id of the published index. */
  publish(args: PublishArgs): Promise<string>;
  /** Seconds to open all of them, so many at a time as a matcher does, and to close them again. */
  openAll(args: { places: IndexPlace[]; atOnce: number }): Promise<number>;
  open(args: IndexPlace & { queriesPath: string }): Promise<void>;
  search(args: SearchArgs): Promise<SearchFigures>;
}

const batchRows = 1_000;

let opened: { keyed: KeyedIndex; queries: Float32Array } | undefined;

async function publish(args: PublishArgs): Promise<string> {
  const { dim, faces, label, historyId, revision, m, efConstruction } = args;
  const engine = await loadEngine(args.engine);
  const params = { m, efConstruction };
  const keyed = createKeyedIndex(await engine.create({ dim, capacity: faces, params }));
  for (let at = 0; at < faces; at += batchRows) {
    const count = Math.min(batchRows, faces - at);
    const ids = new Uint8Array(count * uuidBytes);
    for (let i = 0; i < count; i++) writeUuid(faceIdOf(faceIdsName, at + i), ids, i * uuidBytes);
    await keyed.addNew(ids, readRows(args.rowsPath, dim, at, count));
  }
  const storage = await openIndexStorage({ root: args.root });
  const indexId = randomUUID();
  const staging = await storage.stage({ label, indexId, attempt: 1 });
  const content = {
    label,
    historyId,
    descriptorVersion,
    revision,
    engine: args.engine,
    params,
    mode: "rebuild" as const,
    removedSinceRebuild: 0,
    skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
  };
  await staging.publish(keyed, content, { phases: {} });
  await keyed.close();
  return indexId;
}

async function openAll({ places, atOnce }: { places: IndexPlace[]; atOnce: number }): Promise<number> {
  const startedMs = performance.now();
  const all: KeyedIndex[] = [];
  const waiting = [...places];
  const work = async () => {
    for (let place = waiting.shift(); place; place = waiting.shift()) {
      const storage = await openIndexStorage({ root: place.root });
      all.push((await storage.open(place)).keyed);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  const seconds = (performance.now() - startedMs) / 1000;
  for (const keyed of all) await keyed.close();
  return seconds;
}

async function open({ root, label, indexId, queriesPath }: IndexPlace & { queriesPath: string }) {
  const storage = await openIndexStorage({ root });
  const { keyed, meta } = await storage.open({ label, indexId });
  const queries = readRows(queriesPath, meta.dim, 0, rowsIn(queriesPath, meta.dim));
  opened = { keyed, queries };
}

async function search({ seconds, limit, ef, batch, callers }: SearchArgs): Promise<SearchFigures> {
  if (!opened) throw new Error("no index is open");
  const { keyed, queries } = opened;
  const { dim } = keyed.index;
  const count = queries.length / dim;
  const ask = async (n: number) => {
    const rows = new Float32Array(batch * dim);
    for (let i = 0; i < batch; i++) {
      const at = ((n * batch + i) % count) * dim;
      rows.set(queries.subarray(at, at + dim), i * dim);
    }
    const { counts } = await keyed.index.search(rows, { k: limit, ef });
    return counts[0] !== undefined && counts[0] > 0;
  };
  await closedLoop({ callers, durationMs: seconds * 100, ask });
  const cpu = process.cpuUsage();
  const figures = await closedLoop({ callers, durationMs: seconds * 1000, ask });
  const { user, system } = process.cpuUsage(cpu);
  return {
    ...figures,
    queriesPerS: figures.answeredPerS * batch,
    cpuUsPerQuery: (user + system) / (figures.latency.count * batch),
  };
}

serveEngine({ publish, openAll, open, search } satisfies IndexOperations);
