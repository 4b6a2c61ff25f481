import type { ListState } from "@lim/faces-db";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { explain } from "../src/explain.ts";
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
        .record({
          revision,
          historyId: fc.constantFrom("h1", "h2"),
          sameBuildSettings: fc.boolean(),
          count: fc.nat(6),
          removedSinceRebuild: fc.nat(4),
        })
        .map((change) => index(change)),
    ),
    otherVersions: fc.subarray(ids),
    pending: fc.dictionary(fc.constantFrom(...ids), fc.nat(4)),
    open: fc.subarray(ids),
    building: fc.subarray(ids),
    rules: fc.record({
      rebuildDefault: fc.boolean(),
      maxRemovalForRebuild: fc.nat(3),
      maxRemovalRatio: fc.option(fc.double({ min: 0.01, max: 1, noNaN: true }), { nil: undefined }),
    }),
  })
  .map(({ explicit, lists, newest, otherVersions, pending, open, building, ...rest }) =>
    state({
      ...rest,
      wantedListIds: explicit,
      lists,
      newest: new Map(Object.entries(newest)),
      indexedLabels: new Set([...Object.keys(newest), ...otherVersions]),
      pendingRemovals: new Map(Object.entries(pending)),
      openTasks: new Map(open.map((id) => [id, `task-${id}`])),
      building: new Map(building.map((id) => [id, `build-${id}`])),
    }),
  );

/** What must be decided for one list, written down rule by rule and without the code under test. */
function oracle(given: PlanState, listId: string): string {
  const known = given.lists.find((one) => one.listId === listId);
  if (!known) return "skip list gone";
  if (given.openTasks.has(listId) || given.building.has(listId)) return "skip open task";
  const wantsAnySize = given.wantedListIds !== undefined;
  if (known.faceCount === 0 || (!wantsAnySize && known.faceCount < given.minFaces)) return "skip too small";
  const newest = given.newest.get(listId);
  if (!newest)
    return given.indexedLabels.has(listId) ? "rebuild other descriptor version" : "rebuild missing";
  if (newest.historyId !== known.historyId) return "rebuild history differs";
  if (newest.revision > known.revision) return "rebuild ahead of its list";
  if (newest.revision + 1 < known.oldestKeptRevision) return "rebuild feed compacted";
  if (newest.revision === known.revision) return "skip unchanged";
  const { rebuildDefault, maxRemovalForRebuild: most, maxRemovalRatio: ratio } = given.rules;
  const removed = newest.removedSinceRebuild + (given.pendingRemovals.get(listId) ?? 0);
  const isTooMany = most !== 0 && removed > most;
  const isTooLarge = ratio !== undefined && removed > ratio * (newest.count + newest.removedSinceRebuild);
  const rebuilds = rebuildDefault || !newest.sameBuildSettings || isTooMany || isTooLarge;
  return `${rebuilds ? "rebuild" : "update"} stale`;
}
const asText = (decision: PlanDecision) =>
  `${decision.action === "create" ? decision.mode : "skip"} ${decision.reason}`;
const isRebuild = (decision: PlanDecision) => decision.action === "create" && decision.mode === "rebuild";
const listIdsOf = (given: PlanState) =>
  (given.wantedListIds ?? given.lists.map((one) => one.listId)).toSorted();

