import { type Dataset, ensureFaces } from "../dataset.ts";
import { ratios, spreadOf } from "../figures.ts";
import { formatFigure, ratioFigure } from "../goals.ts";
import type { Writer, WriterFigures } from "../protocol.ts";
import { inThousands, type PartResult, type Run } from "../run.ts";
import { defaultEf } from "./search.ts";

/** Rows that the writer adds, and then replaces again and again. */
const extraRows = 20_000;
const writers: readonly Writer[] = ["none", "bulk", "packets"];
const titles: Record<Writer, string> = {
  none: "nobody writes",
  bulk: "one thread adds, 1,000 a call",
  packets: "packets of ten, one after another",
};

/** Rows of the file that the part needs. */
export const writerRows = (indexRows: number): number => indexRows + extraRows;

/** One searcher, one query at a time, beside a writer on the other thread; phases in turn, round by round. */
export async function measureWriter(run: Run, dataset: Dataset): Promise<PartResult> {
  const rowsPath = await ensureFaces(run.data, writerRows(dataset.rows));
  const engine = await run.openOwn(dataset, 2);
  await engine.call("queries", { path: dataset.queriesPath, dim: dataset.dim });
  const phases: Record<Writer, WriterFigures[]> = { none: [], bulk: [], packets: [] };
  const { rounds, writerMs } = run.options;
  for (let round = 0; round < rounds; round++)
    for (const writer of writers) {
      run.say(`searches of ${dataset.name}, ${titles[writer]}: round ${round + 1} of ${rounds}`);
      const args = { k: dataset.k, ef: defaultEf, durationMs: writerMs, writer, rowsPath };
      const figures = await engine.call("besideWriter", { ...args, from: dataset.rows, count: extraRows });
      phases[writer].push(figures);
    }
  const p99s = (writer: Writer) => phases[writer].map(({ p99Us }) => p99Us);
  const ratio = ratios(p99s("bulk"), p99s("none"));
  const text = (values: readonly number[]) => (spreadOf(values)?.median ?? Number.NaN).toFixed(0);
  return {
    figures: { phases, ratio },
    goals: [ratioFigure("writer", dataset.name, ratio)],
    tables: [
      {
        title: `One query at a time on ${dataset.name}, ef ${defaultEf}, two threads`,
        head: ["beside", "p50 µs", "p99 µs", "p99.9 µs", "p99 ratio", "added/s"],
        rows: writers.map((writer) => [
          titles[writer],
          text(phases[writer].map(({ p50Us }) => p50Us)),
          text(p99s(writer)),
          text(phases[writer].map(({ p999Us }) => p999Us)),
          formatFigure(ratios(p99s(writer), p99s("none"))?.median ?? Number.NaN),
          inThousands(spreadOf(phases[writer].map(({ addedPerS }) => addedPerS))?.median ?? Number.NaN),
        ]),
      },
    ],
  };
}
