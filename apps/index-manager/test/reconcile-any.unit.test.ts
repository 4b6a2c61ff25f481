import { type IndexerState, LimError, type Task } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Action, type Observed, type ObservedIndexer, reconcile } from "../src/reconcile.ts";
import { at, building, idle, late, observed, outcome, task } from "./reconcile-cases.ts";

/** Worlds of few names, so that what is observed often belongs together and often contradicts itself. */
const taskIds = ["t1", "t2", "t3", "t4"];
const names = ["http://a:1", "http://b:2", "http://c:3", "http://d:4"];
const boots = ["b1", "b2", "b3"];
const errors = [
  null,
  new LimError("empty_list", ""),
  new LimError("build_cancelled", ""),
  new LimError("timeout", ""),
];

const attemptArbitrary = fc.integer({ min: 1, max: 3 });
/** Mostly the list that the task is of. */
const listOf = (taskId: string, foreign: boolean) => (foreign ? "l9" : `l${taskId.slice(1)}`);
const outcomeArbitrary = fc
  .record({
    id: fc.constantFrom(...taskIds),
    attempt: attemptArbitrary,
    error: fc.constantFrom(...errors),
    foreign: fc.boolean(),
  })
  .map(({ id, attempt, error, foreign }) => ({
    ...outcome(error, attempt),
    task_id: id,
    list_id: listOf(id, foreign && attempt === 3),
  }));
const stateArbitrary: fc.Arbitrary<IndexerState> = fc
  .record({
    build: fc.option(
      fc.record({ id: fc.constantFrom(...taskIds), attempt: attemptArbitrary, foreign: fc.nat(9) }),
    ),
    draining: fc.nat(4),
    outcomes: fc.array(outcomeArbitrary, { maxLength: 2 }),
    done: fc.option(fc.nat(2)),
  })
  .map(({ build, draining, outcomes, done }) => {
    const progress =
      done === null ? null : { phase: "build" as const, done, total: 2, rate_per_s: null, eta_s: null };
    const state = build
      ? building(build.id, build.attempt, { list_id: listOf(build.id, build.foreign === 0), progress })
      : idle();
    return { ...state, outcomes, ...(draining === 0 ? { state: "draining" as const } : {}) };
  });

const indexersArbitrary: fc.Arbitrary<ObservedIndexer[]> = fc
  .record({
    states: fc.tuple(stateArbitrary, stateArbitrary, stateArbitrary),
    places: fc.array(
      fc.record({
        boot: fc.nat(boots.length - 1),
        answers: fc.constantFrom("yes", "yes", "yes", "late", "no"),
        known: fc.nat(5).map((n) => n > 0),
        avoid: fc.nat(5).map((n) => n === 0),
        bootKnown: fc.boolean(),
      }),
      { minLength: 1, maxLength: names.length },
    ),
  })
  .map(({ states, places }) =>
    places.map(({ boot, answers, known, avoid, bootKnown }, i) => {
      const change = { origin: names[i] ?? "", known, avoid };
      const bootId = bootKnown ? boots[boot] : undefined;
      if (answers === "late") return late({ ...change, bootId });
      if (answers === "no") return at(undefined, { ...change, bootId });
      return at({ ...(states[boot] as IndexerState), boot_id: boots[boot] ?? "" }, change);
    }),
  );

const worldArbitrary: fc.Arbitrary<Observed> = fc
  .record({
    indexers: indexersArbitrary,
    tasks: fc.tuple(
      ...taskIds.map((id) =>
        fc.record({
          id: fc.constant(id),
          status: fc.constantFrom("absent", "pending", "indexing", "indexing", "success", "error"),
          holder: fc.constantFrom(...names),
          attempt: attemptArbitrary,
          silent: fc.nat(6),
        }),
      ),
    ),
    order: fc.shuffledSubarray(taskIds, { minLength: taskIds.length }),
    sharedLabel: fc.boolean(),
    published: fc.subarray(taskIds),
    removed: fc.subarray(taskIds),
  })
  .map(({ indexers, tasks, order, sharedLabel, published, removed }) => {
    const records = tasks.flatMap(({ id, status, holder, attempt }) => {
      if (status === "absent") return [];
      const list_id = sharedLabel && id === "t2" ? "l1" : listOf(id, false);
      return [
        task({
          task_id: id,
          status: status as Task["status"],
          indexer: status === "pending" ? null : holder,
          attempt,
          content: { list_id },
        }),
      ];
    });
    const rank = (one: Task) => order.indexOf(one.task_id);
    return observed({
      indexers,
      indexing: records.filter(({ status }) => status === "indexing"),
      queue: records.filter(({ status }) => status === "pending").toSorted((a, b) => rank(a) - rank(b)),
      otherRecords: new Map(
        records.filter(({ status }) => status !== "indexing").map((one) => [one.task_id, one]),
      ),
      published: new Set(published),
      removed: new Set(removed),
      silentLookups: new Map(tasks.map(({ id, silent }) => [id, silent])),
    });
  });

