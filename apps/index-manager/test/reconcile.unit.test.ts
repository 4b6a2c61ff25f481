import { randomUUID } from "node:crypto";
import { type IndexerState, LimError, type Task } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { lostAfterSilentLookups, type Observed, type ObservedIndexer, reconcile } from "../src/reconcile.ts";

const time = "2026-11-21T10:00:00.000Z";
const origins = ["http://a:1", "http://b:2", "http://c:3"];
const origin = origins[0] as string;

const task = (change: Partial<Task> = {}): Task => ({
  task_id: "t1",
  status: "indexing",
  create_time: time,
  start_time: time,
  end_time: null,
  indexer: origin,
  error: null,
  content: { list_id: "l1" },
  mode: "rebuild",
  trigger: "plan",
  attempt: 1,
  progress: null,
  ...change,
});
const idle = (change: Partial<IndexerState> = {}): IndexerState => ({
  boot_id: randomUUID(),
  state: "idle",
  task_id: null,
  list_id: null,
  attempt: null,
  mode: null,
  start_time: null,
  progress: null,
  outcomes: [],
  ...change,
});
const building = (taskId: string, attempt: number, change: Partial<IndexerState> = {}): IndexerState =>
  idle({
    state: "building",
    task_id: taskId,
    list_id: "l1",
    attempt,
    mode: "update",
    start_time: time,
    ...change,
  });
const outcome = (error: LimError | null, attempt = 1) => ({
  task_id: "t1",
  list_id: "l1",
  attempt,
  status: error ? ("error" as const) : ("success" as const),
  error: error?.toBody() ?? null,
  end_time: "2026-11-21T10:05:00.000Z",
});
const at = (state: IndexerState | undefined, change: Partial<ObservedIndexer> = {}): ObservedIndexer => ({
  origin,
  state,
  known: true,
  avoid: false,
  ...change,
});
const observed = (change: Partial<Observed> = {}): Observed => ({
  indexers: [],
  indexing: [],
  queue: [],
  otherRecords: new Map(),
  published: new Set(),
  removed: new Set(),
  silentLookups: new Map(),
  nowMs: Date.parse(time),
  ...change,
});
const pending = task({
  task_id: "t2",
  status: "pending",
  indexer: null,
  attempt: 0,
  content: { list_id: "l2" },
});

describe("reconcile: running tasks", () => {
  const progress = { phase: "build" as const, done: 5, total: 10, rate_per_s: null, eta_s: null };

  it("follows progress, and writes it only when it changed", () => {
    const state = building("t1", 1, { progress });
    expect(reconcile(observed({ indexers: [at(state)], indexing: [task()] }))).toEqual([
      { kind: "progress", taskId: "t1", attempt: 1, progress },
    ]);
    expect(reconcile(observed({ indexers: [at(state)], indexing: [task({ progress })] }))).toEqual([]);
  });

  it("I2: believes a success only where the storage has the index", () => {
    const done = { indexers: [at(idle({ outcomes: [outcome(null)] }))], indexing: [task()] };
    expect(reconcile(observed({ ...done, published: new Set(["t1"]) }))).toEqual([
      { kind: "finish", taskId: "t1", attempt: 1, error: null, endTime: "2026-11-21T10:05:00.000Z" },
    ]);
    expect(reconcile(observed(done))).toMatchObject([{ kind: "requeue", attempt: 1 }]);
  });

  it("ends a task with the build's own error, tries again where only the surroundings failed", () => {
    const withError = (error: LimError, state: Partial<IndexerState> = {}) =>
      reconcile(
        observed({ indexers: [at(idle({ outcomes: [outcome(error)], ...state }))], indexing: [task()] }),
      );
    const fatal = new LimError("empty_list", "nothing to index");
    expect(withError(fatal)).toEqual([
      {
        kind: "finish",
        taskId: "t1",
        attempt: 1,
        error: fatal.toBody(),
        endTime: "2026-11-21T10:05:00.000Z",
      },
    ]);
    expect(withError(new LimError("postgres_unavailable", "away"))).toMatchObject([{ kind: "requeue" }]);
    const cancelled = new LimError("build_cancelled", "stopped");
    expect(withError(cancelled)).toMatchObject([{ kind: "finish" }]);
    expect(withError(cancelled, { state: "draining" })).toMatchObject([{ kind: "requeue" }]);
  });

  it("I4: outcomes and builds of other attempts decide nothing", () => {
    const stale = at(idle({ outcomes: [outcome(new LimError("empty_list", ""), 1)] }));
    expect(reconcile(observed({ indexers: [stale], indexing: [task({ attempt: 2 })] }))).toEqual([]);
    const old = at(building("t1", 1));
    expect(reconcile(observed({ indexers: [old], indexing: [task({ attempt: 2 })] }))).toEqual([
      { kind: "stop", taskId: "t1", attempt: 1, origin },
    ]);
  });

  it("gives up a build after the grace, sooner where its indexer answers", () => {
    const after = (state: IndexerState | undefined, lookups: number) =>
      reconcile(
        observed({
          indexers: [at(state)],
          indexing: [task()],
          silentLookups: new Map([["t1", lookups]]),
        }),
      );
    expect(after(idle(), lostAfterSilentLookups.indexerAnswers - 1)).toEqual([]);
    expect(after(idle(), lostAfterSilentLookups.indexerAnswers)).toMatchObject([{ kind: "requeue" }]);
    expect(after(undefined, lostAfterSilentLookups.indexerSilent - 1)).toEqual([]);
    expect(after(undefined, lostAfterSilentLookups.indexerSilent)).toMatchObject([{ kind: "requeue" }]);
  });

  it("a lost indexer that had published is a success", () => {
    const lost = { indexing: [task()], silentLookups: new Map([["t1", 99]]) };
    expect(reconcile(observed({ ...lost, published: new Set(["t1"]) }))).toMatchObject([
      { kind: "finish", error: null },
    ]);
  });
});

