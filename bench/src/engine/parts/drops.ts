import { ensureFaces } from "../dataset.ts";
import { formatFigure } from "../goals.ts";
import { megabytes, type PartResult, type Run } from "../run.ts";

const times = 20;
const threads = 2;
const early = 5;
/** About 100 MB of 512 dimensions with float32 rows. */
const indexRows = 36_000;
const quickRows = 5_000;

/** Rows of the file that the part needs. */
export const dropRows = (quick: boolean): number => (quick ? quickRows : indexRows);

/** Loads an index, searches it and drops it, twenty times in one process. */
export async function measureDrops(run: Run): Promise<PartResult> {
  const { dim, m, efConstruction, seed, quick } = run.options;
  const rows = dropRows(quick);
  const rowsPath = await ensureFaces(run.data, rows);
  run.say(`drops: building ${rows.toLocaleString("en-US")} × ${dim}`);
  const builder = run.own();
  const shape = { dim, m, efConstruction, seed, capacity: rows, rows: "float32" as const };
  await builder.call("create", { ...shape, poolThreads: threads });
  await builder.call("add", { rowsPath, from: 0, count: rows, threads });
  await run.saveOwn(builder, { name: "drops" });
  await builder.stop();
  const engine = run.own();
  const args = { ...run.ownPaths({ name: "drops" }), rows: "float32" as const, poolThreads: threads, times };
  const { resident, settled, indexBytes } = await engine.call("drops", args);
  const first = resident[early - 1] ?? Number.NaN;
  const last = resident[times - 1] ?? Number.NaN;
  const growth = (last - first) / indexBytes;
  return {
    figures: { resident, settled, indexBytes, growth },
    goals: [{ goal: "drops", where: megabytes(indexBytes), measured: growth }],
    tables: [
      {
        title: `Resident memory over ${times} loads and drops of ${megabytes(indexBytes)}`,
        head: ["after", "resident"],
        rows: [
          ...[1, early, 10, 15, times].map((n) => [String(n), megabytes(resident[n - 1] ?? Number.NaN)]),
          ["collecting garbage", megabytes(settled)],
          [`growth from ${early} to ${times}`, `${formatFigure(growth)} indexes`],
        ],
      },
    ],
  };
}
