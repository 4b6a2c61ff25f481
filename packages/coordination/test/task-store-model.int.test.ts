import type { TaskStatus } from "@lim/contracts";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Keys } from "../src/keys.ts";
import type { KeyNames, Refusal, TaskStore, Transition } from "../src/port.ts";
import { createTaskStore } from "../src/task-store.ts";
import { freshKeyNames, type RedisFixture, startFixture } from "./support.ts";
import { TaskModel } from "./task-model.ts";

let fixture: RedisFixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());

const idOf = (kind: number, n: number) => `0000000${kind}-0000-4000-8000-00000000000${n}`;
const taskIds = [1, 2, 3, 4, 5, 6].map((n) => idOf(1, n));
const labels = [1, 2, 3, 4].map((n) => idOf(2, n));
const reason = { error_code: 26104, desc: "Build process was killed or crashed", detail: "SIGSEGV" };
const maxAttempts = 2;

/** Mostly a task that the event fits, so that histories get deep; else any. */
const task = fc.record({ fitting: fc.integer({ min: 0, max: 4 }).map((n) => n > 0), n: fc.nat({ max: 59 }) });
const label = fc.constantFrom(...labels);
/** Mostly the epoch in force, sometimes the one before. */
const stale = fc.integer({ min: 0, max: 5 }).map((n) => n === 0);
/** Off the attempt that the model holds. */
const attemptShift = fc.constantFrom(0, 0, 0, 0, -1, 1);

const event = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("create" as const), task, label, stale, planned: fc.boolean() }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("dispatch" as const), task, stale }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("progress" as const), task, stale, attemptShift }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("finish" as const),
      task,
      stale,
      attemptShift,
      failed: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("requeue" as const), task, stale, attemptShift }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("adopt" as const),
      task,
      label,
      stale,
      attempt: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("remove" as const), task }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("newMaster" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("flush" as const), claim: fc.boolean() }) },
);
type Raw = typeof event extends fc.Arbitrary<infer E> ? E : never;
type Event = Raw extends infer E
  ? E extends { task: unknown }
    ? Omit<E, "task"> & { task: string }
    : E
  : never;

/** What each event needs to find. */
const fitting: Record<Raw["kind"], (model: TaskModel, id: string) => boolean> = {
  create: (model, id) => !model.tasks.has(id),
  dispatch: (model, id) => model.tasks.get(id)?.status === "pending",
  progress: (model, id) => model.tasks.get(id)?.status === "indexing",
  finish: (model, id) => model.tasks.get(id)?.status === "indexing",
  requeue: (model, id) => model.tasks.get(id)?.status === "indexing",
  adopt: (model, id) => !model.tasks.has(id),
  remove: (model, id) => model.tasks.has(id),
  newMaster: () => true,
  flush: () => true,
};

function resolve(raw: Raw, model: TaskModel): Event {
  if (!("task" in raw)) return raw;
  const fits = taskIds.filter((id) => fitting[raw.kind](model, id));
  const choice = raw.task.fitting && fits.length > 0 ? fits : taskIds;
  return { ...raw, task: choice[raw.task.n % choice.length] ?? "" } as Event;
}

class Run {
  readonly model = new TaskModel();
  readonly store: TaskStore;
  readonly #keys: Keys;
  /** Never below what the stored epoch was: as `epoch_claim` guarantees. */
  #highest = 1_763_683_200_000_000;

  constructor(names: KeyNames, store: TaskStore) {
    this.#keys = new Keys(names);
    this.store = store;
  }