describe("reconcile: builds without a running record", () => {
  it("I9: adopts what nobody knows, stops what was removed or is over", () => {
    const indexers = [at(building("t1", 2))];
    expect(reconcile(observed({ indexers }))).toEqual([
      { kind: "adopt", taskId: "t1", listId: "l1", attempt: 2, origin, mode: "update", startTime: time },
    ]);
    const stop = [{ kind: "stop", taskId: "t1", attempt: 2, origin }];
    expect(reconcile(observed({ indexers, removed: new Set(["t1"]) }))).toEqual(stop);
    const over = new Map([["t1", task({ status: "success" })]]);
    expect(reconcile(observed({ indexers, otherRecords: over }))).toEqual(stop);
  });

  it("adopts the later of two attempts and stops the other", () => {
    const rivals = [at(building("t1", 1)), at(building("t1", 2), { origin: "http://b:2" })];
    for (const indexers of [rivals, rivals.toReversed()]) {
      const actions = reconcile(observed({ indexers }));
      expect(actions).toHaveLength(2);
      expect(actions).toContainEqual({ kind: "stop", taskId: "t1", attempt: 1, origin });
      expect(actions).toContainEqual(expect.objectContaining({ kind: "adopt", attempt: 2 }));
    }
  });
});

describe("reconcile: dispatch", () => {
  it("first come, first served, to free indexers only", () => {
    const third = { ...pending, task_id: "t3" };
    const indexers = [
      at(building("t1", 1)),
      at(idle(), { origin: "http://b:2" }),
      at(idle(), { origin: "http://c:3", avoid: true }),
      at(idle({ state: "draining" }), { origin: "http://d:4" }),
      at(idle(), { origin: "http://e:5", known: false }),
      at(undefined, { origin: "http://f:6" }),
    ];
    expect(reconcile(observed({ indexers, indexing: [task()], queue: [pending, third] }))).toEqual([
      { kind: "dispatch", task: pending, origin: "http://b:2" },
    ]);
  });

  it("I3: one build for an indexer that is known under two names", () => {
    const state = idle();
    const indexers = [at(state), at(state, { origin: "http://alias:1" })];
    const queue = [pending, { ...pending, task_id: "t3" }];
    expect(reconcile(observed({ indexers, queue }))).toHaveLength(1);
  });

  it("none to an indexer whose task is still waited for, one at once when it has ended", () => {
    const waiting = { indexers: [at(idle())], indexing: [task()], queue: [pending] };
    expect(reconcile(observed(waiting))).toEqual([]);
    const ended = {
      ...waiting,
      indexers: [at(idle({ outcomes: [outcome(null)] }))],
      published: new Set(["t1"]),
    };
    expect(reconcile(observed(ended)).map((action) => action.kind)).toEqual(["finish", "dispatch"]);
  });
});

