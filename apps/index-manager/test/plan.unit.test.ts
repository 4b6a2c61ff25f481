import type { ListState } from "@lim/faces-db";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  buildPlan,
  listsWhoseRemovalsMatter,
  type NewestIndex,
  type PlanDecision,
  type PlanState,
} from "../src/plan.ts";

const list = (change: Partial<ListState> = {}): ListState => ({
  listId: "a",
  historyId: "h1",
  name: "a",
  revision: 100,
  faceCount: 1_000,
  removedTotal: 0,
  oldestKeptRevision: 50,
  ...change,
});
const index = (change: Partial<NewestIndex> = {}): NewestIndex => ({
  indexId: "i",
  historyId: "h1",
  revision: 90,
  count: 1_000,
  removedSinceRebuild: 0,
  sameBuildSettings: true,
  ...change,
});
const state = (change: Partial<PlanState> = {}): PlanState => ({
  wantedListIds: undefined,
  minFaces: 500,
  lists: [list()],
  newest: new Map([["a", index()]]),
  indexedLabels: new Set(["a"]),
  openTasks: new Map(),
  building: new Map(),
  pendingRemovals: new Map(),
  rules: { rebuildDefault: false, maxRemovalForRebuild: 0, maxRemovalRatio: undefined },
  ...change,
});
const only = (plan: PlanDecision[]) => {
  expect(plan).toHaveLength(1);
  const [decision] = plan;
  return decision?.action === "create" ? [decision.mode, decision.reason] : ["skip", decision?.reason];
};
const withIndex = (change: Partial<NewestIndex>) => ({ newest: new Map([["a", index(change)]]) });

describe("buildPlan", () => {
  it.each<[string, Partial<PlanState>, string, string]>([
    ["no index", { newest: new Map(), indexedLabels: new Set() }, "rebuild", "missing"],
    ["index of another version", { newest: new Map() }, "rebuild", "other descriptor version"],
    ["other history", withIndex({ historyId: "h0" }), "rebuild", "history differs"],
    [
      "other history, same revision",
      withIndex({ historyId: "h0", revision: 100 }),
      "rebuild",
      "history differs",
    ],
    ["ahead of a restored list", withIndex({ revision: 101 }), "rebuild", "ahead of its list"],
    ["compacted past it", withIndex({ revision: 48 }), "rebuild", "feed compacted"],
    ["compacted up to it", withIndex({ revision: 49 }), "update", "stale"],
    ["unchanged", withIndex({ revision: 100 }), "skip", "unchanged"],
    ["stale", {}, "update", "stale"],
    ["other parameters", withIndex({ sameBuildSettings: false }), "rebuild", "stale"],
    ["open task", { openTasks: new Map([["a", "t"]]) }, "skip", "open task"],
    ["reported build without a record", { building: new Map([["a", "t"]]) }, "skip", "open task"],
    ["too small", { lists: [list({ faceCount: 499 })] }, "skip", "too small"],
    ["small, but asked for", { wantedListIds: ["a"], lists: [list({ faceCount: 1 })] }, "update", "stale"],
    [
      "empty, though asked for",
      { wantedListIds: ["a"], lists: [list({ faceCount: 0 })] },
      "skip",
      "too small",
    ],
    ["gone", { wantedListIds: ["a"], lists: [] }, "skip", "list gone"],
  ])("%s", (_name, change, outcome, reason) => {
    expect(only(buildPlan(state(change)))).toEqual([outcome, reason]);
  });

  it.each([
    [{ rebuildDefault: true }, 0, 0, "rebuild"],
    [{}, 1_000, 1_000, "update"],
    [{ maxRemovalForRebuild: 10 }, 6, 4, "update"],
    [{ maxRemovalForRebuild: 10 }, 6, 5, "rebuild"],
    [{ maxRemovalRatio: 0.1 }, 50, 55, "update"],
    [{ maxRemovalRatio: 0.1 }, 50, 56, "rebuild"],
  ])("rules %j with %d removals absorbed and %d to come: %s", (rules, absorbed, pending, mode) => {
    const given = state({
      ...withIndex({ removedSinceRebuild: absorbed }),
      pendingRemovals: new Map([["a", pending]]),
      rules: { rebuildDefault: false, maxRemovalForRebuild: 0, maxRemovalRatio: undefined, ...rules },
    });
    expect(only(buildPlan(given))).toEqual([mode, "stale"]);
  });

  it("asks for removals only where a rule and an update need them", () => {
    const { pendingRemovals: _, ...known } = state();
    expect(listsWhoseRemovalsMatter(known)).toEqual([]);
    const ruled = { ...known, rules: { ...known.rules, maxRemovalForRebuild: 5 } };
    expect(listsWhoseRemovalsMatter(ruled)).toEqual([{ listId: "a", sinceRevision: 90, toRevision: 100 }]);
    expect(listsWhoseRemovalsMatter({ ...ruled, ...withIndex({ historyId: "h0" }) })).toEqual([]);
  });
});

