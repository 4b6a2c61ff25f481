import type { IndexerState } from "@lim/contracts";
import { LimError } from "@lim/contracts";
import { describe, expect, it } from "vitest";
import { countSilence, lostAfterSilentLookups, type Observed, reconcile } from "../src/reconcile.ts";
import {
  at,
  building,
  idle,
  late,
  observed,
  origin,
  origins,
  outcome,
  pending,
  task,
  time,
} from "./reconcile-cases.ts";

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
      {
        kind: "finish",
        taskId: "t1",
        attempt: 1,
        error: null,
        endTime: "2026-11-21T10:05:00.000Z",
        skipped: null,
      },
    ]);
    expect(reconcile(observed(done))).toMatchObject([{ kind: "requeue", attempt: 1, cause: "lost" }]);
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
        skipped: { wrong_length: 1, not_finite: 2, zero_norm: 3 },
      },
    ]);
    expect(withError(new LimError("postgres_unavailable", "away"))).toMatchObject([
      { kind: "requeue", cause: "failed" },
    ]);
    const cancelled = new LimError("build_cancelled", "stopped");
    expect(withError(cancelled)).toMatchObject([{ kind: "finish" }]);
    expect(withError(cancelled, { state: "draining" })).toMatchObject([
      { kind: "requeue", cause: "handed back" },
    ]);
    expect(withError(fatal, { state: "draining" })).toMatchObject([{ kind: "finish" }]);
  });

  it("I4: outcomes and builds of other attempts decide nothing", () => {
    const stale = at(idle({ outcomes: [outcome(new LimError("empty_list", ""), 1)] }));
    expect(reconcile(observed({ indexers: [stale], indexing: [task({ attempt: 2 })] }))).toEqual([]);
    const old = at(building("t1", 1));
    expect(reconcile(observed({ indexers: [old], indexing: [task({ attempt: 2 })] }))).toEqual([
      { kind: "stop", taskId: "t1", attempt: 1, origin, why: expect.stringContaining("attempt") },
    ]);
  });

  it("a failure that is claimed of a published index is a success: the storage has the last word", () => {
    const claimed = at(idle({ outcomes: [outcome(new LimError("build_crashed", ""))] }));
    const actions = reconcile(
      observed({ indexers: [claimed], indexing: [task()], published: new Set(["t1"]) }),
    );
    expect(actions).toMatchObject([{ kind: "finish", error: null }]);
  });

  it("a build and an outcome of another list under the task's id are not the task's", () => {
    const foreign = building("t1", 1, { list_id: "l9" });
    const actions = reconcile(
      observed({
        indexers: [at(foreign)],
        indexing: [task()],
        silentLookups: new Map([["t1", lostAfterSilentLookups.indexerAnswers]]),
      }),
    );
    expect(actions).toMatchObject([
      { kind: "requeue", taskId: "t1" },
      { kind: "stop", taskId: "t1", attempt: 1, why: expect.stringContaining("another list") },
    ]);
    const over = { ...outcome(new LimError("empty_list", "")), list_id: "l9" };
    expect(reconcile(observed({ indexers: [at(idle({ outcomes: [over] }))], indexing: [task()] }))).toEqual(
      [],
    );
  });

  it("a restarted indexer at the same origin, or one with another task, has lost the build", () => {
    const silentLookups = new Map([["t1", lostAfterSilentLookups.indexerAnswers]]);
    expect(reconcile(observed({ indexers: [at(idle())], indexing: [task()], silentLookups }))).toMatchObject([
      { kind: "requeue", taskId: "t1", cause: "lost" },
    ]);
    const other = building("t9", 1, { list_id: "l9" });
    expect(reconcile(observed({ indexers: [at(other)], indexing: [task()], silentLookups }))).toMatchObject([
      { kind: "requeue", taskId: "t1" },
      { kind: "adopt", taskId: "t9" },
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

  it("leaves the tasks of a late indexer alone, however long it was silent before", () => {
    const silentLookups = new Map([["t1", 99]]);
    expect(reconcile(observed({ indexers: [late()], indexing: [task()], silentLookups }))).toEqual([]);
  });

  it("counts no silence of one that is late or was not asked, and forgets it at the first word", () => {
    const count = (indexers: Observed["indexers"], before = 2) =>
      countSilence(new Map([["t1/1", before]]), [task()], indexers).get("t1/1");
    expect(count([late()])).toBe(2);
    expect(count([])).toBe(2);
    expect(count([at(undefined)])).toBe(3);
    expect(count([at(idle())])).toBe(3);
    expect(count([at(building("t1", 1))])).toBeUndefined();
    expect(count([at(idle({ outcomes: [outcome(null)] }))])).toBeUndefined();
    expect(count([at(building("t1", 2))])).toBe(3);
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
    const stop = [{ kind: "stop", taskId: "t1", attempt: 2, origin, why: expect.any(String) }];
    expect(reconcile(observed({ indexers, removed: new Set(["t1"]) }))).toEqual(stop);
    const over = new Map([["t1", task({ status: "success" })]]);
    expect(reconcile(observed({ indexers, otherRecords: over }))).toEqual(stop);
  });

  it("adopts the later of two attempts and stops the other", () => {
    const rivals = [at(building("t1", 1)), at(building("t1", 2), { origin: "http://b:2" })];
    for (const indexers of [rivals, rivals.toReversed()]) {
      const actions = reconcile(observed({ indexers }));
      expect(actions).toHaveLength(2);
      expect(actions).toContainEqual(expect.objectContaining({ kind: "stop", attempt: 1, origin }));
      expect(actions).toContainEqual(expect.objectContaining({ kind: "adopt", attempt: 2 }));
    }
  });
});

describe("reconcile: one indexer under two names", () => {
  const alias = "http://alias:1";

  it("I3: its build is neither stopped nor adopted by the other name", () => {
    const state = building("t1", 1);
    const both = [at(state), at(state, { origin: alias })];
    expect(reconcile(observed({ indexers: both, indexing: [task()] }))).toEqual([]);
    expect(reconcile(observed({ indexers: both, indexing: [task({ indexer: alias })] }))).toEqual([]);
    expect(reconcile(observed({ indexers: both }))).toMatchObject([{ kind: "adopt", taskId: "t1" }]);
    const removed = observed({ indexers: both, removed: new Set(["t1"]) });
    expect(reconcile(removed)).toMatchObject([{ kind: "stop", taskId: "t1" }]);
  });

  it("speaks for its task by the other name where the recorded one does not answer", () => {
    const progress = { phase: "build" as const, done: 5, total: 10, rate_per_s: null, eta_s: null };
    const silentLookups = new Map([["t1", 99]]);
    for (const recorded of [at(undefined), late()]) {
      const indexers = [recorded, at(building("t1", 1, { progress }), { origin: alias })];
      expect(reconcile(observed({ indexers, indexing: [task()], silentLookups }))).toMatchObject([
        { kind: "progress", taskId: "t1" },
      ]);
      expect(countSilence(new Map(), [task()], indexers).size).toBe(0);
    }
  });

  it("I3: gets no other build by the other name while one name is late, avoided or has a task", () => {
    const state = idle();
    const other = at(state, { origin: alias });
    const { boot_id: bootId } = state;
    for (const one of [late({ bootId }), at(state, { avoid: true })])
      expect(reconcile(observed({ indexers: [one, other], queue: [pending] }))).toEqual([]);
    const holds = observed({ indexers: [late({ bootId }), other], indexing: [task()], queue: [pending] });
    expect(reconcile(holds)).toEqual([]);
  });

  it("stops a second indexer at the same attempt only where the first one answers", () => {
    const rival = at(building("t1", 1), { origin: alias });
    const answers = observed({ indexers: [at(building("t1", 1)), rival], indexing: [task()] });
    expect(reconcile(answers)).toMatchObject([{ kind: "stop", origin: alias }]);
    expect(reconcile(observed({ indexers: [at(undefined), rival], indexing: [task()] }))).toEqual([]);
  });
});

describe("reconcile: dispatch", () => {
  it("first come, first served, to free indexers only", () => {
    const third = { ...pending, task_id: "t3", content: { list_id: "l3" } };
    const indexers = [
      at(building("t1", 1)),
      at(idle(), { origin: "http://b:2" }),
      at(idle(), { origin: "http://c:3", avoid: true }),
      at(idle({ state: "draining" }), { origin: "http://d:4" }),
      at(idle(), { origin: "http://e:5", known: false }),
      at(undefined, { origin: "http://f:6" }),
      late({ origin: "http://g:7" }),
    ];
    expect(reconcile(observed({ indexers, indexing: [task()], queue: [pending, third] }))).toEqual([
      { kind: "dispatch", task: pending, origin: "http://b:2" },
    ]);
  });

  it("I3: one build for an indexer that is known under two names", () => {
    const state = idle();
    const indexers = [at(state), at(state, { origin: "http://alias:1" })];
    const queue = [pending, { ...pending, task_id: "t3", content: { list_id: "l3" } }];
    expect(reconcile(observed({ indexers, queue }))).toHaveLength(1);
  });

  it("I3: one for a label, and none for a label that has a running task", () => {
    const indexers = origins.slice(1).map((name) => at(idle(), { origin: name }));
    const twin = { ...pending, task_id: "t3" };
    expect(reconcile(observed({ indexers, queue: [pending, twin] }))).toMatchObject([
      { kind: "dispatch", task: { task_id: "t2" } },
    ]);
    const running = [task({ content: pending.content })];
    expect(reconcile(observed({ indexers, indexing: running, queue: [pending] }))).toEqual([]);
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
