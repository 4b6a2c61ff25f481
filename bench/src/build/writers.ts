// Part "writers": single-row commits per second with a snapshot beside them and without, in windows that take turns.
import { randomUUID } from "node:crypto";
import { defaults } from "@lim/contracts";
import { type FacesDb, openFacesDb } from "@lim/faces-db";
import { faceGenerator } from "../engine/data-worker.ts";
import { median, quantile, ratios, type Spread, spreadOf } from "../engine/figures.ts";
import type { EngineProcess } from "../engine/rpc.ts";
import type { DrainOperations } from "./drain-child.ts";
import { writersFigure } from "./goals.ts";
import { descriptorVersion, settleDatabase } from "./lists.ts";
import { largestList, type PartResult, type Run, snapshotArgs, stepSignal, withProcess } from "./run.ts";

const facesPerWriter = 64;
const kinds = ["none", "open", "paced", "drained"] as const;
/**
 * What is beside the writers: nothing, a snapshot that is open and not read, one that is read at the pace of an indexer,
 * which is judged, and one that is read at full speed.
 */
type Kind = (typeof kinds)[number];

const kindTexts: Record<Kind, string> = {
  none: "no snapshot",
  open: "one open, not read",
  paced: `read at ${defaults.snapshotRateMbPerS} MB/s, again and again`,
  drained: "read at full speed, again and again",
};
const bytesPerS = defaults.snapshotRateMbPerS * 1e6;

interface WindowFigures {
  commitsPerS: number;
  p99Ms: number;
  /** What the reader beside them read. */
  readRows: number;
}

interface WritersFigures {
  writers: number;
  windows: Record<Kind, WindowFigures[]>;
  /** 1 − ratio of the medians. */
  slowed: Record<Kind, number>;
  /** Window by window. */
  ratios: Record<Kind, Spread | undefined>;
  /** Of the windows without a snapshot to their median: what differs by itself. */
  noise: Spread | undefined;
}

interface WritersOptions {
  writers: number;
  dim: number;
  seed: number;
  /** Nobody of the list. */
  firstPerson: number;
}

class Writers {
  readonly #db: FacesDb;
  readonly #listId: string;
  readonly #faceIds: readonly (readonly string[])[];
  /** By writer and place: whether the face is linked. */
  readonly #linked: boolean[][];

  private constructor(db: FacesDb, listId: string, faceIds: readonly (readonly string[])[]) {
    this.#db = db;
    this.#listId = listId;
    this.#faceIds = faceIds;
    this.#linked = faceIds.map((ids) => ids.map(() => false));
  }

  static async create(db: FacesDb, listId: string, options: WritersOptions) {
    const { writers, dim, seed, firstPerson } = options;
    const generator = faceGenerator(dim, seed);
    const faces = Array.from({ length: writers * facesPerWriter }, (_, i) => ({
      faceId: randomUUID(),
      vector: generator.vector(firstPerson + i, 0),
    }));
    await db.putFaces({ listIds: [], descriptorVersion, faces });
    const ids = faces.map(({ faceId }) => faceId);
    return new Writers(
      db,
      listId,
      Array.from({ length: writers }, (_, w) => ids.slice(w * facesPerWriter, (w + 1) * facesPerWriter)),
    );
  }