  async claim(): Promise<void> {
    this.#highest++;
    this.model.epoch = this.#highest;
    await fixture.raw.set(this.#keys.epoch, String(this.#highest));
  }

  async step(raw: Raw): Promise<void> {
    const { model, store } = this;
    const step = resolve(raw, model);
    if (step.kind === "newMaster") return this.claim();
    if (step.kind === "flush") {
      model.flush();
      const keys = await fixture.raw.keys(`{${this.#keys.masterLock}}*`);
      if (keys.length > 0) await fixture.raw.del(...keys);
      return step.claim ? this.claim() : undefined;
    }
    if (step.kind === "remove") {
      const removed = await store.remove([step.task]);
      expect(removed.map((one) => one.task_id)).toEqual(model.remove(step.task) ? [step.task] : []);
      return;
    }
    const epoch = step.stale ? this.#highest - 1 : this.#highest;
    if (step.kind === "create") {
      const given = step.planned ? epoch : undefined;
      const made = await store.create({
        taskId: step.task,
        listId: step.label,
        mode: "rebuild",
        trigger: step.planned ? "plan" : "request",
        ...(given === undefined ? {} : { epoch: given }),
      });
      const outcome = "created" in made ? "created" : made;
      expect(outcome).toEqual(model.create(step.task, step.label, given));
      return;
    }
    expect(await this.#transition(step, epoch)).toEqual(this.#expected(step, epoch));
  }

  #attempt(step: { task: string; attemptShift: number }): number {
    return (this.model.tasks.get(step.task)?.attempt ?? 1) + step.attemptShift;
  }

  async #transition(
    step: Exclude<Event, { kind: "create" | "remove" | "newMaster" | "flush" }>,
    epoch: number,
  ): Promise<Refusal | number | string> {
    const { store } = this;
    const taskId = step.task;
    switch (step.kind) {
      case "dispatch": {
        const answer = await store.dispatch({ taskId, indexer: "http://127.0.0.1:5180", epoch });
        return answer.ok ? answer.attempt : answer.refusal;
      }
      case "progress":
        return word(
          await store.progress({
            taskId,
            attempt: this.#attempt(step),
            epoch,
            progress: { phase: "build", done: 1, total: 2, rate_per_s: null, eta_s: null },
          }),
        );
      case "finish":
        return word(
          await store.finish({
            taskId,
            attempt: this.#attempt(step),
            epoch,
            error: step.failed ? reason : null,
            endTime: "2026-11-21T00:00:00.000Z",
          }),
        );
      case "requeue": {
        const answer = await store.requeue({
          taskId,
          attempt: this.#attempt(step),
          epoch,
          reason,
          maxAttempts,
        });
        return answer.ok ? answer.status : answer.refusal;
      }
      case "adopt":
        return word(
          await store.adopt({
            taskId,
            listId: step.label,
            mode: "update",
            attempt: step.attempt,
            indexer: "http://127.0.0.1:5181",
            startTime: "2026-11-20T23:00:00.000Z",
            epoch,
          }),
        );
    }
  }

  #expected(
    step: Exclude<Event, { kind: "create" | "remove" | "newMaster" | "flush" }>,
    epoch: number,
  ): Refusal | number | string {
    const { model } = this;
    switch (step.kind) {
      case "dispatch":
        return model.dispatch(step.task, epoch);
      case "progress":
        return model.progress(step.task, epoch, this.#attempt(step));
      case "finish":
        return model.finish(step.task, epoch, this.#attempt(step), step.failed);
      case "requeue":
        return model.requeue(step.task, epoch, this.#attempt(step), maxAttempts);
      case "adopt":
        return model.adopt(step.task, step.label, epoch, step.attempt);
    }
  }

  /** All that can be read equals the model, and the invariants hold. */
  async compare(): Promise<void> {
    const { model, store } = this;
    const [tasks, queue, running, open] = await Promise.all([
      store.list({}),
      store.queue(),
      store.indexing(),
      store.openTasks(labels),
    ]);
    const seen = new Map(
      tasks.map((one) => [
        one.task_id,
        { label: one.content.list_id, status: one.status as TaskStatus, attempt: one.attempt },
      ]),
    );
    expect(seen).toEqual(model.tasks);
    expect(queue.tasks.map((one) => one.task_id)).toEqual(model.queue);
    expect(queue.count).toBe(model.queue.length);
    // Beside what the store says: nothing is left behind where nobody looks.
    expect(await fixture.raw.zrange(this.#keys.queue, 0, "-1")).toEqual(model.queue);
    const held = labels.filter((one) => model.openOf(one)).map((one) => this.#keys.labelTask(one));
    expect((await fixture.raw.keys(`${this.#keys.labelTaskPrefix}*`)).sort()).toEqual(held.sort());
    const indexing = [...model.tasks].filter(([, one]) => one.status === "indexing").map(([id]) => id);
    expect(running.map((one) => one.task_id).sort()).toEqual(indexing.sort());
    for (const one of labels) {
      expect(open.get(one)).toBe(model.openOf(one));
      const openTasks = tasks.filter(
        (candidate) =>
          candidate.content.list_id === one &&
          (candidate.status === "pending" || candidate.status === "indexing"),
      );
      expect(openTasks.length).toBeLessThanOrEqual(1);
    }
    for (const count of model.endings.values()) expect(count).toBeLessThanOrEqual(1);
    for (const one of tasks) {
      const ended = one.status === "success" || one.status === "error";
      expect(one.end_time !== null).toBe(ended);
      expect(one.error !== null).toBe(one.status === "error");
    }
  }
}

function word(answer: Transition): Refusal | "ok" {
  return answer.ok ? "ok" : answer.refusal;
}

describe("task store against its model", () => {
  it("does what the model does, in any order of events, stale epochs and attempts included (I3, I4)", async () => {
    const redis = fixture.connect();
    await fc.assert(
      fc.asyncProperty(fc.array(event, { minLength: 1, maxLength: 40 }), async (events) => {
        const names = freshKeyNames();
        const run = new Run(names, createTaskStore({ redis, keys: names }));
        await run.claim();
        for (const step of events) {
          await run.step(step);
          await run.compare();
        }
      }),
      { numRuns: 150 },
    );
  });
});
