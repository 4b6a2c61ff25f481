// Part "snapshot": how fast a list's snapshot is read, against psql with the very statement that the snapshot runs.
import { connectSql } from "@lim/local-servers";
import { median, ratios } from "../engine/figures.ts";
import type { EngineProcess } from "../engine/rpc.ts";
import type { DrainOperations } from "./drain-child.ts";
import { drainName } from "./lists.ts";
import { findPsql, runPsql } from "./psql.ts";
import { largestList, type PartResult, type Run, snapshotArgs, stepSignal, withProcess } from "./run.ts";
import { ratioText } from "./tables.ts";

/** Runs of psql with nothing to read: what its start and end cost. */
const startRounds = 3;
/** Read in one go, so that a small list is read several times: what begins and ends a reading weighs little. */
const bytesOfRound = 400e6;
const maxTimes = 20;
/** Bytes of a binary COPY: header and trailer, and what comes with each row of an id and a vector. */
const copyFrameBytes = 21;
const copyRowBytes = 2 + 4 + 16 + 4;
const statementTries = 50;
const statementWaitMs = 20;

/** The statement that a snapshot runs, as Postgres tells it while one is open that is not read on. */
async function statementOf(run: Run, reader: EngineProcess<DrainOperations>): Promise<string> {
  const args = { ...snapshotArgs(run, largestList(run)), batchRows: 1 };
  const holding = reader.call("holdFor", { ...args, durationMs: statementTries * statementWaitMs });
  const sql = await connectSql(run.postgresUrl);
  try {
    for (let i = 0; i < statementTries; i++) {
      const rows = await sql.query(
        "SELECT query FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'COPY (%'",
        [drainName],
      );
      const query = rows[0]?.query;
      if (typeof query === "string") return query;
      await new Promise((resolve) => setTimeout(resolve, statementWaitMs));
    }
    throw new Error("Postgres does not tell the statement of a snapshot");
  } finally {
    await sql.close();
    await holding;
  }
}

interface SnapshotFigures {
  faces: number;
  payloadBytes: number;
  statement: string;
  /** Of one reading. */
  snapshotSeconds: number[];
  /** Processor time of the reading process for one reading. */
  snapshotCpuSeconds: number[];
  psql: string | undefined;
  /** Without what its start and end cost. */
  psqlSeconds: number[];
  psqlStartSeconds: number | undefined;
}

async function alternate(run: Run, reader: EngineProcess<DrainOperations>): Promise<SnapshotFigures> {
  const list = largestList(run);
  const { faces } = list;
  const args = snapshotArgs(run, list);
  const signal = stepSignal(run);
  const payloadBytes = faces * run.options.dim * 4;
  const times = Math.min(maxTimes, Math.ceil(bytesOfRound / payloadBytes));
  const statement = await statementOf(run, reader);
  const psql = await findPsql(run.options.psql);
  const { postgresUrl: databaseUrl } = run;
  const drained = async () => {
    const { rows, seconds, cpuSeconds } = await reader.call("drain", args);
    if (rows !== faces) throw new Error(`the snapshot had ${rows} rows of ${faces}`);
    return { seconds, cpuSeconds };
  };
  const copied = async (text: string, times: number) =>
    (await runPsql(psql ?? "", { databaseUrl, statement: text, times, count: false, signal })).seconds;
  const starts: number[] = [];
  if (psql === undefined) run.say("no psql on this system: --psql names one");
  else {
    const { bytes } = await runPsql(psql, { databaseUrl, statement, times: 1, count: true, signal });
    const expected = copyFrameBytes + faces * (copyRowBytes + run.options.dim * 4);
    if (bytes !== expected) throw new Error(`psql wrote ${bytes} bytes instead of ${expected}`);
    for (let i = 0; i < startRounds; i++) starts.push(await copied("SELECT 1", 1));
  }
  await drained();
  const start = median(starts);
  const snapshotSeconds: number[] = [];
  const snapshotCpuSeconds: number[] = [];
  const psqlSeconds: number[] = [];
  for (let round = 0; round < run.options.snapshotRounds; round++) {
    const readings = [];
    for (let i = 0; i < times; i++) readings.push(await drained());
    snapshotSeconds.push(readings.reduce((sum, { seconds }) => sum + seconds, 0) / times);
    snapshotCpuSeconds.push(readings.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0) / times);
    if (psql !== undefined) psqlSeconds.push(((await copied(statement, times)) - start) / times);
  }
  return {
    faces,
    payloadBytes,
    statement,
    snapshotSeconds,
    snapshotCpuSeconds,
    psql,
    psqlSeconds,
    psqlStartSeconds: psql === undefined ? undefined : start,
  };
}

export async function measureSnapshot(run: Run): Promise<PartResult> {
  run.say(`snapshot: reading ${largestList(run).faces.toLocaleString("en-US")} faces, psql in turn`);
  const figures = await withProcess<DrainOperations, SnapshotFigures>(
    run,
    "drain-child",
    "snapshot",
    (reader) => alternate(run, reader),
  );
  const { faces, payloadBytes, snapshotSeconds, snapshotCpuSeconds, psqlSeconds, psql } = figures;
  const mbPerS = (seconds: readonly number[]) => (payloadBytes / 1e6 / median(seconds)).toFixed(0);
  const ratio = ratios(psqlSeconds, snapshotSeconds);
  return {
    figures: { ...figures, ratio },
    tables: [
      {
        title: `Snapshot of ${faces.toLocaleString("en-US")} × ${run.options.dim}, MB/s of vectors`,
        head: ["", "figure"],
        rows: [
          ["openSnapshot, rows counted", mbPerS(snapshotSeconds)],
          [
            "processor time of the reader, ms a MB",
            ((1e3 * median(snapshotCpuSeconds)) / (payloadBytes / 1e6)).toFixed(2),
          ],
          psql === undefined
            ? ["psql", "not on this system"]
            : [`COPY … TO STDOUT by ${psql}, output dropped`, mbPerS(psqlSeconds)],
          ["ratio", ratioText(ratio)],
        ],
      },
    ],
    goals: [],
  };
}