  /** Each writer links or unlinks one face a transaction until the time is over. */
  async write(durationMs: number, signal: AbortSignal): Promise<Omit<WindowFigures, "readRows">> {
    const latenciesMs: number[] = [];
    const startedMs = performance.now();
    const one = async (ids: readonly string[], linked: boolean[]) => {
      for (let i = 0; performance.now() - startedMs < durationMs; i++) {
        const place = i % ids.length;
        const change = { listId: this.#listId, faceIds: [ids[place] ?? ""], signal };
        const beforeMs = performance.now();
        const changed = linked[place] ? await this.#db.unlinkFaces(change) : await this.#db.linkFaces(change);
        latenciesMs.push(performance.now() - beforeMs);
        if (changed !== 1) throw new Error(`a commit changed ${changed} rows instead of 1`);
        linked[place] = !linked[place];
      }
    };
    await Promise.all(this.#faceIds.map((ids, w) => one(ids, this.#linked[w] ?? [])));
    const seconds = (performance.now() - startedMs) / 1000;
    return { commitsPerS: latenciesMs.length / seconds, p99Ms: quantile(latenciesMs, 0.99) };
  }

  async remove(): Promise<void> {
    await this.#db.deleteFaces({ faceIds: this.#faceIds.flat() });
  }
}

async function window(
  run: Run,
  kind: Kind,
  writers: Writers,
  reader: EngineProcess<DrainOperations>,
): Promise<WindowFigures> {
  const { windowMs: durationMs } = run.options;
  const args = { ...snapshotArgs(run, largestList(run)), durationMs };
  const beside = async () => {
    if (kind === "paced") return (await reader.call("drainFor", { ...args, bytesPerS })).rows;
    if (kind === "drained") return (await reader.call("drainFor", args)).rows;
    if (kind === "open") await reader.call("holdFor", args);
    return 0;
  };
  const [written, readRows] = await Promise.all([writers.write(durationMs, stepSignal(run)), beside()]);
  return { ...written, readRows };
}

async function measureCount(
  run: Run,
  reader: EngineProcess<DrainOperations>,
  count: number,
): Promise<WritersFigures> {
  const { windows: rounds, windowMs, dim, seed } = run.options;
  const db = openFacesDb({
    connectionString: run.postgresUrl,
    maxConnections: count,
    applicationName: "lim-bench-writers",
  });
  try {
    const { listId, faces: firstPerson } = largestList(run);
    const writers = await Writers.create(db, listId, { writers: count, dim, seed, firstPerson });
    await settleDatabase(run.postgresUrl);
    const windows: Record<Kind, WindowFigures[]> = { none: [], open: [], paced: [], drained: [] };
    // Connections, plans and caches are made before anything counts.
    await writers.write(windowMs / 2, run.signal);
    for (let round = 0; round < rounds; round++) {
      run.say(`writers: ${count} at once, round ${round + 1} of ${rounds}`);
      // Forwards and backwards in turn, so that what grows meanwhile weighs on all kinds.
      for (const kind of round % 2 === 0 ? kinds : kinds.toReversed())
        windows[kind].push(await window(run, kind, writers, reader));
    }
    await writers.remove();
    return { writers: count, windows, ...compare(windows) };
  } finally {
    await db.close();
  }
}

function compare(windows: Record<Kind, WindowFigures[]>) {
  const speeds = (kind: Kind) => windows[kind].map(({ commitsPerS }) => commitsPerS);
  const alone = median(speeds("none"));
  const slowedBy = (kind: Kind) => 1 - median(speeds(kind)) / alone;
  const ratioOf = (kind: Kind) => ratios(speeds(kind), speeds("none"));
  return {
    slowed: { none: 0, open: slowedBy("open"), paced: slowedBy("paced"), drained: slowedBy("drained") },
    ratios: {
      none: undefined,
      open: ratioOf("open"),
      paced: ratioOf("paced"),
      drained: ratioOf("drained"),
    },
    noise: spreadOf(speeds("none").map((speed) => speed / alone)),
  };
}

function rowsOf(
  { writers, windows, slowed, ratios: spreads, noise }: WritersFigures,
  dim: number,
): string[][] {
  return kinds.map((kind) => {
    const all = windows[kind];
    const spread = kind === "none" ? noise : spreads[kind];
    const rows = median(all.map(({ readRows }) => readRows));
    return [
      `${writers} writer${writers > 1 ? "s" : ""}, ${kindTexts[kind]}`,
      median(all.map(({ commitsPerS }) => commitsPerS)).toFixed(0),
      median(all.map(({ p99Ms }) => p99Ms)).toFixed(1),
      kind === "none" ? "" : `${(100 * slowed[kind]).toFixed(1)} %`,
      spread ? `${spread.min.toFixed(3)}–${spread.max.toFixed(3)}` : "",
      rows > 0 ? `${((rows * dim * 4) / 1e6).toFixed(0)} MB` : "",
    ];
  });
}

export async function measureWriters(run: Run): Promise<PartResult> {
  const { writers: counts, dim } = run.options;
  const figures = await withProcess<DrainOperations, WritersFigures[]>(
    run,
    "drain-child",
    "snapshot",
    async (reader) => {
      const all: WritersFigures[] = [];
      for (const count of counts) all.push(await measureCount(run, reader, count));
      return all;
    },
  );
  const where = `list of ${largestList(run).faces.toLocaleString("en-US")} × ${dim}`;
  return {
    figures,
    tables: [
      {
        title: `Writers beside a snapshot, ${where}`,
        head: ["", "commits/s", "p99 ms", "slowed by", "window by window", "read a window"],
        rows: figures.flatMap((one) => rowsOf(one, dim)),
      },
    ],
    goals: figures.flatMap(({ writers, slowed }) =>
      writersFigure(`${writers} writer${writers > 1 ? "s" : ""}, ${where}`, slowed.paced),
    ),
  };
}
