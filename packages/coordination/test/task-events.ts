import { priorities } from "@lim/contracts";
import fc from "fast-check";
import type { TaskModel } from "./task-model.ts";

const idOf = (kind: number, n: number) => `0000000${kind}-0000-4000-8000-00000000000${n}`;
export const taskIds = [1, 2, 3, 4, 5, 6].map((n) => idOf(1, n));
export const labels = [1, 2, 3, 4].map((n) => idOf(2, n));

/** Mostly a task that the event fits, so that histories get deep; else any. */
const task = fc.record({ fitting: fc.integer({ min: 0, max: 4 }).map((n) => n > 0), n: fc.nat({ max: 59 }) });
const label = fc.constantFrom(...labels);
/** Mostly the epoch in force, sometimes the one before. */
const stale = fc.integer({ min: 0, max: 5 }).map((n) => n === 0);
/** Off the attempt that the model holds. */
const attemptShift = fc.constantFrom(0, 0, 0, 0, -1, 1);
/** Few priorities, so that tasks meet in one. */
const priority = fc.constantFrom(undefined, "lowest" as const, "default" as const, ...priorities.slice(-2));
/** Braces and blanks, as a caller may send. */
const idempotency = fc.option(
  fc.record({ key: fc.constantFrom("key {1}", "key {2}"), fingerprint: fc.constantFrom("one", "an other") }),
  { nil: undefined, freq: 2 },
);

const creation = fc.record({
  kind: fc.constant("create" as const),
  task,
  label,
  stale,
  planned: fc.boolean(),
  priority,
  idempotency,
});
const ending = fc.record({
  kind: fc.constant("finish" as const),
  task,
  stale,
  attemptShift,
  failed: fc.boolean(),
  /** Clock of the indexer that reports it. */
  clock: fc.constantFrom("right" as const, "ahead" as const, "behind" as const),
});
const returning = fc.record({
  kind: fc.constant("requeue" as const),
  task,
  stale,
  attemptShift,
  delayed: fc.boolean(),
});
const adoption = fc.record({
  kind: fc.constant("adopt" as const),
  task,
  label,
  stale,
  attempt: fc.integer({ min: 1, max: 3 }),
});

export const event = fc.oneof(
  { weight: 6, arbitrary: creation },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("dispatch" as const), task, stale }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("progress" as const), task, stale, attemptShift }) },
  { weight: 3, arbitrary: ending },
  { weight: 4, arbitrary: returning },
  { weight: 2, arbitrary: adoption },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("remove" as const), task }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("removeMany" as const),
      ids: fc.subarray(taskIds, { minLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("newMaster" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("flush" as const), claim: fc.boolean() }) },
);
export type RawEvent = typeof event extends fc.Arbitrary<infer E> ? E : never;
export type TaskEvent = RawEvent extends infer E
  ? E extends { task: unknown }
    ? Omit<E, "task"> & { task: string }
    : E
  : never;

/** What each event needs to find. */
const fitting: Record<RawEvent["kind"], (model: TaskModel, id: string) => boolean> = {
  create: (model, id) => !model.tasks.has(id),
  dispatch: (model, id) => model.tasks.get(id)?.status === "pending",
  progress: (model, id) => model.tasks.get(id)?.status === "indexing",
  finish: (model, id) => model.tasks.get(id)?.status === "indexing",
  requeue: (model, id) => model.tasks.get(id)?.status === "indexing",
  adopt: (model, id) => !model.tasks.has(id),
  remove: (model, id) => model.tasks.has(id),
  removeMany: () => true,
  newMaster: () => true,
  flush: () => true,
};

/** The event with the task that it is about. */
export function resolveEvent(raw: RawEvent, model: TaskModel): TaskEvent {
  if (!("task" in raw)) return raw;
  const fits = taskIds.filter((id) => fitting[raw.kind](model, id));
  const choice = raw.task.fitting && fits.length > 0 ? fits : taskIds;
  return { ...raw, task: choice[raw.task.n % choice.length] ?? "" } as TaskEvent;
}
