import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type Task, taskSchema } from "@lim/contracts";
import type { FacesDb } from "@lim/faces-db";
import type { Ledger } from "./ledger.ts";
import type { Chances } from "./random.ts";

const pauseMs = { least: 60, most: 240 } as const;
const requestTimeoutMs = 5_000;
const startFaces = 4;

export interface ListOfFaces {
  listId: string;
  faces: string[];
}

/** A unit vector. */
export function chanceVector(chances: Chances, dim: number): Float32Array {
  const vector = Float32Array.from({ length: dim }, () => chances.between(-1, 1));
  const norm = Math.hypot(...vector) || 1;
  return vector.map((value) => value / norm);
}

export interface Feeder {
  readonly lists: readonly ListOfFaces[];
  readonly answers: ReadonlyMap<string, number>;
  /** Changes lists, asks for tasks and removes some until the signal fires. */
  run(signal: AbortSignal): Promise<void>;
}

export async function createFeeder(deps: {
  db: FacesDb;
  chances: Chances;
  ledger: Ledger;
  dim: number;
  descriptorVersion: number;
  lists: number;
  /** URLs of managers that should answer now. */
  managers: () => readonly string[];
}): Promise<Feeder> {
  const { db, chances, ledger, descriptorVersion, dim } = deps;
  const answers = new Map<string, number>();
  const lists: ListOfFaces[] = [];
  const addFaces = async (list: ListOfFaces, count: number) => {
    const faces = Array.from({ length: count }, () => ({
      faceId: randomUUID(),
      vector: chanceVector(chances, dim),
    }));
    await db.putFaces({ listIds: [list.listId], descriptorVersion, faces });
    list.faces.push(...faces.map((face) => face.faceId));
  };
  for (let i = 0; i < deps.lists; i++) {
    const { listId } = await db.createList({ name: `chaos ${i}` });
    const list = { listId, faces: [] };
    await addFaces(list, startFaces);
    lists.push(list);
  }

  const call = async (method: string, path: string, body?: object) => {
    const url = chances.pick(deps.managers());
    if (url === undefined) return undefined;
    try {
      const response = await fetch(`${url}${path}`, {
        method,
        ...(body ? { body: JSON.stringify(body), headers: { "content-type": "application/json" } } : {}),
        signal: AbortSignal.timeout(requestTimeoutMs),
      });
      const text = await response.text();
      count(answers, `${method} ${response.status}`);
      if (response.status >= 500 && response.status !== 503)
        ledger.violation(`${method} ${path} was answered with ${response.status}: ${text.slice(0, 300)}`);
      return { status: response.status, body: text === "" ? undefined : (JSON.parse(text) as unknown) };
    } catch {
      // Its manager was killed or paused meanwhile.
      count(answers, `${method} without an answer`);
      return undefined;
    }
  };
  const request = async () => {
    const list = chances.pick(lists);
    const answer = await call("POST", "/1/tasks", { list_id: list?.listId });
    if (answer?.status !== 201) return;
    const task = taskSchema.parse(answer.body);
    ledger.created(task.task_id, task.content.list_id);
  };
  const remove = async () => {
    const taskId = chances.pick(ledger.openTaskIds());
    if (taskId === undefined) return;
    ledger.removalAsked(taskId);
    const answer = await call("DELETE", `/1/tasks/${taskId}`);
    if (answer?.status === 200) ledger.removalAnswered(taskId, (answer.body as Task).status);
  };
  const change = async () => {
    const list = chances.pick(lists);
    if (!list) return;
    if (chances.hits(0.7) || list.faces.length <= startFaces) return addFaces(list, 1 + chances.whole(3));
    const [face] = list.faces.splice(chances.whole(list.faces.length), 1);
    await db.unlinkFaces({ listId: list.listId, faceIds: face === undefined ? [] : [face] });
  };

  return {
    lists,
    answers,
    async run(signal) {
      while (!signal.aborted) {
        // What a busy machine makes of a change is not judged here.
        if (chances.hits(0.6)) await change().catch(() => count(answers, "changes that failed"));
        else if (chances.hits(0.7)) await request();
        else await remove();
        await sleep(chances.between(pauseMs.least, pauseMs.most), undefined, { signal }).catch(
          () => undefined,
        );
      }
    },
  };
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
