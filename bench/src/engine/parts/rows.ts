import { join } from "node:path";
import type { Dataset } from "../dataset.ts";
import { recallOf, spreadOf } from "../figures.ts";
import type { GoalFigure } from "../goals.ts";
import { type RowPlace, rowPlaces } from "../protocol.ts";
import { inThousands, megabytes, type Own, type PartResult, type Run } from "../run.ts";
import { defaultEf } from "./search.ts";
import { labelOf, type Setting } from "./search-tables.ts";

const settings: Setting[] = [{ ef: 32, depth: 24 }, { ef: defaultEf }, { ef: 128, depth: 40 }];
const threads = 2;

interface Place {
  rows: RowPlace;
  engine: Own;
  plannedBytesPerVector: number;
  residentBytesPerVector: number;
  residentBytes: number;
  points: { label: string; recall: number; perS: number[] }[];
}

/** Builds up to `small`, then to the whole, so that the slope leaves out what every process has. */
async function build(run: Run, dataset: Dataset, rows: RowPlace): Promise<Place> {
  const engine = run.own(`@lim/hnsw, rows ${rows}`);
  const { dim, m, efConstruction, seed, rowsPath } = run.buildArgs(dataset);
  const { plannedBytesPerVector } = await engine.call("create", {
    ...{ dim, m, efConstruction, seed, rows, poolThreads: threads },
    capacity: dataset.rows,
    ...(rows === "file" ? { rowsFile: join(run.data.dir, "own-working.rows") } : {}),
  });
  const small = Math.min(run.options.small, Math.floor(dataset.rows / 2));
  await engine.call("add", { rowsPath, from: 0, count: small, threads });
  const before = await engine.call("status", undefined);
  await engine.call("add", { rowsPath, from: small, count: dataset.rows - small, threads });
  const after = await engine.call("status", undefined);
  await engine.call("queries", { path: dataset.queriesPath, dim });
  return {
    ...{ rows, engine, plannedBytesPerVector },
    residentBytesPerVector: (after.residentBytes - before.residentBytes) / (dataset.rows - small),
    residentBytes: after.residentBytes,
    points: [],
  };
}

async function measurePoints(run: Run, dataset: Dataset, places: readonly Place[]): Promise<void> {
  const { k, truth } = dataset;
  for (let round = 0; round < run.options.rounds; round++)
    for (const [s, setting] of settings.entries())
      for (const { engine, points, rows } of places) {
        // Without rows there is nothing to re-rank by.
        const asked = rows === "none" ? { ef: setting.ef, depth: 0 } : setting;
        const withKeys = round === 0;
        const args = { k, ...asked, durationMs: run.options.pointMs, withKeys };
        const { perS, keys } = await engine.call("point", args);
        if (keys) points.push({ label: labelOf(asked), recall: recallOf(keys, truth, k), perS: [] });
        points[s]?.perS.push(perS);
      }
}

/** Bytes per vector and throughput by where the full-precision rows are. */
export async function measureRows(run: Run, dataset: Dataset): Promise<PartResult> {
  const places: Place[] = [];
  for (const rows of rowPlaces) {
    run.say(`rows: building ${dataset.name} with rows in ${rows}`);
    places.push(await build(run, dataset, rows));
  }
  await measurePoints(run, dataset, places);
  const none = places.find(({ rows }) => rows === "none");
  const goals: GoalFigure[] = [
    { goal: "bytes", where: dataset.name, measured: none?.residentBytesPerVector },
  ];
  return {
    figures: places.map(({ engine: _, ...place }) => place),
    goals,
    tables: [
      {
        title: `Memory of ${dataset.name} by where the re-rank's rows are`,
        head: ["rows in", "resident bytes/vector", "planned", "resident in all"],
        rows: places.map((place) => [
          place.rows,
          inThousands(place.residentBytesPerVector),
          inThousands(place.plannedBytesPerVector),
          megabytes(place.residentBytes),
        ]),
      },
      {
        title: `Searches per second of ${dataset.name} on two threads, by where the rows are`,
        head: ["rows in", "setting", `recall@${dataset.k}`, "searches/s"],
        rows: places.flatMap(({ rows, points }) =>
          points.map(({ label, recall, perS }) => [
            rows,
            label,
            recall.toFixed(4),
            inThousands(spreadOf(perS)?.median ?? Number.NaN),
          ]),
        ),
      },
    ],
  };
}
