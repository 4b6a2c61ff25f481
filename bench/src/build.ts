// End-to-end build, from faces in Postgres to a published index through a real indexer process, against the bare
// engine inserting the same vectors in this process: `node bench/dist/build.js --help`.
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  type BuildOutcome,
  type BuildRequest,
  defaults,
  engineNameSchema,
  indexerStateSchema,
  LimError,
} from "@lim/contracts";
import type { ImportRow } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { createFaceGenerator, faceIdOf, type ManagedProcess, startProcess } from "@lim/testkit";
import { loadEngine } from "@lim/vector-index";
import { startBenchServers } from "./servers.ts";

const help = `Usage: node bench/dist/build.js [options]
  --faces N    descriptors in the list (default 5000)
  --dim N      their dimension (default 512)
  --engine E   ${engineNameSchema.options.join(" or ")} (default ${defaults.engine})
  --rounds N   bare engine and indexer in turn, N times; figures are medians (default 1)
  --json PATH  where to write the figures (default reports/bench-build.json)`;

const bareBatchRows = 256;
const pollMs = 50;
const buildLimitMs = 60 * 60_000;

interface Options {
  faces: number;
  dim: number;
  engine: BuildRequest["engine"];
  rounds: number;
  json: string;
}

interface Round {
  bareSeconds: number;
  buildSeconds: number;
  phasesMs: Record<string, number>;
  peakResidentBytes: number;
  recall: number;
}

const params = { m: defaults.m, efConstruction: defaults.efConstruction };

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      faces: { type: "string", default: "5000" },
      dim: { type: "string", default: String(defaults.descriptorDim) },
      engine: { type: "string", default: defaults.engine as string },
      rounds: { type: "string", default: "1" },
      json: { type: "string", default: "reports/bench-build.json" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const positive = (name: "faces" | "dim" | "rounds") => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value > 0) return value;
    throw new LimError("bad_input", `--${name} must be a whole number above 0, got "${values[name]}"`);
  };
  return {
    faces: positive("faces"),
    dim: positive("dim"),
    rounds: positive("rounds"),
    engine: engineNameSchema.parse(values.engine),
    json: values.json,
  };
}

/** Seconds that the engine alone takes to insert the vectors. */
async function buildBare(options: Options, vectors: Float32Array): Promise<number> {
  const engine = await loadEngine(options.engine);
  const index = await engine.create({ dim: options.dim, capacity: options.faces, params });
  try {
    const startedMs = performance.now();
    const step = bareBatchRows * options.dim;
    for (let at = 0; at < vectors.length; at += step) {
      const rows = vectors.subarray(at, at + step);
      const positions = Uint32Array.from({ length: rows.length / options.dim }, (_, i) => index.slots + i);
      await index.add(positions, rows);
    }
    return (performance.now() - startedMs) / 1000;
  } finally {
    await index.close();
  }
}

async function* rowsOf(options: Options, vectors: Float32Array): AsyncGenerator<ImportRow> {
  for (let i = 0; i < options.faces; i++)
    yield {
      line: i + 1,
      faceId: faceIdOf("bench-build", i),
      vector: vectors.slice(i * options.dim, (i + 1) * options.dim),
    };
}

