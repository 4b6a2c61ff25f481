import { randomUUID } from "node:crypto";
import { realpathSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type FacesDb, openFacesDb } from "@lim/faces-db";
import { startPostgres } from "@lim/local-servers";
import { benchLedger } from "./servers.ts";

/**
 * Single-row commits per second on one list: each writer links or unlinks one face a transaction. What it is about is
 * the ratio to one writer, with and without an open snapshot beside: a feed that locks a row to count collapses there.
 */
const writerCounts = [1, 8, 32];
const dim = 8;
const help = `Usage: node bench/dist/commits.js [options]
  --duration-ms N  length of each of the six measurements (default 3000)
  --fsync on|off   of a Postgres that is started here; DATABASE_URL names another (default on)`;
const facesPerWriter = 64;

export interface CommitsFigure {
  writers: number;
  openSnapshot: boolean;
  commitsPerS: number;
  p99Ms: number;
  /** To one writer without a snapshot. */
  ratio: number;
}

async function measure(
  db: FacesDb,
  options: { writers: number; openSnapshot: boolean; durationMs: number },
): Promise<{ commitsPerS: number; p99Ms: number }> {
  const { listId } = await db.createList({ name: `commits ${options.writers}` });
  const vector = new Float32Array(dim).fill(1);
  const faceIds = Array.from({ length: options.writers * facesPerWriter }, () => randomUUID());
  const faces = faceIds.map((faceId) => ({ faceId, vector }));
  await db.putFaces({ listIds: [], descriptorVersion: 1, faces });
  // Half are linked, so that writers begin with links as well as with unlinks.
  await db.linkFaces({ listId, faceIds: faceIds.filter((_, i) => i % 2 === 0) });
  const beside = options.openSnapshot
    ? await db.openSnapshot({ listId, descriptorVersion: 1, dim })
    : undefined;
  const latenciesMs: number[] = [];
  const start = performance.now();
  const write = async (writer: number) => {
    for (let i = 0; performance.now() - start < options.durationMs; i++) {
      const place = i % facesPerWriter;
      const one = { listId, faceIds: [faceIds[writer * facesPerWriter + place] as string] };
      const unlinks = (place + Math.floor(i / facesPerWriter)) % 2 === 0;
      const before = performance.now();
      const changed = unlinks ? await db.unlinkFaces(one) : await db.linkFaces(one);
      latenciesMs.push(performance.now() - before);
      if (changed !== 1) throw new Error(`a commit changed ${changed} rows instead of 1`);
    }
  };
  await Promise.all(Array.from({ length: options.writers }, (_, writer) => write(writer)));
  const seconds = (performance.now() - start) / 1000;
  const [state] = await db.listStates({ listIds: [listId] });
  const expected = latenciesMs.length + faceIds.length / 2;
  if (state?.revision !== expected)
    throw new Error(`the feed has ${state?.revision} rows instead of ${expected}`);
  await beside?.close();
  await db.deleteList({ listId });
  latenciesMs.sort((a, b) => a - b);
  const p99Ms = latenciesMs[Math.floor(latenciesMs.length * 0.99)] ?? 0;
  return { commitsPerS: latenciesMs.length / seconds, p99Ms };
}

export async function measureCommits(options: {
  connectionString: string;
  durationMs: number;
}): Promise<CommitsFigure[]> {
  const db = openFacesDb({
    connectionString: options.connectionString,
    maxConnections: Math.max(...writerCounts) + 2,
    applicationName: "lim-bench-commits",
  });
  try {
    await db.migrate();
    // Connections and plans are made before anything counts.
    await measure(db, { writers: Math.max(...writerCounts), openSnapshot: false, durationMs: 500 });
    const figures: CommitsFigure[] = [];
    for (const openSnapshot of [false, true])
      for (const writers of writerCounts) {
        const { commitsPerS, p99Ms } = await measure(db, {
          writers,
          openSnapshot,
          durationMs: options.durationMs,
        });
        const one = figures[0]?.commitsPerS ?? commitsPerS;
        figures.push({ writers, openSnapshot, commitsPerS, p99Ms, ratio: commitsPerS / one });
      }
    return figures;
  } finally {
    await db.close();
  }
}

function printTable(figures: readonly CommitsFigure[]): void {
  console.log("writers  open snapshot  commits/s  p99 ms  ratio to 1 writer");
  for (const f of figures)
    console.log(
      [
        String(f.writers).padStart(7),
        (f.openSnapshot ? "yes" : "no").padStart(13),
        f.commitsPerS.toFixed(0).padStart(9),
        f.p99Ms.toFixed(1).padStart(6),
        f.ratio.toFixed(2).padStart(17),
      ].join("  "),
    );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      /** Length of each of the six measurements. */
      "duration-ms": { type: "string", default: "3000" },
      /**
       * Of a Postgres that is started here. "on" as in earnest: the list's lock is held until the commit is on disk, so
       * the disk's flush time bounds the commits on one list. "off" shows what the feed itself costs.
       */
      fsync: { type: "string", default: "on" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return;
  }
  const ledgerDir = await benchLedger();
  const dir = await mkdtemp(join(tmpdir(), "lim-bench-commits-"));
  // Postgres runs under an account of its own where this is root, and must reach its folder.
  await chmod(dir, 0o711);
  const server = await startPostgres({
    dir,
    ledgerDir,
    url: process.env.DATABASE_URL,
    database: "lim_bench",
    settings: { max_connections: "60", fsync: values.fsync },
  });
  try {
    const figures = await measureCommits({
      connectionString: server.url,
      durationMs: Number(values["duration-ms"]),
    });
    printTable(figures);
    console.log(JSON.stringify({ bench: "commits", fsync: values.fsync, figures }));
  } finally {
    await server.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

// import.meta.main is younger than the oldest Node that this runs on.
if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url))
  await main();
