// What the parts of the benchmark share: options, processes, index files of this run.
import { existsSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import type { DataContext, Dataset } from "./dataset.ts";
import type { GoalFigure } from "./goals.ts";
import type { Options } from "./options.ts";
import type { BuildArgs, HnswlibOperations, LoadArgs, OwnOperations } from "./protocol.ts";
import { type EngineProcess, startEngine } from "./rpc.ts";

export interface Table {
  title: string;
  head: string[];
  rows: string[][];
}

/** What a part hands back: figures for the JSON, tables to print, goals. */
export interface PartResult {
  figures: unknown;
  tables: Table[];
  goals: GoalFigure[];
}

export type Hnswlib = EngineProcess<HnswlibOperations>;
export type Own = EngineProcess<OwnOperations>;

export class Run {
  readonly options: Options;
  readonly data: DataContext;
  readonly #processes = new Set<{ stop(): Promise<void> }>();
  /** Data sets whose index of ours was built and saved in this run: one of another run may be of another build. */
  readonly #saved = new Set<string>();

  constructor(options: Options, data: DataContext) {
    this.options = options;
    this.data = data;
  }

  say(text: string): void {
    this.data.say(text);
  }

  hnswlib(name = "hnswlib-node"): Hnswlib {
    return this.#start<HnswlibOperations>("hnswlib-child", name);
  }

  own(name = "@lim/hnsw"): Own {
    return this.#start<OwnOperations>("own-child", name);
  }

  #start<O extends HnswlibOperations | OwnOperations>(module: string, name: string): EngineProcess<O> {
    const engine = startEngine<O>({
      module,
      name,
      limitMs: this.options.limitMs,
      signal: this.data.signal,
      onProgress: (text) => this.say(text),
    });
    this.#processes.add(engine);
    return engine;
  }

  /** Ends every process that a part has left. */
  async stopAll(): Promise<void> {
    await Promise.all([...this.#processes].map((engine) => engine.stop()));
    this.#processes.clear();
  }

  buildArgs({ rowsPath, dim, rows }: Dataset): BuildArgs {
    const { m, efConstruction, seed } = this.options;
    return { rowsPath, dim, rows, m, efConstruction, seed };
  }

  hnswlibPath({ name }: Dataset): string {
    const { m, efConstruction } = this.options;
    return join(this.data.dir, `hnswlib-${name}-m${m}-efc${efConstruction}.bin`);
  }

  /** A process with hnswlib's index of the data: from a file of this run or of a kept folder, else built now. */
  async openHnswlib(dataset: Dataset): Promise<Hnswlib> {
    const engine = this.hnswlib();
    const path = this.hnswlibPath(dataset);
    const { dim, rows } = dataset;
    if (existsSync(path)) await engine.call("load", { path, dim, rows });
    else {
      this.say(`hnswlib-node: building ${dataset.name}`);
      await engine.call("build", this.buildArgs(dataset));
      await this.saveHnswlib(engine, dataset);
    }
    return engine;
  }

  async saveHnswlib(engine: Hnswlib, dataset: Dataset): Promise<{ seconds: number }> {
    const path = this.hnswlibPath(dataset);
    const figures = await engine.call("save", { path: `${path}.part` });
    await rename(`${path}.part`, path);
    return figures;
  }

  ownPaths({ name }: { name: string }): { path: string; rowsPath: string } {
    return {
      path: join(this.data.dir, `own-${name}.graph`),
      rowsPath: join(this.data.dir, `own-${name}.rows`),
    };
  }

  async saveOwn(engine: Own, dataset: { name: string }): Promise<{ seconds: number }> {
    const figures = await engine.call("save", this.ownPaths(dataset));
    this.#saved.add(dataset.name);
    return figures;
  }

  /** Files of our index of the data, float32 rows apart from the graph: of this run, else built now on two threads. */
  async ensureOwnFiles(dataset: Dataset): Promise<{ path: string; rowsPath: string }> {
    if (!this.#saved.has(dataset.name)) {
      this.say(`@lim/hnsw: building ${dataset.name}`);
      const engine = this.own();
      const { dim, m, efConstruction, seed, rows, rowsPath } = this.buildArgs(dataset);
      const shape = { dim, m, efConstruction, seed, capacity: rows, rows: "float32" as const };
      await engine.call("create", { ...shape, poolThreads: 2 });
      await engine.call("add", { rowsPath, from: 0, count: rows, threads: 2 });
      await this.saveOwn(engine, dataset);
      await engine.stop();
    }
    return this.ownPaths(dataset);
  }

  /** A process with our index of the data, float32 rows in memory. */
  async openOwn(dataset: Dataset, poolThreads: number): Promise<Own> {
    const files = await this.ensureOwnFiles(dataset);
    const engine = this.own(`@lim/hnsw, ${poolThreads} thread${poolThreads > 1 ? "s" : ""}`);
    const args: LoadArgs = { ...files, rows: "float32", poolThreads };
    await engine.call("load", args);
    return engine;
  }
}

export const inThousands = (value: number): string => Math.round(value).toLocaleString("en-US");
export const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6).toLocaleString("en-US")} MB`;
