// Matches over the Redis streams through a real matcher process, at several numbers of callers, against the bare
// engine searching the same probes in batches of as many in this process: `node bench/dist/match.js --help`.
import { randomUUID } from "node:crypto";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { defaults, type EngineName, encodeDescriptor, engineNameSchema, LimError } from "@lim/contracts";
import {
  connectRedis,
  createLabelWatcher,
  createMatchClient,
  defaultKeyNames,
  type MatchClient,
} from "@lim/coordination";
import type { FacesDb, ImportRow } from "@lim/faces-db";
import { openIndexStorage } from "@lim/index-storage";
import { createFaceGenerator, eventually, faceIdOf, startProcess } from "@lim/testkit";
import { createKeyedIndex, type KeyedIndex, loadEngine } from "@lim/vector-index";
import { startBenchServers } from "./servers.ts";

const help = `Usage: node bench/dist/match.js [options]
  --faces N      faces in the list (default 5000)
  --dim N        their dimension (default 512)
  --engine E     ${engineNameSchema.options.join(" or ")} (default ${defaults.engine})
  --callers L    numbers of callers, each with one request at a time (default 1,8,64)
  --seconds N    time of each measurement (default 3)
  --limit N      matches asked for (default 10)
  --ef N         candidates of a search (default ${defaults.efSearch})
  --json PATH    where to write the figures (default reports/bench-match.json)`;

const params = { m: defaults.m, efConstruction: defaults.efConstruction };
/** Probes are second images of the listed persons. */
const maxProbes = 1_000;
const warmUpRequests = 200;
const readyLimitMs = 120_000;

interface Options {
  faces: number;
  dim: number;
  engine: EngineName;
  callers: number[];
  seconds: number;
  limit: number;
  ef: number;
  json: string;
}

interface Speed {
  perS: number;
  p50Ms: number;
  p99Ms: number;
}
interface Round {
  callers: number;
  streams: Speed & { failed: number };
  bare: Speed;
}

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      faces: { type: "string", default: "5000" },
      dim: { type: "string", default: String(defaults.descriptorDim) },
      engine: { type: "string", default: defaults.engine as string },
      callers: { type: "string", default: "1,8,64" },
      seconds: { type: "string", default: "3" },
      limit: { type: "string", default: "10" },
      ef: { type: "string", default: String(defaults.efSearch) },
      json: { type: "string", default: "reports/bench-match.json" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const positive = (name: string, text: string) => {
    const value = Number(text);
    if (Number.isInteger(value) && value > 0) return value;
    throw new LimError("bad_input", `--${name} must be a whole number above 0, got "${text}"`);
  };
  return {
    faces: positive("faces", values.faces),
    dim: positive("dim", values.dim),
    engine: engineNameSchema.parse(values.engine),
    callers: values.callers.split(",").map((text) => positive("callers", text)),
    seconds: positive("seconds", values.seconds),
    limit: positive("limit", values.limit),
    ef: positive("ef", values.ef),
    json: values.json,
  };
}

function speedOf(latenciesMs: readonly number[], requests: number, seconds: number): Speed {
  const sorted = latenciesMs.toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { perS: requests / seconds, p50Ms: at(0.5), p99Ms: at(0.99) };
}

async function measureStreams(
  options: Options,
  client: MatchClient,
  label: string,
  descriptors: readonly Buffer[],
  callers: number,
): Promise<Round["streams"]> {
  const latenciesMs: number[] = [];
  let failed = 0;
  let next = 0;
  const ask = async () => {
    const descriptor = descriptors[next++ % descriptors.length] ?? Buffer.alloc(0);
    const request = { label, rid: randomUUID(), descriptor, limit: options.limit, timeoutMs: 10_000 };
    const reply = await client.request(request).catch(() => undefined);
    if (reply?.status_code !== 200 || reply.result.length === 0) failed++;
  };
  for (let i = 0; i < warmUpRequests; i++) await ask();
  const startedMs = performance.now();
  const untilMs = startedMs + options.seconds * 1000;
  const call = async () => {
    while (performance.now() < untilMs) {
      const askedMs = performance.now();
      await ask();
      latenciesMs.push(performance.now() - askedMs);
    }
  };
  await Promise.all(Array.from({ length: callers }, call));
  const seconds = (performance.now() - startedMs) / 1000;
  return { ...speedOf(latenciesMs, latenciesMs.length, seconds), failed };
}