type Dispatch = Extract<Action, { kind: "dispatch" }>;
const dispatchesOf = (actions: readonly Action[]) =>
  actions.filter((action): action is Dispatch => action.kind === "dispatch");
const bootOf = (world: Observed, origin: string) =>
  world.indexers.find((one) => one.origin === origin)?.bootId;
const buildsIt = (one: Task, state: IndexerState | undefined) =>
  state?.task_id === one.task_id && state.attempt === one.attempt && state.list_id === one.content.list_id;
const endedThere = (one: Task, state: IndexerState | undefined) =>
  state?.outcomes.some(
    (end) =>
      end.task_id === one.task_id && end.attempt === one.attempt && end.list_id === one.content.list_id,
  ) ?? false;

/** Holds in every world that can be observed. */
function always(check: (world: Observed, actions: Action[]) => void): void {
  fc.assert(
    fc.property(worldArbitrary, (world) => check(world, reconcile(world))),
    { numRuns: 2_000 },
  );
}

describe("reconcile, whatever is observed: dispatches", () => {
  it("I3: at most one for an indexer, whatever its names, and one for a label", () => {
    always((world, actions) => {
      const dispatched = dispatchesOf(actions);
      const takers = dispatched.map(({ origin }) => bootOf(world, origin));
      expect(new Set(takers).size).toBe(dispatched.length);
      const labels = dispatched.map((one) => one.task.content.list_id);
      expect(new Set(labels).size).toBe(dispatched.length);
      for (const running of world.indexing) expect(labels).not.toContain(running.content.list_id);
    });
  });

  it("I3: only to one that answers, is idle, known, not avoided and waited for by no task, under all its names", () => {
    always((world, actions) => {
      for (const { origin } of dispatchesOf(actions)) {
        const taker = world.indexers.find((one) => one.origin === origin);
        expect(taker).toMatchObject({ known: true, avoid: false, late: false, state: { state: "idle" } });
        const same = world.indexers.filter((one) => one.bootId === taker?.bootId);
        expect(same.some((one) => one.late || one.avoid)).toBe(false);
        const waited = world.indexing.filter((one) => same.some((name) => name.origin === one.indexer));
        for (const one of waited) expect(endedThere(one, taker?.state)).toBe(true);
      }
    });
  });

  it("serves the queue in its order and leaves no free indexer without work", () => {
    always((world, actions) => {
      const dispatched = dispatchesOf(actions);
      const running = new Set(world.indexing.map((one) => one.content.list_id));
      const servable = world.queue.filter(
        ({ task_id, content: { list_id } }) =>
          !running.has(list_id) &&
          world.queue.find((one) => one.content.list_id === list_id)?.task_id === task_id,
      );
      expect(dispatched.map((one) => one.task)).toEqual(servable.slice(0, dispatched.length));
      if (world.indexing.length > 0 || dispatched.length === servable.length) return;
      const boots = new Map(world.indexers.map((one) => [one.bootId, true]));
      for (const one of world.indexers) if (one.late || one.avoid) boots.set(one.bootId, false);
      const free = world.indexers.filter(
        (one) => one.state?.state === "idle" && one.known && boots.get(one.bootId),
      );
      expect(dispatched.length).toBe(new Set(free.map((one) => one.bootId)).size);
    });
  });
});

describe("reconcile, whatever is observed: running tasks", () => {
  it("I4: at most one word for a task, and it names the current attempt", () => {
    always((world, actions) => {
      const words = actions.filter((action) => action.kind !== "stop");
      const ids = words.map((action) => (action.kind === "dispatch" ? action.task.task_id : action.taskId));
      expect(new Set(ids).size).toBe(ids.length);
      for (const action of words) {
        if (action.kind === "dispatch" || action.kind === "adopt") continue;
        const record = world.indexing.find((one) => one.task_id === action.taskId);
        expect(action.attempt).toBe(record?.attempt);
      }
    });
  });

  it("I2: a published index ends its task in success, once its indexer is neither late nor at it", () => {
    always((world, actions) => {
      for (const record of world.indexing) {
        const of = actions.find(
          (action) => "taskId" in action && action.taskId === record.task_id && action.kind !== "stop",
        );
        if (world.published.has(record.task_id)) {
          if (of) expect(["finish", "progress"]).toContain(of.kind);
          if (of?.kind === "finish") expect(of.error).toBeNull();
          const holder = world.indexers.find((one) => one.origin === record.indexer);
          const followed = world.indexers.some((one) => buildsIt(record, one.state));
          if (!followed && !holder?.late) expect(of?.kind).toBe("finish");
        } else if (of?.kind === "finish") expect(of.error).not.toBeNull();
      }
    });
  });

  it("leaves the tasks of a late indexer alone unless it speaks under another name", () => {
    always((world, actions) => {
      for (const record of world.indexing) {
        if (!world.indexers.find((one) => one.origin === record.indexer)?.late) continue;
        if (world.indexers.some(({ state }) => buildsIt(record, state) || endedThere(record, state)))
          continue;
        const words = actions.filter(
          (action) => "taskId" in action && action.taskId === record.task_id && action.kind !== "stop",
        );
        expect(words).toEqual([]);
      }
    });
  });

  it("a build that its indexer reports is neither stopped nor given up", () => {
    always((world, actions) => {
      for (const record of world.indexing) {
        const holder = world.indexers.find((one) => one.origin === record.indexer);
        if (!buildsIt(record, holder?.state)) continue;
        for (const action of actions) {
          if (!("taskId" in action) || action.taskId !== record.task_id) continue;
          expect(["progress", "stop"]).toContain(action.kind);
          if (action.kind !== "stop" || action.attempt !== record.attempt) continue;
          expect(bootOf(world, action.origin)).not.toBe(holder?.bootId);
        }
      }
    });
  });
});