const taskIds = ["t1", "t2", "t3"];
const stateArbitrary: fc.Arbitrary<IndexerState | undefined> = fc.oneof(
  fc.constant(undefined),
  fc
    .record({ boot: fc.constantFrom("b1", "b2", "b3"), ended: fc.option(fc.constantFrom(...taskIds)) })
    .map(({ boot, ended }) =>
      idle({ boot_id: boot, outcomes: ended ? [{ ...outcome(null), task_id: ended }] : [] }),
    ),
  fc
    .record({ id: fc.constantFrom(...taskIds), attempt: fc.integer({ min: 1, max: 3 }) })
    .map(({ id, attempt }) => building(id, attempt)),
);
const observedArbitrary: fc.Arbitrary<Observed> = fc
  .record({
    states: fc.tuple(stateArbitrary, stateArbitrary, stateArbitrary),
    avoid: fc.boolean(),
    statuses: fc.tuple(
      ...taskIds.map(() => fc.constantFrom("absent", "pending", "indexing", "success", "error")),
    ),
    holders: fc.array(fc.constantFrom(...origins), { minLength: 3, maxLength: 3 }),
    attempts: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 3, maxLength: 3 }),
    published: fc.subarray(taskIds),
    removed: fc.subarray(taskIds),
    silent: fc.nat(6),
  })
  .map(({ states, avoid, statuses, holders, attempts, published, removed, silent }) => {
    const tasks = taskIds.flatMap((id, i) => {
      const status = statuses[i];
      if (status === "absent" || status === undefined) return [];
      return [
        task({
          task_id: id,
          status: status as Task["status"],
          indexer: status === "pending" ? null : (holders[i] ?? null),
          attempt: attempts[i] ?? 1,
        }),
      ];
    });
    return observed({
      indexers: origins.map((name, i) => at(states[i], { origin: name, avoid: avoid && i === 0 })),
      indexing: tasks.filter(({ status }) => status === "indexing"),
      queue: tasks.filter(({ status }) => status === "pending"),
      otherRecords: new Map(
        tasks.filter(({ status }) => status !== "indexing").map((one) => [one.task_id, one]),
      ),
      published: new Set(published),
      removed: new Set(removed),
      silentLookups: new Map(taskIds.map((id) => [id, silent])),
    });
  });

describe("reconcile, any observation", () => {
  it("I3 I4: at most one word for a task, one dispatch for an indexer, and only to one that is idle", () => {
    fc.assert(
      fc.property(observedArbitrary, (given) => {
        const actions = reconcile(given);
        const spoken = actions.flatMap((action) =>
          action.kind === "stop" ? [] : action.kind === "dispatch" ? [action.task.task_id] : [action.taskId],
        );
        expect(new Set(spoken).size).toBe(spoken.length);
        const dispatched = actions.flatMap((action) => (action.kind === "dispatch" ? [action.origin] : []));
        expect(new Set(dispatched).size).toBe(dispatched.length);
        for (const to of dispatched)
          expect(given.indexers.find((one) => one.origin === to)?.state?.state).toBe("idle");
      }),
      { numRuns: 500 },
    );
  });

  it("words about a running task name its current attempt; a build that is followed is neither stopped nor requeued", () => {
    fc.assert(
      fc.property(observedArbitrary, (given) => {
        const running = new Map(given.indexing.map((one) => [one.task_id, one]));
        for (const action of reconcile(given)) {
          if (action.kind === "dispatch" || action.kind === "adopt") continue;
          const record = running.get(action.taskId);
          const holder = given.indexers.find((one) => one.origin === record?.indexer)?.state;
          const followed = holder?.task_id === record?.task_id && holder?.attempt === record?.attempt;
          if (action.kind === "stop") {
            if (record && action.attempt === record.attempt) expect(action.origin).not.toBe(record.indexer);
            continue;
          }
          expect(action.attempt).toBe(record?.attempt);
          if (action.kind === "requeue" || action.kind === "finish") expect(followed).toBe(false);
          if (action.kind === "requeue") expect(given.published.has(action.taskId)).toBe(false);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("every reported build is followed, adopted or stopped", () => {
    fc.assert(
      fc.property(observedArbitrary, (given) => {
        const actions = reconcile(given);
        for (const { origin: where, state } of given.indexers) {
          if (state?.state !== "building") continue;
          const record = given.indexing.find((one) => one.task_id === state.task_id);
          const followed = record?.indexer === where && record.attempt === state.attempt;
          const judged = actions.some(
            (action) =>
              (action.kind === "stop" || action.kind === "adopt") &&
              action.origin === where &&
              action.taskId === state.task_id,
          );
          expect(judged).toBe(!followed);
        }
      }),
      { numRuns: 500 },
    );
  });
});
