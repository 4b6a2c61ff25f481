import { access, readdir } from "node:fs/promises";
import { join } from "node:path";
import { readUuid, uuidBytes } from "@lim/contracts";
import type { FacesDb, ListState } from "@lim/faces-db";
import { type IndexStorage, newestOf, openIndexStorage } from "@lim/index-storage";
import { eventually } from "@lim/testkit";
import { type Findings, textOf } from "../findings.ts";
import { judgeProcesses, judgeSessions } from "../left-overs.ts";
import type { Feeder } from "./feeder.ts";
import type { TaskWatch } from "./tasks.ts";

const restLimitMs = 180_000;
/** Later than every grace of the storage, marks excepted. */
const muchLaterMs = 3_600_000;
/** Cosine of a face's vector in the index with that in Postgres: other vectors of a run are far below. */
const minSelfSimilarity = 0.98;

export interface RestDeps {
  db: FacesDb;
  storage: IndexStorage;
  findings: Findings;
  descriptorVersion: number;
  dim: number;
}

const newestIn = async ({ storage, descriptorVersion }: RestDeps, list: ListState) =>
  newestOf(await storage.list({ label: list.listId }), list.listId, descriptorVersion, list);

/** Faults and changes are over: every task ends, and every list gets an index of its newest revision. */
export async function untilAtRest(deps: RestDeps, tasks: TaskWatch): Promise<void> {
  const startMs = performance.now();
  await eventually(
    "no task is open and every list has an index of its newest revision",
    async () => {
      const open = await tasks.open();
      if (open.length > 0) throw new Error(`${open.length} open tasks`);
      const lists = await deps.db.listStates({ minFaceCount: 1 });
      const behind: string[] = [];
      for (const list of lists)
        if ((await newestIn(deps, list))?.meta.revision !== list.revision) behind.push(list.listId);
      if (behind.length > 0) throw new Error(`lists behind: ${behind.join(", ")}`);
      return true;
    },
    { timeoutMs: restLimitMs, intervalMs: 200 },
  ).catch((error: unknown) => deps.findings.violation(textOf(error)));
  deps.findings.count("rest", `came after ${Math.round((performance.now() - startMs) / 1_000)} s`);
}

/** Faces and vectors of each list's newest index against Postgres. */
export async function judgeContents(deps: RestDeps): Promise<void> {
  for (const list of await deps.db.listStates({ minFaceCount: 1 })) {
    const newest = await newestIn(deps, list);
    if (!newest) continue;
    const { listId: label } = list;
    await compare(deps, label, newest.indexId).catch((error: unknown) =>
      deps.findings.violation(`index ${newest.indexId} of list ${label}: ${textOf(error)}`),
    );
  }
}

async function compare(deps: RestDeps, label: string, indexId: string): Promise<void> {
  const { db, storage, findings, descriptorVersion, dim } = deps;
  const { keyed } = await storage.open({ label, indexId });
  const snapshot = await db.openSnapshot({ listId: label, descriptorVersion, dim });
  try {
    const ids = keyed.exportIds();
    const positionOf = new Map<string, number>();
    for (let at = 0; at < ids.length / uuidBytes; at++)
      if (ids.subarray(at * uuidBytes, (at + 1) * uuidBytes).some((byte) => byte !== 0))
        positionOf.set(readUuid(ids, at * uuidBytes), at);
    let missing = 0;
    let stale = 0;
    let faces = 0;
    for await (const batch of snapshot.batches) {
      const rows: number[] = [];
      const positions: number[] = [];
      faces += batch.count;
      for (let row = 0; row < batch.count; row++) {
        const faceId = readUuid(batch.faceIds, row * uuidBytes);
        const position = positionOf.get(faceId);
        positionOf.delete(faceId);
        if (position === undefined) missing++;
        else {
          rows.push(row);
          positions.push(position);
        }
      }
      const held = await keyed.index.read(Uint32Array.from(positions));
      rows.forEach((row, i) => {
        if (dot(held, i * dim, batch.vectors, row * dim, dim) < minSelfSimilarity) stale++;
      });
    }
    findings.count("contents", "newest indexes compared with their lists");
    if (missing > 0 || positionOf.size > 0 || stale > 0 || keyed.count !== faces)
      findings.violation(
        `index ${indexId} differs from list ${label} of ${faces} faces: ${missing} missing, ` +
          `${positionOf.size} phantoms, ${stale} old vectors`,
      );
  } finally {
    await snapshot.close();
    await keyed.close();
  }
}

function dot(a: Float32Array, atA: number, b: Float32Array, atB: number, dim: number): number {
  let sum = 0;
  for (let i = 0; i < dim; i++) sum += (a[atA + i] ?? 0) * (b[atB + i] ?? 0);
  return sum;
}

/** All services have ended: nothing of them may be left, in the storage, among the processes or in Postgres. */
export async function judgeLeftOvers(
  deps: RestDeps & { feeder: Feeder; mark: string; scratchDir: string; databaseUrl: string },
): Promise<void> {
  const { storage, findings, feeder } = deps;
  await judgeProcesses(deps.mark, findings);
  await judgeSessions(deps.databaseUrl, findings);
  const folder = (name: string) => readdir(join(storage.root, name));
  const left = (await folder(".staging")).length;
  for (let i = 0; i < left; i++) findings.count("rest", "staging folders before collection");
  await storage.collect({ nowMs: Date.now() + muchLaterMs });
  for (const name of await folder(".staging"))
    findings.violation(`staging folder ${name} is left after collection`);
  for (const name of await folder(".trash")) findings.violation(`${name} is left in the trash`);
  const { indexes, refused } = await storage.list();
  for (const { label, indexId, reason } of refused)
    findings.violation(`index ${label}/${indexId} is partial in the end: ${reason}`);
  for (const { label, indexId } of indexes)
    await storage
      .verify({ label, indexId })
      .then(() => findings.count("rest", "indexes verified in the end"))
      .catch((error: unknown) => findings.violation(`index ${label}/${indexId}: ${textOf(error)}`));
  if (new Set(indexes.map(({ indexId }) => indexId)).size !== indexes.length)
    findings.violation("two indexes of one task are in the storage");
  const labels = (await readdir(storage.root)).filter((name) => !name.startsWith("."));
  for (const taskId of feeder.removedTasks.keys())
    for (const label of labels)
      if (await exists(join(storage.root, label, taskId)))
        findings.violation(`removed task ${taskId} has a folder under list ${label}`);
  // Opening a storage cleans what dead processes left in the scratch folder.
  await openIndexStorage({ root: storage.root, scratchDir: deps.scratchDir });
  // Compiled modules stay for the processes to come.
  for (const name of await readdir(deps.scratchDir))
    if (name.startsWith("lim-") && !name.startsWith("lim-modules."))
      findings.violation(`scratch ${name} is left after cleaning`);
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