const ids = ["a", "b", "c", "d"];
const revision = fc.integer({ min: 0, max: 12 });
const stateArbitrary: fc.Arbitrary<PlanState> = fc
  .record({
    explicit: fc.option(fc.subarray(ids), { nil: undefined }),
    minFaces: fc.integer({ min: 1, max: 5 }),
    lists: fc.subarray(ids).chain((present) =>
      fc.tuple(
        ...present.map((listId) =>
          fc
            .record({
              revision,
              oldest: revision,
              historyId: fc.constantFrom("h1", "h2"),
              faceCount: fc.nat(6),
            })
            .map(({ oldest, ...rest }) =>
              list({ ...rest, listId, oldestKeptRevision: Math.min(oldest, rest.revision) }),
            ),
        ),
      ),
    ),
    newest: fc.dictionary(
      fc.constantFrom(...ids),
      fc
        .record({ revision, historyId: fc.constantFrom("h1", "h2"), sameBuildSettings: fc.boolean() })
        .map((change) => index(change)),
    ),
    open: fc.subarray(ids),
    building: fc.subarray(ids),
    rules: fc.record({
      rebuildDefault: fc.boolean(),
      maxRemovalForRebuild: fc.nat(3),
      maxRemovalRatio: fc.option(fc.double({ min: 0.01, max: 1, noNaN: true }), { nil: undefined }),
    }),
  })
  .map(({ explicit, lists, newest, open, building, ...rest }) =>
    state({
      ...rest,
      wantedListIds: explicit,
      lists,
      newest: new Map(Object.entries(newest)),
      indexedLabels: new Set(Object.keys(newest)),
      openTasks: new Map(open.map((id) => [id, `task-${id}`])),
      building: new Map(building.map((id) => [id, `build-${id}`])),
    }),
  );

describe("buildPlan, any state", () => {
  it("I1 I3: skips a list only for a reason that holds, and never plans beside an open task or a running build", () => {
    fc.assert(
      fc.property(stateArbitrary, (given) => {
        const lists = new Map(given.lists.map((one) => [one.listId, one]));
        for (const decision of buildPlan(given)) {
          const { listId } = decision;
          const known = lists.get(listId);
          const newest = given.newest.get(listId);
          const busy = given.openTasks.has(listId) || given.building.has(listId);
          const current =
            newest !== undefined &&
            newest.revision === known?.revision &&
            newest.historyId === known.historyId;
          if (decision.action === "create") {
            expect(busy || current || known === undefined).toBe(false);
            if (decision.mode === "update") {
              expect(newest?.historyId).toBe(known?.historyId);
              expect(newest?.revision).toBeGreaterThanOrEqual((known?.oldestKeptRevision ?? 0) - 1);
              expect(newest?.revision).toBeLessThan(known?.revision ?? 0);
            }
          } else if (decision.reason === "unchanged") expect(current).toBe(true);
          else if (decision.reason === "open task") expect(busy).toBe(true);
          else if (decision.reason === "list gone") expect(known).toBeUndefined();
          else expect(known?.faceCount).toBeLessThan(given.wantedListIds ? 1 : given.minFaces);
        }
      }),
    );
  });

  it("decides once for every list considered, the same in any order, and nothing again once its tasks are open", () => {
    fc.assert(
      fc.property(stateArbitrary, (given) => {
        const plan = buildPlan(given);
        const considered = given.wantedListIds ?? given.lists.map((one) => one.listId);
        expect(plan.map((decision) => decision.listId)).toEqual([...considered].toSorted());
        expect(buildPlan({ ...given, lists: given.lists.toReversed() })).toEqual(plan);
        const opened = new Map(given.openTasks);
        for (const decision of plan) if (decision.action === "create") opened.set(decision.listId, "new");
        expect(buildPlan({ ...given, openTasks: opened }).some(({ action }) => action === "create")).toBe(
          false,
        );
      }),
    );
  });
});
