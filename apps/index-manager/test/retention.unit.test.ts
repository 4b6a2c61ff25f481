import type { IndexMeta } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chooseFeeds, chooseRemovals, labelsPastGrace, nextFeeds } from "../src/retention-choices.ts";

const labels = ["a", "b", "c"];
const indexArbitrary = fc.record({
  label: fc.constantFrom(...labels),
  version: fc.constantFrom(1, 2),
  history_id: fc.constantFrom("h1", "h2"),
  revision: fc.integer({ min: 0, max: 12 }),
});
type Drawn = typeof indexArbitrary extends fc.Arbitrary<infer T> ? T : never;

/** As the storage lists them: by label, newest first. */
const listed = (drawn: readonly Drawn[]) =>
  drawn
    .map(({ label, version, ...meta }, i) => ({
      indexId: `${i}`,
      label,
      meta: { descriptor_version: version, ...meta } as IndexMeta,
    }))
    .toSorted((a, b) => a.label.localeCompare(b.label) || b.meta.revision - a.meta.revision);

describe("chooseRemovals", () => {
  it("keeps the newest of each label and version, everything of labels with an open task, nothing of deleted lists", () => {
    fc.assert(
      fc.property(
        fc.array(indexArbitrary, { maxLength: 20 }),
        fc.integer({ min: 1, max: 4 }),
        fc.subarray(labels),
        fc.subarray(labels),
        (drawn, keepVersions, open, deleted) => {
          const indexes = listed(drawn);
          const removals = chooseRemovals({
            indexes,
            keepVersions,
            lists: new Map(),
            openLabels: new Set(open),
            deletedLabels: new Set(deleted),
          });
          const removed = new Map(removals.map((removal) => [removal.indexId, removal]));
          const kept = (label: string, version: number) =>
            indexes
              .filter((one) => one.label === label && one.meta.descriptor_version === version)
              .map(({ indexId }, age) => ({ age, removal: removed.get(indexId) }));
          for (const label of labels)
            for (const version of [1, 2])
              for (const { age, removal } of kept(label, version)) {
                const isKept = open.includes(label) || (!deleted.includes(label) && age < keepVersions);
                expect(removal === undefined).toBe(isKept);
                if (removal)
                  expect(removal.reason).toBe(deleted.includes(label) ? "list deleted" : "outdated");
              }
        },
      ),
    );
  });

  it("after a restore keeps what fits the list, however high the revisions of the old history are", () => {
    const index = (indexId: string, history_id: string, revision: number) => ({
      indexId,
      label: "a",
      meta: { descriptor_version: 1, history_id, revision } as IndexMeta,
    });
    const removed = (list: { historyId: string; revision: number }) =>
      chooseRemovals({
        indexes: [index("old2", "h0", 900), index("old1", "h0", 800), index("new", "h1", 5)],
        lists: new Map([["a", list]]),
        keepVersions: 2,
        openLabels: new Set(),
        deletedLabels: new Set(),
      }).map((removal) => removal.indexId);
    expect(removed({ historyId: "h1", revision: 5 })).toEqual(["old1"]);
    // The same history, but the database went back: what is ahead of the list goes first.
    expect(removed({ historyId: "h0", revision: 850 })).toEqual(["new"]);
  });
});

describe("labelsPastGrace", () => {
  it("names labels that have been missing for the whole grace, and none that was not noted yet", () => {
    const since = new Map([
      ["long", 1_000],
      ["exactly", 5_000],
      ["short", 5_001],
      ["not noted", undefined],
    ]);
    expect([...labelsPastGrace(since, { graceMs: 5_000, nowMs: 10_000 })]).toEqual(["long", "exactly"]);
    expect(labelsPastGrace(since, { graceMs: 0, nowMs: 0 }).size, "a clock that went back").toBe(0);
  });
});