/** The engine alone: batches of as many queries as there are callers, one after another. */
async function measureBare(
  options: Options,
  keyed: KeyedIndex,
  probes: Float32Array,
  batch: number,
): Promise<Speed> {
  const latenciesMs: number[] = [];
  const count = probes.length / options.dim;
  const queries = new Float32Array(batch * options.dim);
  let next = 0;
  const search = async () => {
    for (let i = 0; i < batch; i++, next++) {
      const at = (next % count) * options.dim;
      queries.set(probes.subarray(at, at + options.dim), i * options.dim);
    }
    await keyed.index.search(queries, { k: options.limit, ef: options.ef });
  };
  for (let done = 0; done < warmUpRequests; done += batch) await search();
  const startedMs = performance.now();
  const untilMs = startedMs + options.seconds * 1000;
  while (performance.now() < untilMs) {
    const searchedMs = performance.now();
    await search();
    latenciesMs.push(performance.now() - searchedMs);
  }
  return speedOf(latenciesMs, latenciesMs.length * batch, (performance.now() - startedMs) / 1000);
}

async function importFaces(options: Options, db: FacesDb, vectors: Float32Array): Promise<string> {
  const { listId } = await db.createList({ name: "bench-match" });
  async function* rows(): AsyncGenerator<ImportRow> {
    for (let i = 0; i < options.faces; i++)
      yield {
        line: i + 1,
        faceId: faceIdOf("bench-match", i),
        vector: vectors.slice(i * options.dim, (i + 1) * options.dim),
      };
  }
  const { dim } = options;
  const descriptorVersion = defaults.descriptorVersion;
  await db.importRows({ listId, descriptorVersion, dim, sourceKey: "bench-match", rows: rows() });
  return listId;
}

/** Builds and publishes the list's index; the same object is then the bare engine. */
async function publish(options: Options, db: FacesDb, root: string, listId: string): Promise<KeyedIndex> {
  const storage = await openIndexStorage({ root });
  const engine = await loadEngine(options.engine);
  const { dim, faces } = options;
  const keyed = createKeyedIndex(await engine.create({ dim, capacity: faces, params }));
  const snapshot = await db.openSnapshot({ listId, descriptorVersion: defaults.descriptorVersion, dim });
  try {
    for await (const batch of snapshot.batches) await keyed.addNew(batch.faceIds, batch.vectors);
    const staging = await storage.stage({ label: listId, indexId: randomUUID(), attempt: 1 });
    const content = {
      label: listId,
      historyId: snapshot.historyId,
      descriptorVersion: defaults.descriptorVersion,
      revision: snapshot.revision,
      engine: options.engine,
      params,
      mode: "rebuild" as const,
      removedSinceRebuild: 0,
      skipped: snapshot.skipped,
    };
    await staging.publish(keyed, content, { phases: {} });
  } finally {
    await snapshot.close();
  }
  return keyed;
}

