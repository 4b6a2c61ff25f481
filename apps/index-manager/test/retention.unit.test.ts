import type { IndexMeta } from "@lim/contracts";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chooseRemovals } from "../src/retention-choices.ts";

const indexArbitrary = fc.record({
  label: fc.constantFrom("a", "b", "c"),
  version: fc.constantFrom(1, 2),
});

describe("chooseRemovals", () => {
  it("keeps the newest of each label and version, everything of labels with an open task, nothing of deleted lists", () => {
    fc.assert(
      fc.property(
        fc.array(indexArbitrary, { maxLength: 20 }),
        fc.integer({ min: 1, max: 4 }),
        fc.subarray(["a", "b", "c"]),
        fc.subarray(["a", "b", "c"]),
        (drawn, keepVersions, open, deleted) => {
          const indexes = drawn
            .map(({ label, version }, i) => ({
              indexId: `${i}`,
              label,
              meta: { descriptor_version: version } as IndexMeta,
            }))
            .toSorted((a, b) => a.label.localeCompare(b.label));
          const removed = new Set(
            chooseRemovals({
              indexes,
              keepVersions,
              lists: new Map(),
              openLabels: new Set(open),
              deletedLabels: new Set(deleted),
            }).map((removal) => removal.indexId),
          );
          const kept = (label: string, version: number) =>
            indexes
              .filter((one) => one.label === label && one.meta.descriptor_version === version)
              .map((one, age) => ({ age, kept: !removed.has(one.indexId) }));
          for (const label of ["a", "b", "c"])
            for (const version of [1, 2])
              for (const { age, kept: isKept } of kept(label, version))
                expect(isKept).toBe(open.includes(label) || (!deleted.includes(label) && age < keepVersions));
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