describe("chooseFeeds", () => {
  const listArbitrary = fc.record({
    revision: fc.integer({ min: 0, max: 12 }),
    oldest: fc.integer({ min: 0, max: 12 }),
    historyId: fc.constantFrom("h1", "h2"),
  });

  it("I1: leaves every row that a kept, fitting index of the served version, or its list, still needs", () => {
    fc.assert(
      fc.property(
        fc.array(indexArbitrary, { maxLength: 12 }),
        fc.tuple(listArbitrary, listArbitrary, listArbitrary),
        fc.integer({ min: 1, max: 3 }),
        fc.subarray(labels),
        (drawn, drawnLists, keepVersions, open) => {
          const indexes = listed(drawn);
          const lists = drawnLists.map(({ oldest, ...list }, i) => ({
            ...list,
            listId: labels[i] as string,
            oldestKeptRevision: Math.min(oldest, list.revision),
          }));
          const openLabels = new Set(open);
          const cuts = chooseFeeds({ lists, indexes, descriptorVersion: 1, keepVersions, openLabels });
          const kept = new Set(
            chooseRemovals({
              indexes: indexes.filter((index) => index.meta.descriptor_version === 1),
              keepVersions,
              lists: new Map(lists.map((list) => [list.listId, list])),
              openLabels: new Set(),
              deletedLabels: new Set(),
            }).map((removal) => removal.indexId),
          );
          for (const list of lists) {
            const upTo = cuts.find((cut) => cut.listId === list.listId)?.upToRevision ?? 0;
            if (open.includes(list.listId)) expect(upTo).toBe(0);
            if (upTo === 0) continue;
            expect(upTo).toBeLessThan(list.revision);
            expect(upTo).toBeGreaterThanOrEqual(list.oldestKeptRevision);
            for (const { label, indexId, meta } of indexes) {
              const serves =
                label === list.listId &&
                meta.descriptor_version === 1 &&
                meta.history_id === list.historyId &&
                meta.revision <= list.revision;
              if (serves && !kept.has(indexId)) expect(meta.revision).toBeGreaterThanOrEqual(upTo);
            }
          }
        },
      ),
    );
  });

  const feedOf = (drawn: Drawn[], keepVersions = 2) =>
    chooseFeeds({
      lists: [{ listId: "a", historyId: "h1", revision: 100, oldestKeptRevision: 0 }],
      indexes: listed(drawn),
      descriptorVersion: 1,
      keepVersions,
      openLabels: new Set(),
    });
  const index = (revision: number, change: Partial<Drawn> = {}): Drawn => ({
    label: "a",
    version: 1,
    history_id: "h1",
    revision,
    ...change,
  });

  it("cuts up to the oldest of the newest versions that are kept", () => {
    expect(feedOf([index(90), index(80), index(70)])).toEqual([{ listId: "a", upToRevision: 80 }]);
    expect(feedOf([index(90), index(80)], 1)).toEqual([{ listId: "a", upToRevision: 90 }]);
  });
  it("cuts a list without any index, or with useless ones, by age alone; its newest row stays", () => {
    expect(feedOf([])).toEqual([{ listId: "a", upToRevision: 99 }]);
    expect(feedOf([index(50, { version: 2 }), index(60, { history_id: "h2" }), index(101)])).toEqual([
      { listId: "a", upToRevision: 99 },
    ]);
  });
  it("leaves a list out whose oldest index is at the beginning", () => {
    expect(feedOf([index(0), index(90)])).toEqual([]);
  });
});

describe("nextFeeds", () => {
  it("brings every list in turn, a bounded number at a time", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(99)), fc.integer({ min: 1, max: 7 }), (ids, max) => {
        const cuts = ids
          .map((id) => ({ listId: String(id).padStart(2, "0"), upToRevision: 1 }))
          .toSorted((a, b) => (a.listId < b.listId ? -1 : 1));
        const seen = new Set<string>();
        let last: string | undefined;
        for (let run = 0; run < Math.ceil(cuts.length / max); run++) {
          const next = nextFeeds(cuts, last, max);
          expect(next.length).toBe(Math.min(max, cuts.length));
          for (const { listId } of next) seen.add(listId);
          last = next.at(-1)?.listId;
        }
        expect(seen.size).toBe(cuts.length);
      }),
    );
  });
  it("goes on where it was though that list is gone meanwhile", () => {
    const cuts = ["a", "c", "e"].map((listId) => ({ listId, upToRevision: 1 }));
    expect(nextFeeds(cuts, "b", 2).map((cut) => cut.listId)).toEqual(["c", "e"]);
    expect(nextFeeds(cuts, "x", 2).map((cut) => cut.listId)).toEqual(["a", "c"]);
  });
});
