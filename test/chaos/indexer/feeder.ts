import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type BuildMode, type Task, taskSchema } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import { chanceVector } from "../feeder.ts";
import type { Findings } from "../findings.ts";
import type { Chances } from "../random.ts";

const requestTimeoutMs = 15_000;
const pauseMs = { least: 40, most: 250 } as const;
const chunkFaces = 500;
/** A change touches this share of its list at most. */
const mostChangedShare = 0.06;

interface FedList {
  readonly listId: string;
  readonly faces: string[];
}

/** Task ids whose removal was answered while they were open, and when, by performance.now(). */
export type RemovedTasks = ReadonlyMap<string, number>;

export interface Feeder {
  readonly removedTasks: RemovedTasks;
  /** Tasks that had ended when they were removed: their indexes stay. */
  readonly forgotten: ReadonlySet<string>;
  /** Tasks whose removal was asked for and not answered. */
  readonly unsure: ReadonlySet<string>;
  readonly deletedLists: ReadonlySet<string>;
  /** Changes lists, asks for tasks and removes some until the signal fires. */
  run(signal: AbortSignal): Promise<void>;
  removeTask(taskId: string): Promise<void>;
  /** Deletes a list, and makes another in its place. */
  deleteList(listId: string): Promise<void>;
}

interface FeederDeps {
  db: FacesDb;
  chances: Chances;
  findings: Findings;
  dim: number;
  descriptorVersion: number;
  lists: number;
  faces: { least: number; most: number };
  manager: () => string | undefined;
}

export async function createFeeder(deps: FeederDeps): Promise<Feeder> {
  const { db, chances, findings } = deps;
  const deletedLists = new Set<string>();
  const removedTasks = new Map<string, number>();
  const forgotten = new Set<string>();
  const unsure = new Set<string>();
  const fed = await feedLists(deps);
  const emptyList = (await db.createList({ name: "chaos, empty" })).listId;
  const call = callerOf(deps);
  const removeTask = async (taskId: string) => {
    const answer = await call("DELETE", `/1/tasks/${taskId}`);
    if (answer?.status === 200) {
      const { status } = taskSchema.parse(answer.body) satisfies Task;
      if (status === "pending" || status === "indexing") removedTasks.set(taskId, performance.now());
      else forgotten.add(taskId);
    } else if (answer?.status !== 404) unsure.add(taskId);
  };
  const request = async () => {
    const mode: BuildMode = chances.hits(0.5) ? "rebuild" : "update";
    const listId = chances.hits(0.05) ? emptyList : chances.pick(fed.lists)?.listId;
    const answer = await call("POST", "/1/tasks", { list_id: listId, mode });
    if (answer?.status === 201 && chances.hits(0.15)) {
      await sleep(chances.between(0, 1_500));
      await removeTask(taskSchema.parse(answer.body).task_id);
    }
  };
  return {
    removedTasks,
    forgotten,
    unsure,
    deletedLists,
    removeTask,
    async deleteList(listId) {
      const at = fed.lists.findIndex((list) => list.listId === listId);
      if (at === -1) return;
      fed.lists.splice(at, 1);
      deletedLists.add(listId);
      await db.deleteList({ listId });
      await fed.add();
    },
    async run(signal) {
      while (!signal.aborted) {
        // A list that is deleted meanwhile is none of its faults.
        const act = chances.hits(0.8) ? fed.change : request;
        await act().catch(() => findings.count("harness", "changes that failed"));
        await sleep(chances.between(pauseMs.least, pauseMs.most), undefined, { signal }).catch(() => {});
      }
    },
  };
}

/** Lists with faces, and changes of them: links, replacements, unlinks, deletions. */
async function feedLists({ db, chances, dim, descriptorVersion, faces: sizes, lists: count }: FeederDeps) {
  const lists: FedList[] = [];
  const put = async (listId: string, faceIds: readonly string[]) => {
    for (let at = 0; at < faceIds.length; at += chunkFaces) {
      const faces = faceIds
        .slice(at, at + chunkFaces)
        .map((faceId) => ({ faceId, vector: chanceVector(chances, dim) }));
      await db.putFaces({ listIds: [listId], descriptorVersion, faces });
    }
  };
  const newFaces = (wanted: number) => Array.from({ length: wanted }, () => randomUUID());
  const add = async () => {
    const { listId } = await db.createList({ name: `chaos ${randomUUID()}` });
    const faces = newFaces(Math.round(chances.between(sizes.least, sizes.most)));
    await put(listId, faces);
    lists.push({ listId, faces });
  };
  const change = async () => {
    const list = chances.pick(lists);
    if (!list) return;
    const { listId, faces } = list;
    const some = 1 + chances.whole(Math.max(1, Math.floor(faces.length * mostChangedShare)));
    const dice = chances.between(0, 1);
    if (dice < 0.4 || faces.length <= sizes.least) {
      const added = newFaces(some);
      await put(listId, added);
      faces.push(...added);
    } else if (dice < 0.65) {
      const at = chances.whole(faces.length);
      await put(listId, faces.slice(at, at + some));
    } else {
      const gone = faces.splice(chances.whole(faces.length), some);
      if (dice < 0.85) await db.unlinkFaces({ listId, faceIds: gone });
      else await db.deleteFaces({ faceIds: gone });
    }
  };
  for (let i = 0; i < count; i++) await add();
  return { lists, add, change };
}

/** Calls of the manager's API; undefined where there was no answer. */
function callerOf({ manager, findings }: FeederDeps) {
  return async (method: string, path: string, body?: object) => {
    const url = manager();
    if (url === undefined) return undefined;
    try {
      const response = await fetch(`${url}${path}`, {
        method,
        ...(body ? { body: JSON.stringify(body), headers: { "content-type": "application/json" } } : {}),
        signal: AbortSignal.timeout(requestTimeoutMs),
      });
      const text = await response.text();
      findings.count("manager's answers", `${method} ${response.status}`);
      if (response.status >= 500 && response.status !== 503)
        findings.violation(`${method} ${path} was answered with ${response.status}: ${text.slice(0, 300)}`);
      return { status: response.status, body: text === "" ? undefined : (JSON.parse(text) as unknown) };
    } catch {
      findings.count("manager's answers", `${method} without an answer`);
      return undefined;
    }
  };
}