async function awaitOutcome(origin: string, taskId: string): Promise<BuildOutcome> {
  const signal = AbortSignal.timeout(buildLimitMs);
  for (;;) {
    const state = indexerStateSchema.parse(await (await fetch(`${origin}/state`, { signal })).json());
    const outcome = state.outcomes.find(({ task_id }) => task_id === taskId);
    if (outcome) return outcome;
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** One build by the indexer. Time is from the request until the indexer reports its outcome. */
async function buildByIndexer(options: Options, indexer: RunningIndexer, listId: string) {
  const taskId = randomUUID();
  const request: BuildRequest = {
    task_id: taskId,
    list_id: listId,
    attempt: 1,
    epoch: 1,
    mode: "rebuild",
    engine: options.engine,
    params: { m: params.m, ef_construction: params.efConstruction },
    descriptor_version: defaults.descriptorVersion,
    dim: options.dim,
  };
  const startedMs = performance.now();
  const response = await fetch(`${indexer.origin}/index_list`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
  });
  if (response.status !== 202) throw new LimError("internal", `indexer answered ${await response.text()}`);
  const outcome = await awaitOutcome(indexer.origin, taskId);
  const buildSeconds = (performance.now() - startedMs) / 1000;
  if (outcome.error) throw LimError.fromBody(outcome.error);
  const published = await indexer.storage.find({ indexId: taskId, label: listId });
  if (published?.meta.count !== options.faces)
    throw new LimError("verification_failed", `published ${published?.meta.count} of ${options.faces} faces`);
  const metrics = await (await fetch(`${indexer.origin}/metrics`)).text();
  const peak = /^lim_indexer_build_peak_resident_bytes (\S+)$/m.exec(metrics)?.[1];
  return {
    buildSeconds,
    phasesMs: published.meta.build.phases,
    peakResidentBytes: Number(peak),
    recall: published.meta.recall.sampled,
  };
}

interface RunningIndexer {
  process: ManagedProcess;
  origin: string;
  storage: Awaited<ReturnType<typeof openIndexStorage>>;
}

async function startIndexer(
  root: string,
  urls: { redis: string; postgres: string },
): Promise<RunningIndexer> {
  const process = startProcess({
    name: "indexer",
    script: fileURLToPath(new URL("../../apps/indexer/dist/main.js", import.meta.url)),
    env: {
      REDIS_URL: urls.redis,
      DATABASE_URL: urls.postgres,
      LIM_STORAGE_ROOT: root,
      LIM_INDEXER_HOST: "127.0.0.1",
      LIM_INDEXER_PORT: "0",
    },
  });
  const line = await process.waitForLine(/indexer listening/, { timeoutMs: 30_000 });
  const { port } = new URL((JSON.parse(line) as { url: string }).url);
  return { process, origin: `http://127.0.0.1:${port}`, storage: await openIndexStorage({ root }) };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function measure(options: Options, dir: string): Promise<{ rounds: Round[]; importSeconds: number }> {
  const vectors = createFaceGenerator({ dim: options.dim, effectiveDim: options.dim * 0.64 }).matrix({
    firstPerson: 0,
    persons: options.faces,
  });
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const { redisUrl, postgresUrl, db } = await startBenchServers(dir, closers);
    const { listId } = await db.createList({ name: "bench-build" });
    const importedFromMs = performance.now();
    await db.importRows({
      listId,
      descriptorVersion: defaults.descriptorVersion,
      dim: options.dim,
      sourceKey: "bench-build",
      rows: rowsOf(options, vectors),
    });
    const importSeconds = (performance.now() - importedFromMs) / 1000;
    const indexer = await startIndexer(join(dir, "indexes"), { redis: redisUrl, postgres: postgresUrl });
    closers.push(() => indexer.process.stop());
    const rounds: Round[] = [];
    for (let round = 0; round < options.rounds; round++) {
      const bareSeconds = await buildBare(options, vectors);
      rounds.push({ bareSeconds, ...(await buildByIndexer(options, indexer, listId)) });
    }
    return { rounds, importSeconds };
  } finally {
    for (const close of closers.toReversed()) await close();
  }
}

function report(options: Options, { rounds, importSeconds }: { rounds: Round[]; importSeconds: number }) {
  const barePerS = options.faces / median(rounds.map((round) => round.bareSeconds));
  const buildPerS = options.faces / median(rounds.map((round) => round.buildSeconds));
  const phases = rounds.at(-1)?.phasesMs ?? {};
  const graphBytesPerFace = 2 * params.m * 4 + 4;
  const dataBytes = options.faces * (options.dim * 4 + graphBytesPerFace);
  const peak = median(rounds.map((round) => round.peakResidentBytes));
  return {
    version: 1,
    faces: options.faces,
    dim: options.dim,
    engine: options.engine,
    params,
    cpus: cpus().length,
    rounds: rounds.length,
    import_rows_per_s: options.faces / importSeconds,
    build_per_s_bare: barePerS,
    build_per_s: buildPerS,
    ratio: median(rounds.map((round) => round.bareSeconds / round.buildSeconds)),
    phases_ms: phases,
    snapshot_mb_per_s: (options.faces * options.dim * 4) / 1e6 / ((phases.snapshot ?? Number.NaN) / 1000),
    peak_resident_bytes: peak,
    peak_to_data: peak / dataBytes,
    recall_at_10: median(rounds.map((round) => round.recall)),
  };
}

function printTable(figures: ReturnType<typeof report>): void {
  const phases = Object.entries(figures.phases_ms).map(([name, ms]) => `${name} ${Math.round(ms)}`);
  const rows: [string, string][] = [
    ["list", `${figures.faces} × ${figures.dim}, ${figures.engine}, ${figures.rounds} round(s)`],
    ["bare engine", `${figures.build_per_s_bare.toFixed(0)} descriptors/s`],
    ["Postgres → published", `${figures.build_per_s.toFixed(0)} descriptors/s`],
    ["ratio", figures.ratio.toFixed(3)],
    ["phases, ms", phases.join(", ")],
    ["snapshot", `${figures.snapshot_mb_per_s.toFixed(0)} MB/s`],
    [
      "peak memory",
      `${(figures.peak_resident_bytes / 1e6).toFixed(0)} MB (${figures.peak_to_data.toFixed(2)} × data)`,
    ],
    ["sampled recall@10", figures.recall_at_10.toFixed(4)],
    ["imported", `${figures.import_rows_per_s.toFixed(0)} rows/s`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, text] of rows) console.log(`${name.padEnd(width)}  ${text}`);
}

const options = readOptions();
if (!options) console.log(help);
else {
  const dir = await mkdtemp(join(tmpdir(), "lim-bench-build-"));
  try {
    const figures = report(options, await measure(options, dir));
    printTable(figures);
    await mkdir(dirname(options.json), { recursive: true });
    await writeFile(options.json, `${JSON.stringify(figures, null, 2)}\n`);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
