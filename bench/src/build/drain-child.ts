// Process that reads snapshots as an indexer's build process does, and only counts.
import { openFacesDb } from "@lim/faces-db";
import { serveEngine } from "../engine/rpc.ts";
import { drainName, type SnapshotArgs } from "./lists.ts";

export interface DrainFigures {
  rows: number;
  /** From opening to the end of the transaction. */
  seconds: number;
  /** Processor time of this process. */
  cpuSeconds: number;
}

export interface DrainOperations {
  [name: string]: (args: never) => Promise<unknown>;
  /** One snapshot from first to last row. */
  drain(args: SnapshotArgs): Promise<DrainFigures>;
  /** One snapshot after the other, the last one broken off when the time is over; without `bytesPerS` at full speed. */
  drainFor(
    args: SnapshotArgs & { durationMs: number; bytesPerS?: number },
  ): Promise<DrainFigures & { snapshots: number }>;
  /** A snapshot that is open and, but for its first batch, not read meanwhile. */
  holdFor(args: SnapshotArgs & { durationMs: number }): Promise<void>;
}

let db: ReturnType<typeof openFacesDb> | undefined;

function databaseOf(url: string) {
  db ??= openFacesDb({ connectionString: url, maxConnections: 1, applicationName: drainName });
  return db;
}

async function drain(
  { databaseUrl, bytesPerS, ...options }: SnapshotArgs & { bytesPerS?: number },
  untilMs = Infinity,
): Promise<DrainFigures> {
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  const pace = bytesPerS === undefined ? undefined : { bytesPerS };
  const snapshot = await databaseOf(databaseUrl).openSnapshot({ ...options, pace });
  let rows = 0;
  try {
    for await (const batch of snapshot.batches) {
      rows += batch.count;
      if (performance.now() > untilMs) break;
    }
  } finally {
    await snapshot.close();
  }
  return { rows, seconds: (performance.now() - startedMs) / 1000, cpuSeconds: cpuSecondsSince(cpu) };
}

function cpuSecondsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

serveEngine({
  drain: (args) => drain(args),
  async drainFor({ durationMs, ...args }) {
    const startedMs = performance.now();
    const cpu = process.cpuUsage();
    let rows = 0;
    let snapshots = 0;
    while (performance.now() - startedMs < durationMs) {
      rows += (await drain(args, startedMs + durationMs)).rows;
      snapshots++;
    }
    const seconds = (performance.now() - startedMs) / 1000;
    return { rows, snapshots, seconds, cpuSeconds: cpuSecondsSince(cpu) };
  },
  async holdFor({ databaseUrl, durationMs, ...options }) {
    const snapshot = await databaseOf(databaseUrl).openSnapshot(options);
    for await (const _ of snapshot.batches) {
      await new Promise((resolve) => setTimeout(resolve, durationMs));
      break;
    }
    await snapshot.close();
  },
} satisfies DrainOperations);