async function measure(options: Options, dir: string): Promise<Round[]> {
  const generator = createFaceGenerator({ dim: options.dim, effectiveDim: options.dim * 0.64 });
  const both = generator.matrix({
    firstPerson: 0,
    persons: Math.min(options.faces, maxProbes),
    imagesPerPerson: 2,
  });
  const probes = new Float32Array(both.length / 2);
  for (let i = 0; i * options.dim < probes.length; i++)
    probes.set(both.subarray((2 * i + 1) * options.dim, (2 * i + 2) * options.dim), i * options.dim);
  const descriptors = Array.from({ length: probes.length / options.dim }, (_, i) =>
    encodeDescriptor(probes.subarray(i * options.dim, (i + 1) * options.dim), defaults.descriptorVersion),
  );
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const { redisUrl, postgresUrl, db } = await startBenchServers(dir, closers);
    const vectors = generator.matrix({ firstPerson: 0, persons: options.faces });
    const listId = await importFaces(options, db, vectors);
    const root = join(dir, "indexes");
    const keyed = await publish(options, db, root, listId);
    closers.push(() => keyed.close());
    const matcher = startProcess({
      name: "indexed-matcher",
      script: fileURLToPath(new URL("../../apps/indexed-matcher/dist/main.js", import.meta.url)),
      env: {
        REDIS_URL: redisUrl,
        DATABASE_URL: postgresUrl,
        LIM_STORAGE_ROOT: root,
        LIM_MATCHER_HOST: "127.0.0.1",
        LIM_MATCHER_PORT: "0",
        LIM_DESCRIPTOR_DIM: String(options.dim),
        LIM_EF_SEARCH: String(options.ef),
      },
    });
    closers.push(() => matcher.stop());
    const connection = connectRedis({ url: redisUrl, name: "bench" });
    closers.push(() => connection.close());
    const watcher = createLabelWatcher({ redis: connection, ttlMs: defaults.labelKeyTtlMs, pollMs: 200 });
    closers.push(() => watcher.close());
    const isServed = () => watcher.served(listId)[0];
    await eventually("the list is served", isServed, { timeoutMs: readyLimitMs });
    const client = createMatchClient({ redis: connection, keys: defaultKeyNames });
    closers.push(() => client.close());
    const rounds: Round[] = [];
    for (const callers of options.callers) {
      const bare = await measureBare(options, keyed, probes, callers);
      rounds.push({
        callers,
        bare,
        streams: await measureStreams(options, client, listId, descriptors, callers),
      });
    }
    return rounds;
  } finally {
    for (const close of closers.toReversed()) await close();
  }
}

function report(options: Options, rounds: readonly Round[]) {
  return {
    version: 1,
    faces: options.faces,
    dim: options.dim,
    engine: options.engine,
    ef: options.ef,
    limit: options.limit,
    cpus: cpus().length,
    rounds: rounds.map(({ callers, streams, bare }) => ({
      callers,
      match_rps: streams.perS,
      match_p50_ms: streams.p50Ms,
      match_p99_ms: streams.p99Ms,
      failed: streams.failed,
      match_rps_bare: bare.perS,
      bare_batch_p50_ms: bare.p50Ms,
      bare_batch_p99_ms: bare.p99Ms,
      ratio: streams.perS / bare.perS,
    })),
  };
}

function printTable(figures: ReturnType<typeof report>): void {
  console.log(
    `${figures.faces} × ${figures.dim}, ${figures.engine}, ef ${figures.ef}, limit ${figures.limit}, ${figures.cpus} cores`,
  );
  const head = ["callers", "match/s", "p50 ms", "p99 ms", "failed", "bare/s", "ratio"];
  const rows = figures.rounds.map((round) => [
    String(round.callers),
    round.match_rps.toFixed(0),
    round.match_p50_ms.toFixed(2),
    round.match_p99_ms.toFixed(2),
    String(round.failed),
    round.match_rps_bare.toFixed(0),
    round.ratio.toFixed(3),
  ]);
  for (const row of [head, ...rows]) console.log(row.map((cell) => cell.padStart(9)).join(""));
}

const options = readOptions();
if (!options) console.log(help);
else {
  const dir = await mkdtemp(join(tmpdir(), "lim-bench-match-"));
  // Postgres runs under an account of its own where this is root, and must reach its folder.
  await chmod(dir, 0o711);
  try {
    const figures = report(options, await measure(options, dir));
    printTable(figures);
    await mkdir(dirname(options.json), { recursive: true });
    await writeFile(options.json, `${JSON.stringify(figures, null, 2)}\n`);
    if (figures.rounds.some(({ failed }) => failed > 0)) process.exitCode = 1;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