describe("reconcile, whatever is observed: builds that indexers report", () => {
  it("nothing is both stopped and adopted, and nothing is adopted or stopped twice", () => {
    always((world, actions) => {
      const judged = actions.flatMap((action) =>
        action.kind === "stop" || action.kind === "adopt"
          ? [`${action.taskId}/${action.attempt}@${bootOf(world, action.origin)}`]
          : [],
      );
      expect(new Set(judged).size).toBe(judged.length);
    });
  });

  it("I9: each is followed, adopted or stopped, or its recorded indexer does not answer", () => {
    always((world, actions) => {
      for (const { origin, state } of world.indexers) {
        if (!state || state.task_id === null) continue;
        const record = world.indexing.find((one) => one.task_id === state.task_id);
        const holder = world.indexers.find((one) => one.origin === record?.indexer);
        const followed =
          record !== undefined &&
          buildsIt(record, state) &&
          (record.indexer === origin || !holder?.state || holder.bootId === state.boot_id);
        const judged = actions.some(
          (action) =>
            (action.kind === "stop" || action.kind === "adopt") &&
            action.taskId === state.task_id &&
            action.attempt === state.attempt &&
            bootOf(world, action.origin) === state.boot_id,
        );
        expect(judged).toBe(!followed);
      }
    });
  });

  it("once carried out, nothing is said again but stops that were not obeyed", () => {
    always((world, actions) => {
      const again = reconcile(carriedOut(world, actions)).filter(
        (action) => action.kind !== "stop" && action.kind !== "dispatch",
      );
      expect(again).toEqual([]);
      const repeated = dispatchesOf(reconcile(carriedOut(world, actions))).map((one) => one.task.task_id);
      for (const { task: one } of dispatchesOf(actions)) expect(repeated).not.toContain(one.task_id);
    });
  });
});

/** The world after the actions: records as the store keeps them, dispatched builds taken, stops not obeyed yet. */
function carriedOut(world: Observed, actions: readonly Action[]): Observed {
  const indexing = new Map(world.indexing.map((one) => [one.task_id, one]));
  const otherRecords = new Map(world.otherRecords);
  let { indexers, queue } = world;
  for (const action of actions) {
    if (action.kind === "stop") continue;
    if (action.kind === "dispatch") {
      const { task_id, content, attempt } = action.task;
      const taken = {
        ...action.task,
        status: "indexing" as const,
        indexer: action.origin,
        attempt: attempt + 1,
      };
      queue = queue.filter((one) => one.task_id !== task_id);
      otherRecords.delete(task_id);
      indexing.set(task_id, taken);
      const boot_id = bootOf(world, action.origin) ?? "";
      const state = building(task_id, attempt + 1, { list_id: content.list_id, boot_id });
      indexers = indexers.map((one) => (one.state && one.bootId === boot_id ? { ...one, state } : one));
      continue;
    }
    const { taskId, attempt } = action;
    const record = indexing.get(taskId);
    if (action.kind === "adopt")
      indexing.set(
        taskId,
        task({ task_id: taskId, attempt, indexer: action.origin, content: { list_id: action.listId } }),
      );
    if (!record) continue;
    if (action.kind === "progress") indexing.set(taskId, { ...record, progress: action.progress });
    else {
      indexing.delete(taskId);
      otherRecords.set(taskId, { ...record, status: action.kind === "requeue" ? "pending" : "success" });
    }
  }
  // Progress of what was adopted is news, not a repetition.
  const adopted = new Set(actions.flatMap((action) => (action.kind === "adopt" ? [action.taskId] : [])));
  const told = [...indexing.values()].map((one) => ({
    ...one,
    progress: adopted.has(one.task_id)
      ? (indexers.find(({ origin }) => origin === one.indexer)?.state?.progress ?? null)
      : one.progress,
  }));
  return { ...world, indexers, queue, otherRecords, indexing: told, silentLookups: new Map() };
}
