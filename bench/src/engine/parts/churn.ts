import { ensureFaces, ensureQueries, ensureTruth, syntheticK } from "../dataset.ts";
import { recallOf } from "../figures.ts";
import type { GoalFigure } from "../goals.ts";
import { type ChurnStep, churnSteps } from "../plan.ts";
import type { OwnStatus } from "../protocol.ts";
import { inThousands, megabytes, type Own, type PartResult, type Run } from "../run.ts";
import { defaultEf } from "./search.ts";

const packet = 10;
const threads = 2;
/** Low enough that a worn graph shows, and the default. */
const efs = [24, defaultEf];

interface Stage extends OwnStatus {
  percent: number;
  /** By `efs`, of the changed index and of a fresh one of the same content. */
  recall: number[];
  fresh: number[];
  changesPerS: number | undefined;
}

/** Rows of the file that the part needs: the content and two replacements of each. */
export const churnRows = (size: number): number => 3 * size;

async function create(run: Run, name: string, size: number): Promise<Own> {
  const { dim, m, efConstruction, seed } = run.options;
  const engine = run.own(name);
  const shape = { dim, m, efConstruction, seed, capacity: size, rows: "float32" as const };
  await engine.call("create", { ...shape, poolThreads: threads });
  return engine;
}

async function recalls(engine: Own, truth: Uint32Array): Promise<number[]> {
  const found: number[] = [];
  for (const ef of efs) {
    const args = { k: syntheticK, ef, durationMs: 1, withKeys: true };
    const { keys } = await engine.call("point", args);
    found.push(recallOf(keys ?? new Uint32Array(0), truth, syntheticK));
  }
  return found;
}

async function measureStage(
  run: Run,
  engine: Own,
  files: { rowsPath: string; queriesPath: string },
  step: Pick<ChurnStep, "percent" | "rowOf">,
  changesPerS: number | undefined,
): Promise<Stage> {
  const { dim, seed } = run.options;
  const { rowsPath, queriesPath } = files;
  const { percent, rowOf } = step;
  const name = `churn-${rowOf.length}x${dim}-seed${seed}-${percent}`;
  const truth = await ensureTruth(run.data, { name, rowsPath, rowOf, dim, queriesPath, k: syntheticK });
  const fresh = await create(run, "@lim/hnsw, fresh", rowOf.length);
  await fresh.call("addMapped", { rowsPath, rowOf, threads });
  await fresh.call("queries", { path: queriesPath, dim });
  const figures = {
    percent,
    recall: await recalls(engine, truth),
    fresh: await recalls(fresh, truth),
    changesPerS,
  };
  await fresh.stop();
  return { ...figures, ...(await engine.call("status", undefined)) };
}

async function measureStages(run: Run): Promise<Stage[]> {
  const { churnSize: size, dim, seed } = run.options;
  const rowsPath = await ensureFaces(run.data, churnRows(size));
  const queriesPath = await ensureQueries(run.data, churnRows(size));
  const files = { rowsPath, queriesPath };
  const engine = await create(run, "@lim/hnsw, changed", size);
  await engine.call("add", { rowsPath, from: 0, count: size, threads });
  await engine.call("queries", { path: queriesPath, dim });
  const first = { percent: 0, rowOf: Uint32Array.from({ length: size }, (_, key) => key) };
  const stages = [await measureStage(run, engine, files, first, undefined)];
  for (const step of churnSteps(size, seed)) {
    run.say(`churn: to ${step.percent} % of ${inThousands(size)} in packets of ten`);
    const { keys, rows } = step;
    const { seconds } = await engine.call("churn", { rowsPath, keys, rows, packet });
    stages.push(await measureStage(run, engine, files, step, keys.length / seconds));
  }
  return stages;
}

/** Replaces faces in packets of ten and compares with an index built at once from the same content. */
export async function measureChurn(run: Run): Promise<PartResult> {
  const stages = await measureStages(run);
  const last = stages.at(-1);
  const lost = last && Math.max(...last.recall.map((recall, i) => (last.fresh[i] ?? 0) - recall));
  const name = `${run.options.churnSize}x${run.options.dim}`;
  const goals: GoalFigure[] = [{ goal: "churn", where: name, measured: lost }];
  return {
    figures: { efs, stages },
    goals,
    tables: [
      {
        title: `Churn of ${name} in packets of ten, recall@${syntheticK} (of a fresh build)`,
        head: ["replaced", ...efs.map((ef) => `ef ${ef}`), "changes/s", "slots", "index", "resident"],
        rows: stages.map((stage) => [
          `${stage.percent} %`,
          ...efs.map((_, i) => `${stage.recall[i]?.toFixed(4)} (${stage.fresh[i]?.toFixed(4)})`),
          stage.changesPerS === undefined ? "" : inThousands(stage.changesPerS),
          inThousands(stage.slots),
          megabytes(stage.memoryBytes),
          megabytes(stage.residentBytes),
        ]),
      },
    ],
  };
}
