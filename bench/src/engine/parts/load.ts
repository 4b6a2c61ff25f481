import { readFileSync, statSync } from "node:fs";
import type { Dataset } from "../dataset.ts";
import { spreadOf } from "../figures.ts";
import { formatFigure } from "../goals.ts";
import { megabytes, type PartResult, type Run } from "../run.ts";

const threads = 2;
const loads = 5;

const seconds = (values: readonly number[]) => {
  const spread = spreadOf(values);
  if (!spread) return "–";
  const range = spread.rounds > 1 ? ` (${formatFigure(spread.min)}–${formatFigure(spread.max)})` : "";
  return formatFigure(spread.median) + range;
};

/** Loads by fresh processes, of files that the system holds in memory. */
async function loadOwn(run: Run, dataset: Dataset, rows: "none" | "float32") {
  const files = await run.ensureOwnFiles(dataset);
  const first: number[] = [];
  const second: number[] = [];
  const used = rows === "none" ? [files.path] : [files.path, files.rowsPath];
  for (let i = 0; i < loads; i++) {
    for (const path of used) readFileSync(path);
    const engine = run.own();
    const figures = await engine.call("load", { ...files, rows, poolThreads: threads });
    first.push(figures.firstSeconds);
    second.push(figures.secondSeconds);
    await engine.stop();
  }
  return { first, second, bytes: used.reduce((sum, path) => sum + statSync(path).size, 0) };
}

async function timeHnswlib(run: Run, dataset: Dataset) {
  const { dim, rows } = dataset;
  const opener = await run.openHnswlib(dataset);
  const save = await run.saveHnswlib(opener, dataset);
  await opener.stop();
  const path = run.hnswlibPath(dataset);
  const first: number[] = [];
  for (let i = 0; i < loads; i++) {
    readFileSync(path);
    const engine = run.hnswlib();
    first.push((await engine.call("load", { path, dim, rows })).seconds);
    await engine.stop();
  }
  return { save: save.seconds, first, bytes: statSync(path).size };
}

async function timeOwnSave(run: Run, dataset: Dataset): Promise<number> {
  const engine = await run.openOwn(dataset, threads);
  const { seconds: saved } = await run.saveOwn(engine, dataset);
  await engine.stop();
  return saved;
}

export async function measureLoad(run: Run, dataset: Dataset): Promise<PartResult> {
  run.say(`load ${dataset.name}`);
  const graph = await loadOwn(run, dataset, "none");
  const whole = await loadOwn(run, dataset, "float32");
  const save = await timeOwnSave(run, dataset);
  const hnswlib = await timeHnswlib(run, dataset);
  const spread = spreadOf(graph.first);
  return {
    figures: { graph, whole, save, hnswlib },
    goals: [{ goal: "load", where: dataset.name, measured: spread?.median, spread }],
    tables: [
      {
        title: `Files of ${dataset.name}, in the system's memory, ${threads} threads`,
        head: ["what", "size", "load s, new process", "load s, again", "save s"],
        rows: [
          [
            "@lim/hnsw, graph and 8-bit vectors",
            megabytes(graph.bytes),
            seconds(graph.first),
            seconds(graph.second),
            "",
          ],
          [
            "@lim/hnsw, with float32 rows",
            megabytes(whole.bytes),
            seconds(whole.first),
            seconds(whole.second),
            formatFigure(save),
          ],
          [
            "hnswlib-node (verifies nothing)",
            megabytes(hnswlib.bytes),
            seconds(hnswlib.first),
            "",
            formatFigure(hnswlib.save),
          ],
        ],
      },
    ],
  };
}
