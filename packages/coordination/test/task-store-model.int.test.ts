import type { Task } from "@lim/contracts";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Keys } from "../src/keys.ts";
import type { KeyNames, Refusal, TaskFilter, TaskStore, Transition } from "../src/port.ts";
import { createTaskStore } from "../src/task-store.ts";
import { freshKeyNames, type RedisFixture, startFixture } from "./support.ts";
import { event, labels, type RawEvent, resolveEvent, type TaskEvent } from "./task-events.ts";
import { expectFactsOfRecords } from "./task-facts.ts";
import { type CreatedInModel, TaskModel } from "./task-model.ts";

let fixture: RedisFixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());

const reason = { error_code: 26104, desc: "Build process was killed or crashed", detail: "SIGSEGV" };
const maxAttempts = 2;
/** Longer than any test: what is delayed waits to the end. */
const delayMs = 3_600_000;
/** Before any start but that of an adopted build, and after any end. */
const reportedEnds = { behind: "2021-01-01T00:00:00.000Z", ahead: "2999-01-01T00:00:00.000Z" };
const adoptedStart = "2020-01-01T00:00:00.000Z";

type Spoken = Exclude<TaskEvent, { kind: "create" | "remove" | "removeMany" | "newMaster" | "flush" }>;

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

  async step(raw: RawEvent): Promise<void> {
    const { model } = this;
    const step = resolveEvent(raw, model);
    switch (step.kind) {
      case "newMaster":
        return this.claim();
      case "flush": {
        model.flush();
        const keys = await this.#storedKeys();
        if (keys.length > 0) await fixture.raw.del(...keys);
        return step.claim ? this.claim() : undefined;
      }
      case "remove":
        return this.#remove([step.task]);
      case "removeMany":
        return this.#remove(step.ids);
      case "create":
        return this.#create(step);
      default: {
        const epoch = step.stale ? this.#highest - 1 : this.#highest;
        expect(await this.#transition(step, epoch)).toEqual(this.#expected(step, epoch));
      }
    }
  }

  async #remove(ids: readonly string[]): Promise<void> {
    const removed = await this.store.remove(ids);
    expect(removed.map((one) => one.task_id)).toEqual(ids.filter((id) => this.model.remove(id)));
  }

  async #create(step: Extract<TaskEvent, { kind: "create" }>): Promise<void> {
    const { task, label, priority, idempotency } = step;
    const given = step.stale ? this.#highest - 1 : this.#highest;
    const epoch = step.planned ? given : undefined;
    const made = await this.store.create({
      taskId: task,
      listId: label,
      mode: "rebuild",
      trigger: step.planned ? "plan" : "request",
      ...(epoch === undefined ? {} : { epoch }),
      ...(priority ? { priority } : {}),
      ...(idempotency ? { idempotency } : {}),
    });
    let outcome: CreatedInModel;
    if ("created" in made) {
      outcome = "created";
      expect(made.created.task_id).toBe(task);
    } else outcome = "replayed" in made ? { replayed: made.replayed.task_id } : made;
    expect(outcome).toEqual(this.model.create({ id: task, label, epoch, priority, idempotency }));
  }

  #attempt(step: { task: string; attemptShift: number }): number {
    return (this.model.tasks.get(step.task)?.attempt ?? 1) + step.attemptShift;
  }

  async #transition(step: Spoken, epoch: number): Promise<Refusal | number | string> {
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
            endTime: step.clock === "right" ? new Date().toISOString() : reportedEnds[step.clock],
          }),
        );
      case "requeue": {
        const answer = await store.requeue({
          taskId,
          attempt: this.#attempt(step),
          epoch,
          reason,
          maxAttempts,
          delayMs: step.delayed ? delayMs : 0,
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
            startTime: adoptedStart,
            epoch,
          }),
        );
    }
  }

  #expected(step: Spoken, epoch: number): Refusal | number | string {
    const { model } = this;
    switch (step.kind) {
      case "dispatch":
        return model.dispatch(step.task, epoch);
      case "progress":
        return model.progress(step.task, epoch, this.#attempt(step));
      case "finish":
        return model.finish(step.task, epoch, this.#attempt(step), step.failed);
      case "requeue":
        return model.requeue(step.task, epoch, this.#attempt(step), { maxAttempts, delayed: step.delayed });
      case "adopt":
        return model.adopt(step.task, step.label, epoch, step.attempt);
    }
  }

  /** All that can be read equals the model, all that is stored is what it should be, and the invariants hold. */
  async compare(): Promise<void> {
    const { model } = this;
    const tasks = await this.#pages({});
    const seen = tasks.map((one) => [
      one.task_id,
      one.content.list_id,
      one.status,
      one.attempt,
      one.priority,
      one.not_before !== null,
    ]);
    expect(seen).toEqual(
      model.newestFirst.map((id) => {
        const one = model.tasks.get(id);
        return [id, one?.label, one?.status, one?.attempt, one?.priority, one?.waits];
      }),
    );
    await this.#compareStored(tasks);
    await this.#compareQueue();
    await this.#compareFilters();
    for (const count of model.endings.values()) expect(count).toBeLessThanOrEqual(1);
    for (const one of tasks) {
      const ended = one.status === "success" || one.status === "error";
      expect(one.end_time !== null).toBe(ended);
      expect(one.error !== null).toBe(one.status === "error");
      if (one.end_time !== null && one.start_time !== null) {
        expect(one.end_time >= one.start_time).toBe(true);
        expect(Date.parse(one.end_time)).toBeLessThan(Date.now() + 1_000);
      }
    }
  }

  /** In pages so small that there are several. */
  async #pages(filter: TaskFilter): Promise<Task[]> {
    const all: Task[] = [];
    let cursor: string | undefined;
    do {
      const page = await this.store.find(filter, { limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      if (cursor !== undefined) expect(page.tasks).not.toEqual([]);
      all.push(...page.tasks);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return all;
  }

  /** Beside what the store says: nothing is left behind where nobody looks. */
  async #compareStored(tasks: readonly Task[]): Promise<void> {
    const { model } = this;
    const keys = this.#keys;
    const ids = model.newestFirst;
    const used = labels.filter((label) => [...model.tasks.values()].some((one) => one.label === label));
    const ended = model.idsIn("success", "error");
    const running = model.idsIn("indexing");
    const expected = [
      ...(model.epoch === undefined ? [] : [keys.epoch]),
      ...(ids.length > 0 ? [keys.tasks, keys.facts] : []),
      ...(model.queue.length > 0 ? [keys.queue] : []),
      ...(running.length > 0 ? [keys.indexing] : []),
      ...(ended.length > 0 ? [keys.ended] : []),
      ...ids.map((id) => keys.task(id)),
      ...used.map((label) => keys.tasksOf(label)),
      ...labels.filter((label) => model.openOf(label)).map((label) => keys.labelTask(label)),
      ...[...model.removed].map((id) => keys.removed(id)),
      ...[...model.idempotencyKeys.keys()].map((key) => keys.idempotency(key)),
    ];
    expect((await this.#storedKeys()).sort()).toEqual(expected.sort());
    expect(await fixture.raw.zrange(keys.tasks, 0, "-1", "REV")).toEqual(ids);
    await expectFactsOfRecords(fixture.raw, keys);
    expect(await fixture.raw.zrange(keys.queue, 0, "-1")).toEqual(model.queue);
    expect((await fixture.raw.smembers(keys.indexing)).sort()).toEqual(running.sort());
    for (const label of used)
      expect(await fixture.raw.zrange(keys.tasksOf(label), 0, "-1", "REV")).toEqual(
        ids.filter((id) => model.tasks.get(id)?.label === label),
      );
    const endsInSet = await fixture.raw.zrange(keys.ended, 0, "-1", "WITHSCORES");
    const endOf = new Map(tasks.map((one) => [one.task_id, Date.parse(one.end_time ?? "")]));
    expect(endsInSet.filter((_, i) => i % 2 === 0).sort()).toEqual(ended.sort());
    for (let i = 0; i < endsInSet.length; i += 2)
      expect(Math.floor(Number(endsInSet[i + 1]) / 1000)).toBe(endOf.get(endsInSet[i] ?? ""));
  }

  async #compareQueue(): Promise<void> {
    const { model, store } = this;
    const ready = await store.ready({ limit: 100 });
    const waits = (id: string) => model.tasks.get(id)?.waits === true;
    expect(ready.tasks.map((one) => one.task_id)).toEqual(model.queue.filter((id) => !waits(id)));
    expect(ready.waiting).toBe(model.queue.filter(waits).length);
    expect(ready.queued).toBe(model.queue.length);
    const queued: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await store.queue({ limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      expect(page.count).toBe(model.queue.length);
      queued.push(...page.tasks.map((one) => one.task_id));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(queued).toEqual(model.queue);
  }

  async #compareFilters(): Promise<void> {
    const { model, store } = this;
    const idsOf = async (filter: TaskFilter) => (await this.#pages(filter)).map((one) => one.task_id);
    const open = await store.openTasks(labels);
    for (const label of labels) {
      expect(open.get(label)).toBe(model.openOf(label));
      const ofLabel = model.newestFirst.filter((id) => model.tasks.get(id)?.label === label);
      expect(await idsOf({ listId: label })).toEqual(ofLabel);
      const openOfLabel = ofLabel.filter((id) => model.idsIn("pending", "indexing").includes(id));
      expect(openOfLabel.length).toBeLessThanOrEqual(1);
    }
    const ended = model.idsIn("success", "error");
    expect(await idsOf({ statuses: ["success", "error"] })).toEqual(ended);
    expect(await idsOf({ statuses: ["indexing"] })).toEqual(model.idsIn("indexing"));
    const running = (await store.indexing()).map((one) => one.task_id);
    expect(running).toEqual(model.idsIn("indexing").reverse());
    const past = await store.expired({ keep: 1, endedBeforeMs: 0 });
    expect(past).toMatchObject({ ended: ended.length, expired: Math.max(ended.length - 1, 0) });
    expect(past.taskIds).toHaveLength(past.expired);
  }

  #storedKeys(): Promise<string[]> {
    return fixture.raw.keys(`{${this.#keys.masterLock}}*`);
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
      { numRuns: 100 },
    );
  }, 180_000);
});
