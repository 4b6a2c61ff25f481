import { LimError, type Priority, priorities } from "@lim/contracts";
import {
  connectRedis,
  createLeaderElection,
  createTaskStore,
  defaultKeyNames,
  type Leadership,
  type TaskStore,
} from "@lim/coordination";
import { createRandom, forEachBounded, uuidOf } from "./random.ts";

const days = 30;
const dayMs = 86_400_000;
const indexerCount = 8;
/** The last indexer has this share of the tasks, the first the most. */
const rareShare = 0.005;
const errorShare = 0.15;
const parallel = 32;
const leaseTtlMs = 10_000;

export interface SeededTask {
  taskId: string;
  listId: string;
  indexer: string;
  status: "success" | "error";
  /** Of creation and start, which are one for these tasks. */
  startMs: number;
  endMs: number;
}

export interface History {
  tasks: SeededTask[];
  indexers: string[];
  queued: number;
  seconds: number;
}

/** Leads as a manager would for as long as `work` takes, so that no manager does meanwhile. */
export async function leading<T>(
  redisUrl: string,
  masterLock: string,
  work: (store: TaskStore, leadership: Leadership) => Promise<T>,
): Promise<T> {
  const redis = connectRedis({ url: redisUrl, name: "bench-manager" });
  const keys = { ...defaultKeyNames, masterLock };
  const over = new AbortController();
  let outcome: { value: T } | { thrown: unknown } | undefined;
  try {
    await createLeaderElection({ redis, keys, leaseTtlMs }).run(
      async (leadership) => {
        try {
          outcome = { value: await work(createTaskStore({ redis, keys }), leadership) };
        } catch (thrown) {
          outcome = { thrown };
        }
        over.abort();
      },
      { signal: over.signal },
    );
  } finally {
    await redis.close();
  }
  if (outcome === undefined) throw new LimError("internal", "the election ended without a master");
  if ("thrown" in outcome) throw outcome.thrown;
  return outcome.value;
}

/** Ended tasks of 30 days and a queue, written as managers write them. */
export function seedHistory(
  redisUrl: string,
  masterLock: string,
  options: { ended: number; queued: number; lists: number; seed: number },
): Promise<History> {
  const startedMs = performance.now();
  const random = createRandom(options.seed);
  const indexers = Array.from({ length: indexerCount }, (_, i) => `http://indexer-${i + 1}:5180`);
  const tasks = endedTasks(options, indexers, random);
  const queued = Array.from({ length: options.queued }, () => ({
    taskId: uuidOf(random),
    listId: uuidOf(random),
    priority: priorities[Math.floor(random() * priorities.length)] as Priority,
  }));
  return leading(redisUrl, masterLock, async (store, { epoch }) => {
    const ofList = Map.groupBy(tasks, (task) => task.listId);
    // One list's tasks one after the other: it may have one open task only.
    await forEachBounded([...ofList.values()], parallel, async (listTasks) => {
      for (const task of listTasks) await writeEnded(store, epoch, task);
    });
    await forEachBounded(queued, parallel, async (task) => {
      const created = await store.create({ ...task, mode: "rebuild", trigger: "request" });
      if (!("created" in created)) throw new LimError("internal", "a pending task was refused");
    });
    return { tasks, indexers, queued: queued.length, seconds: (performance.now() - startedMs) / 1000 };
  });
}

function endedTasks(
  { ended, lists }: { ended: number; lists: number },
  indexers: readonly string[],
  random: () => number,
): SeededTask[] {
  const listIds = Array.from({ length: lists }, () => uuidOf(random));
  const nowMs = Date.now();
  return Array.from({ length: ended }, (_, i) => {
    const startMs = Math.floor(nowMs - dayMs / 24 - random() * days * dayMs);
    return {
      taskId: uuidOf(random),
      listId: listIds[i % lists] as string,
      indexer: indexers[pickIndexer(random())] as string,
      status: random() < errorShare ? "error" : "success",
      startMs,
      endMs: startMs + Math.floor(1_000 + random() * 600_000),
    };
  });
}

/** Shares halve from the first to the last but one; the last is rare. */
function pickIndexer(at: number): number {
  if (at < rareShare) return indexerCount - 1;
  for (let i = 0; i < indexerCount - 2; i++) if (at > 1 / 2 ** (i + 1)) return i;
  return indexerCount - 2;
}

async function writeEnded(store: TaskStore, epoch: number, task: SeededTask): Promise<void> {
  const { taskId, listId, indexer, startMs, endMs, status } = task;
  const startTime = new Date(startMs).toISOString();
  const adopted = await store.adopt({
    taskId,
    listId,
    mode: "rebuild",
    attempt: 1,
    indexer,
    startTime,
    epoch,
  });
  const error =
    status === "error" ? new LimError("build_crashed", "the build process was killed").toBody() : null;
  const endTime = new Date(endMs).toISOString();
  const finished = await store.finish({ taskId, attempt: 1, epoch, error, endTime });
  if (!adopted.ok || !finished.ok) throw new LimError("internal", "an ended task was refused");
}