describe("buildPlan, any state", () => {
  it("I1 I3: decides for every list considered, once, in order, what the rules say", () => {
    fc.assert(
      fc.property(stateArbitrary, (given) => {
        const plan = buildPlan(given);
        expect(plan.map((decision) => decision.listId)).toEqual(listIdsOf(given));
        expect(plan.map(asText)).toEqual(listIdsOf(given).map((listId) => oracle(given, listId)));
      }),
      { numRuns: 2_000 },
    );
  });

  it("I3: never creates beside an open task or a running build, and names the one that is there", () => {
    fc.assert(
      fc.property(stateArbitrary, (given) => {
        for (const decision of buildPlan(given)) {
          const open = given.openTasks.get(decision.listId) ?? given.building.get(decision.listId);
          if (open === undefined || decision.reason === "list gone") continue;
          expect(decision).toMatchObject({ action: "skip", reason: "open task", taskId: open });
        }
      }),
    );
  });

  it("is the same in any order of lists and wishes, and creates nothing again once its tasks are open", () => {
    fc.assert(
      fc.property(stateArbitrary, (given) => {
        const plan = buildPlan(given);
        const twice = given.wantedListIds && [...given.wantedListIds, ...given.wantedListIds].toReversed();
        expect(buildPlan({ ...given, lists: given.lists.toReversed(), wantedListIds: twice })).toEqual(plan);
        const opened = new Map(given.openTasks);
        for (const decision of plan) if (decision.action === "create") opened.set(decision.listId, "new");
        const next = buildPlan({ ...given, openTasks: opened });
        expect(next.some(({ action }) => action === "create")).toBe(false);
      }),
    );
  });

  it("raising a limit of removals never turns an update into a rebuild; 0 by number means never", () => {
    fc.assert(
      fc.property(
        stateArbitrary,
        fc.nat(6),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (given, by, byShare) => {
          const { maxRemovalForRebuild: most, maxRemovalRatio: ratio } = given.rules;
          const relaxed = buildPlan({
            ...given,
            rules: {
              ...given.rules,
              maxRemovalForRebuild: most === 0 ? 0 : most + by,
              maxRemovalRatio: ratio === undefined ? undefined : ratio + byShare,
            },
          });
          const off = buildPlan({
            ...given,
            rules: { ...given.rules, maxRemovalForRebuild: 0, maxRemovalRatio: undefined },
          });
          for (const [i, decision] of buildPlan(given).entries()) {
            if (isRebuild(decision)) continue;
            expect(isRebuild(relaxed[i] as PlanDecision)).toBe(false);
            expect(isRebuild(off[i] as PlanDecision)).toBe(false);
          }
          for (const decision of off)
            expect(JSON.stringify(decision)).not.toMatch(/too many removals|too large a share/);
        },
      ),
    );
  });

  it("explains each decision with a sentence of its own numbers", () => {
    fc.assert(
      fc.property(stateArbitrary, (given) => {
        for (const decision of buildPlan(given)) {
          const text = explain(decision);
          expect(text).toMatch(/^[a-z].*[a-z0-9)]$/i);
          expect(text).not.toMatch(/unknown|undefined|null|NaN|Infinity/);
        }
      }),
    );
  });
});

describe("explain", () => {
  const explained = (change: Partial<PlanState>) => explain(buildPlan(state(change))[0] as PlanDecision);
  const removing = (rules: Partial<PlanState["rules"]>, absorbed: number, pending: number) => ({
    ...withIndex({ count: 20_000 - absorbed, removedSinceRebuild: absorbed }),
    pendingRemovals: new Map([["a", pending]]),
    rules: { rebuildDefault: false, maxRemovalForRebuild: 0, maxRemovalRatio: undefined, ...rules },
  });
  const at90 = "the newest index, i, is at revision 90, 10 changes behind the list; ";
  it.each<[Partial<PlanState>, string]>([
    [
      removing({ maxRemovalRatio: 0.1 }, 3_000, 200),
      `${at90}3,200 of 20,000 faces were removed since the last full build (16 %), above max_removal_ratio 0.1`,
    ],
    [
      removing({ maxRemovalForRebuild: 1_000 }, 1_000, 1),
      `${at90}1,001 of 20,000 faces were removed since the last full build (5 %), above max_removal_for_rebuild 1,000`,
    ],
    [
      removing({ maxRemovalForRebuild: 1_000 }, 0, 1),
      `${at90}1 of 20,000 faces was removed since the last full build (0.005 %), within the limits of an update`,
    ],
    [removing({}, 3_000, 200), `${at90}rebuild_rules.default asks for an update`],
    [removing({ rebuildDefault: true }, 0, 0), `${at90}rebuild_rules.default asks for a rebuild`],
    [
      withIndex({ sameBuildSettings: false }),
      `${at90}its engine, parameters or dimension are not those of new indexes`,
    ],
    [{ newest: new Map(), indexedLabels: new Set() }, "it has 1,000 faces and no index"],
    [{ lists: [list({ faceCount: 499 })] }, "it has 499 faces, fewer than min_indexing_list_size 500"],
    [{ wantedListIds: ["a"], lists: [list({ faceCount: 0 })] }, "it has no face"],
    [{ wantedListIds: ["a"], lists: [] }, "there is no list of this id"],
    [withIndex({ revision: 100 }), "the newest index, i, is at revision 100, as is the list"],
    [
      withIndex({ revision: 48 }),
      "the newest index, i, is at revision 48, but the list's changes are kept from 50 on",
    ],
    [{ openTasks: new Map([["a", "t"]]) }, "task t is open for it"],
  ])("%#", (change, text) => {
    expect(explained(change)).toBe(text);
  });
});
