import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { LimError } from "@lim/contracts";
import { HnswIndex, planMemory, type RowsOption, sharedPool } from "@lim/hnsw";
import { vectorIndexLimits } from "../limits.ts";
import type { EngineAdapter, EngineParams, RerankKind } from "../port.ts";
import { asLimError, translated, translatedAtFile } from "./errors.ts";
import { assertCount, PositionedHnsw } from "./hnsw-index.ts";

const defaultSeed = 100;

/** A file of vectors that is the caller's. */
type OwnFile = { spool: string } | { inPlace: true };

interface RowsPlace<Rows> {
  rows: Rows;
  cleanUp: () => Promise<void>;
}

/**
 * Where full precision is kept. A working file is in a folder whose name tells its process, so that the next one finds
 * what was left by a process that died.
 */
async function placeOf<Own extends OwnFile>(vectors: RerankKind | Own): Promise<RowsPlace<RowsOption | Own>> {
  if (vectors === "off") return { rows: "none", cleanUp: async () => {} };
  if (vectors !== "file") return { rows: vectors, cleanUp: async () => {} };
  const folder = await mkdtemp(join(tmpdir(), `lim-rows.${encodeURIComponent(hostname())}.${process.pid}.`));
  return {
    rows: { file: join(folder, "rows.f32") },
    cleanUp: () => rm(folder, { recursive: true, force: true }),
  };
}

function installedVersion(): string {
  const manifest = new URL("../package.json", import.meta.resolve("@lim/hnsw"));
  return (JSON.parse(readFileSync(fileURLToPath(manifest), "utf8")) as { version: string }).version;
}

/** Builds a small index once, to fail here and with a remedy where this Node cannot run the engine. */
export async function loadHnsw(rerank: RerankKind): Promise<EngineAdapter> {
  const adapter = new HnswAdapter(installedVersion(), rerank);
  await (await adapter.create({ dim: 8, capacity: 1, params: { m: 4, efConstruction: 10 } })).close();
  return adapter;
}

/** Resident bytes that closed indexes left for the next ones. */
export const spareBytes = (): number => sharedPool().spareMemoryBytes;

type CreateOptions = Parameters<EngineAdapter["create"]>[0];

function assertShape(dim: number, capacity: number, { m, efConstruction, seed }: EngineParams): void {
  assertCount("dim", dim, 1, 4_096);
  assertCount("m", m, 4, 128);
  assertCount("efConstruction", efConstruction, 1, 4_096);
  assertCount("capacity", capacity, 0, vectorIndexLimits.maxSlots);
  if (seed !== undefined) assertCount("seed", seed, 0, 2 ** 32 - 1);
}

class HnswAdapter implements EngineAdapter {
  readonly name = "hnsw";
  readonly version: string;
  readonly readsVectors: boolean;
  private readonly rerank: RerankKind;

  constructor(version: string, rerank: RerankKind) {
    this.version = version;
    this.rerank = rerank;
    this.readsVectors = rerank !== "off";
  }

  create(options: CreateOptions): Promise<PositionedHnsw> {
    return this.made(options, this.rerank);
  }

  createSpooled({ vectors, ...options }: CreateOptions & { vectors: string }): Promise<PositionedHnsw> {
    return this.made(options, { spool: vectors });
  }

  private async made(
    { dim, capacity, params, signal }: CreateOptions,
    vectors: RerankKind | { spool: string },
  ): Promise<PositionedHnsw> {
    const { m, efConstruction, seed = defaultSeed } = params;
    this.estimateMemoryBytes({ dim, capacity, params, spooled: typeof vectors === "object" });
    return this.held(vectors, 0, params, (rows) =>
      HnswIndex.create({ dim, metric: "ip", m, efConstruction, seed, capacity, rows, signal }),
    );
  }

  async load(options: Parameters<EngineAdapter["load"]>[0]): Promise<PositionedHnsw> {
    const { files, dim, slots, removed, params, inPlace = false, signal } = options;
    assertShape(dim, slots, params);
    const isLive = liveOf(slots, removed);
    const rowsPath = this.readsVectors ? files.vectors : undefined;
    if (this.readsVectors && rowsPath === undefined)
      throw new LimError("index_refused", "its vectors in full precision are missing");
    const vectors = inPlace && rowsPath !== undefined ? { inPlace: true as const } : this.rerank;
    const index = await this.held(vectors, slots, params, (rows) =>
      HnswIndex.load(files.index, { rows, signal, ...(rowsPath === undefined ? {} : { rowsPath }) }),
    );
    try {
      await index.assertHolds({ dim, m: params.m, isLive, live: slots - removed.length });
      return index;
    } catch (thrown) {
      await index.close();
      throw thrown;
    }
  }

  estimateMemoryBytes({
    dim,
    capacity,
    params,
    spooled = false,
  }: Parameters<EngineAdapter["estimateMemoryBytes"]>[0]): number {
    assertShape(dim, capacity, params);
    const rows = spooled || this.rerank === "off" || this.rerank === "file" ? "none" : this.rerank;
    try {
      const plan = planMemory({ dim, m: params.m, metric: "ip", rows, capacity });
      if (capacity <= plan.maxSlots) return plan.memoryBytes;
      throw new LimError(
        "out_of_memory",
        `${capacity} vectors of ${dim} dimensions: one index of engine hnsw holds ${plan.maxSlots} in its 4 GiB; ` +
          "engine hnswlib has no such limit",
      );
    } catch (thrown) {
      throw asLimError(thrown);
    }
  }

  private async held<Own extends OwnFile>(
    vectors: RerankKind | Own,
    slots: number,
    params: EngineParams,
    open: (rows: RowsOption | Own) => Promise<HnswIndex>,
  ): Promise<PositionedHnsw> {
    const place = await placeOf(vectors);
    const isOwnFile = typeof vectors === "object";
    const takesVectors = !isOwnFile ? "add" : "spool" in vectors ? "spool" : "nothing";
    try {
      const opened = takesVectors === "spool" ? translatedAtFile : translated;
      const engine = await opened(() => open(place.rows));
      const { dim } = engine;
      return new PositionedHnsw({
        engine,
        version: this.version,
        rerank: isOwnFile ? "file" : vectors,
        takesVectors,
        slots,
        memoryBytesOf: (capacity) => this.estimateMemoryBytes({ dim, capacity, params, spooled: isOwnFile }),
        cleanUp: place.cleanUp,
      });
    } catch (thrown) {
      await place.cleanUp();
      throw thrown;
    }
  }
}

/** One byte a position: 1 = live. Throws `index_refused` where `removed` is not a set of positions. */
function liveOf(slots: number, removed: Uint32Array): Uint8Array {
  const isLive = new Uint8Array(slots).fill(1);
  for (const position of removed) {
    if (isLive[position] !== 1)
      throw new LimError("index_refused", `removed position ${position} of ${slots}, or named twice`);
    isLive[position] = 0;
  }
  return isLive;
}
