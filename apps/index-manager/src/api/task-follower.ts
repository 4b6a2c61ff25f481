import type { Task } from "@lim/contracts";
import type { Log, TaskStore } from "@lim/coordination";
import { pause } from "../concurrency.ts";

/** The task as it was read, or undefined where its record is gone. */
export type TaskListener = (task: Task | undefined) => void;

export interface TaskFollower {
  /** Calls `listener` with every read of the task until the returned function is called. */
  follow(taskId: string, listener: TaskListener): () => void;
  /** Tasks that are being read. */
  readonly followed: number;
}

interface Reader {
  listeners: Set<TaskListener>;
  stop: AbortController;
}

/**
 * One reader for each followed task, shared by all who follow it: it reads the record every `pollMs`, from the first
 * listener to the last. Where Redis fails it goes on reading and says so once.
 */
export function createTaskFollower(options: {
  store: Pick<TaskStore, "get">;
  log: Log;
  pollMs: number;
}): TaskFollower {
  const readers = new Map<string, Reader>();
  const start = (taskId: string): Reader => {
    const reader = { listeners: new Set<TaskListener>(), stop: new AbortController() };
    readers.set(taskId, reader);
    void read(taskId, reader, options);
    return reader;
  };
  return {
    get followed() {
      return readers.size;
    },
    follow(taskId, listener) {
      const reader = readers.get(taskId) ?? start(taskId);
      reader.listeners.add(listener);
      return () => {
        reader.listeners.delete(listener);
        if (reader.listeners.size > 0 || readers.get(taskId) !== reader) return;
        readers.delete(taskId);
        reader.stop.abort();
      };
    },
  };
}

async function read(
  taskId: string,
  { listeners, stop: { signal } }: Reader,
  { store, log, pollMs }: { store: Pick<TaskStore, "get">; log: Log; pollMs: number },
): Promise<void> {
  let failing = false;
  while (!signal.aborted) {
    try {
      const task = await store.get(taskId, { signal });
      if (failing) log.info({ task_id: taskId }, "followed task can be read again");
      failing = false;
      if (!signal.aborted) for (const listener of [...listeners]) listener(task);
    } catch (thrown) {
      if (signal.aborted) return;
      if (!failing) log.warn({ err: thrown, task_id: taskId }, "followed task cannot be read, trying on");
      failing = true;
    }
    await pause(pollMs, signal);
  }
}
