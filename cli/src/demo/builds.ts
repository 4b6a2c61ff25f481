import { setTimeout as sleep } from "node:timers/promises";
import { defaults, LimError, type Task } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { loadEngine } from "@lim/vector-index";
import { createProgressBoard, formatRate, type ProgressLine } from "../output.ts";
import { type DemoContext, labelOf, managerOf, taskSeconds } from "./context.ts";
import type { ReportBuilder } from "./report.ts";
import type { DemoList, FaceSource } from "./source.ts";

const buildLimitMs = 300_000;
const lookMs = 300;

/** Imports the three lists; their ids by name. */
export async function importLists(
  db: FacesDb,
  source: FaceSource,
  options: { runId: string; descriptorVersion: number; report: ReportBuilder; signal: AbortSignal },
): Promise<Map<string, string>> {
  const { signal } = options;
  const board = createProgressBoard();
  const labels = new Map<string, string>();
  let rows = 0;
  const startedMs = performance.now();
  try {
    for (const list of [source.large, source.medium, source.small]) {
      const { listId } = await db.createList({ name: `${list.name}-${options.runId}`, signal });
      labels.set(list.name, listId);
      const bar = board.add(`import ${list.name}`, list.faces.length, "faces");
      const result = await db.importRows({
        listId,
        descriptorVersion: options.descriptorVersion,
        dim: source.dim,
        sourceKey: `${list.name}-${options.runId}`,
        rows: rowsOf(list),
        onProgress: ({ doneRows }) => bar.update(doneRows),
        signal,
      });
      if (result.imported !== list.faces.length)
        throw new LimError("internal", `${result.imported} of ${list.faces.length} faces were imported`);
      rows += result.imported;
      bar.finish();
    }
  } finally {
    board.stop();
  }
  const rate = rows / ((performance.now() - startedMs) / 1000);
  options.report.figure("import_rows_per_s", rate);
  options.report.check("import", true, `${rows} faces, ${formatRate(rate)} rows/s`);
  return labels;
}

async function* rowsOf(list: DemoList) {
  for (const [index, face] of list.faces.entries()) yield { line: index + 1, ...face };
}

/** Follows the planned builds of both larger lists to their end. */
export async function followBuilds(context: DemoContext): Promise<void> {
  const lists = [context.source.large, context.source.medium];
  const board = createProgressBoard();
  const tasks: Task[] = [];
  try {
    tasks.push(...(await Promise.all(lists.map((list) => followBuild(context, list, board)))));
  } finally {
    board.stop();
  }
  const failed = tasks.find((task) => task.status !== "success");
  context.report.check(
    "planned builds",
    failed === undefined,
    failed === undefined
      ? tasks.map((task, i) => `${lists[i]?.name} in ${taskSeconds(task).toFixed(1)} s`).join(", ")
      : `${failed.error?.desc}: ${failed.error?.detail}`,
  );
  if (failed) throw new LimError("internal", "a planned build failed");
  const faces = lists.reduce((sum, list) => sum + list.faces.length, 0);
  const seconds = tasks.reduce((sum, task) => sum + taskSeconds(task), 0);
  context.report.figure("build_per_s", faces / seconds);
}

async function followBuild(
  context: DemoContext,
  list: DemoList,
  board: ReturnType<typeof createProgressBoard>,
): Promise<Task> {
  const deadline = performance.now() + buildLimitMs;
  let bar: ProgressLine | undefined;
  for (;;) {
    context.signal.throwIfAborted();
    const {
      items: [task],
    } = await managerOf(context).tasks(
      { list_id: labelOf(context, list) },
      { limit: 1, signal: context.signal },
    );
    if (task?.status === "success" || task?.status === "error") {
      bar?.finish();
      return task;
    }
    if (task?.progress?.phase === "build") {
      bar ??= board.add(`build ${list.name}`, task.progress.total, "faces");
      bar.update(task.progress.done);
    }
    if (performance.now() > deadline)
      throw new LimError("timeout", `${list.name} was not built within ${buildLimitMs / 1000} s`);
    await sleep(lookMs, undefined, { signal: context.signal });
  }
}

/** The engine alone on the same vectors: both lists one after the other, as one process would. */
export async function measureBareBuild(context: DemoContext): Promise<void> {
  const { source, signal } = context;
  const adapter = await loadEngine(context.engine);
  const params = { m: defaults.m, efConstruction: defaults.efConstruction };
  const sample = source.medium;
  const vectors = new Float32Array(sample.faces.length * source.dim);
  for (const [row, face] of sample.faces.entries()) vectors.set(face.vector, row * source.dim);
  const index = await adapter.create({ dim: source.dim, capacity: sample.faces.length, params, signal });
  try {
    const startedMs = performance.now();
    await index.add(Uint32Array.from(sample.faces.keys()), vectors, { signal });
    const rate = sample.faces.length / ((performance.now() - startedMs) / 1000);
    context.report.figure("build_per_s_bare", rate);
  } finally {
    await index.close();
  }
}
