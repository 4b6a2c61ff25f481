import { randomUUID } from "node:crypto";
import type { Task } from "@lim/contracts";
import { expect } from "vitest";
import { Keys } from "../src/keys.ts";
import type { TaskStore } from "../src/port.ts";
import { createTaskStore } from "../src/task-store.ts";
import { freshKeyNames, type RedisFixture } from "./support.ts";

export const epoch = 1_763_683_200_000_001;
export const indexer = "http://127.0.0.1:5180";
export const reason = { error_code: 26110, desc: "Indexer vanished or lost the build", detail: "no answer" };

export interface TaskBench {
  keys: Keys;
  store: TaskStore;
  create(wish?: Partial<Parameters<TaskStore["create"]>[0]>): Promise<Task>;
  /** A task in status indexing, attempt 1. */
  start(wish?: Partial<Parameters<TaskStore["create"]>[0]>): Promise<Task>;
  /** indexing → error, by its indexer's clock now. */
  end(task: Task): Promise<void>;
}

/** A store under names of its own, with an epoch in force. */
export async function taskBench(fixture: RedisFixture): Promise<TaskBench> {
  const names = freshKeyNames();
  const keys = new Keys(names);
  const store = createTaskStore({ redis: fixture.connect(), keys: names });
  await fixture.raw.set(keys.epoch, String(epoch));
  const create: TaskBench["create"] = async (wish) => {
    const made = await store.create({
      taskId: randomUUID(),
      listId: randomUUID(),
      mode: "rebuild",
      trigger: "request",
      ...wish,
    });
    if (!("created" in made)) throw new Error(`not created: ${JSON.stringify(made)}`);
    return made.created;
  };
  return {
    keys,
    store,
    create,
    async start(wish) {
      const task = await create(wish);
      expect(await store.dispatch({ taskId: task.task_id, indexer, epoch })).toMatchObject({ ok: true });
      return { ...task, status: "indexing", attempt: 1, indexer };
    },
    async end({ task_id: taskId, attempt }) {
      const endTime = new Date().toISOString();
      expect(await store.finish({ taskId, attempt, epoch, error: reason, endTime })).toEqual({ ok: true });
    },
  };
}

export const idsOf = (tasks: readonly Task[]): string[] => tasks.map((task) => task.task_id);
