import type { IndexMeta } from "@lim/contracts";
import { newestOf, type PublishedIndex } from "@lim/index-storage";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Candidate, chooseByPolicy } from "../src/api/index-policy.ts";

const labels = ["a", "b", "c"];
const histories = ["old", "new"];

const indexArb = fc.record({
  label: fc.constantFrom(...labels),
  version: fc.integer({ min: 1, max: 2 }),
  revision: fc.integer({ min: 0, max: 6 }),
  second: fc.integer({ min: 0, max: 3 }),
  history: fc.constantFrom(...histories),
});

function candidate(fields: typeof indexArb extends fc.Arbitrary<infer T> ? T : never, i: number): Candidate {
  const meta = {
    descriptor_version: fields.version,
    revision: fields.revision,
    create_time: new Date(fields.second * 1000).toISOString(),
    history_id: fields.history,
  };
  return { indexId: `${i}`.padStart(3, "0"), label: fields.label, meta: meta as unknown as IndexMeta };
}

function newestFirst(a: Candidate, b: Candidate): number {
  if (a.label !== b.label) return a.label < b.label ? -1 : 1;
  const byTime = Date.parse(b.meta.create_time) - Date.parse(a.meta.create_time);
  return b.meta.revision - a.meta.revision || byTime || (a.indexId < b.indexId ? 1 : -1);
}

const stateArb = fc.record({
  indexes: fc.array(indexArb, { maxLength: 25 }).map((fields) => fields.map(candidate).toSorted(newestFirst)),
  lists: fc
    .dictionary(
      fc.constantFrom(...labels),
      fc.record({ historyId: fc.constantFrom(...histories), revision: fc.integer({ min: 0, max: 6 }) }),
    )
    .map((lists) => new Map(Object.entries(lists))),
  busyLabels: fc.subarray(labels).map((busy) => new Set(busy)),
});

describe("removal of indexes by policy", () => {
  it("outdated never takes the newest of a list and descriptor version, neither of all nor of those that fit", () => {
    fc.assert(
      fc.property(stateArb, (state) => {
        const chosen = new Set(
          chooseByPolicy({ policy: "outdated", ...state }).map(({ indexId }) => indexId),
        );
        const listing = { indexes: state.indexes as PublishedIndex[], refused: [] };
        for (const label of labels)
          for (const version of [1, 2])
            for (const list of [undefined, state.lists.get(label)]) {
              const newest = newestOf(listing, label, version, list);
              if (newest) expect(chosen).not.toContain(newest.indexId);
            }
      }),
    );
  });

  it("outdated takes only what has a newer one of its list and descriptor version, and all but two of them", () => {
    fc.assert(
      fc.property(stateArb, (state) => {
        const chosen = chooseByPolicy({ policy: "outdated", ...state });
        const groupOf = ({ label, meta }: Candidate) => `${label}/${meta.descriptor_version}`;
        for (const index of chosen)
          expect(
            state.indexes.some((other) => groupOf(other) === groupOf(index) && newestFirst(other, index) < 0),
          ).toBe(true);
        const left = state.indexes.filter(
          (index) => !chosen.includes(index) && !state.busyLabels.has(index.label),
        );
        for (const group of Map.groupBy(left, groupOf).values()) expect(group.length).toBeLessThanOrEqual(2);
      }),
    );
  });

  it("neither policy touches a label whose task may be building from one of its indexes", () => {
    fc.assert(
      fc.property(stateArb, fc.constantFrom("all" as const, "outdated" as const), (state, policy) => {
        for (const { label } of chooseByPolicy({ policy, ...state }))
          expect(state.busyLabels).not.toContain(label);
      }),
    );
  });

  it("all takes everything else", () => {
    fc.assert(
      fc.property(stateArb, (state) => {
        const free = state.indexes.filter(({ label }) => !state.busyLabels.has(label));
        expect(chooseByPolicy({ policy: "all", ...state })).toEqual(free);
      }),
    );
  });

  it("a second removal has nothing left to take", () => {
    fc.assert(
      fc.property(stateArb, fc.constantFrom("all" as const, "outdated" as const), (state, policy) => {
        const chosen = chooseByPolicy({ policy, ...state });
        const indexes = state.indexes.filter((index) => !chosen.includes(index));
        expect(chooseByPolicy({ policy, ...state, indexes })).toEqual([]);
      }),
    );
  });

  it("after a restored backup keeps what is served beside what looks newest", () => {
    const at = (revision: number, second: number, history: string, i: number) =>
      candidate({ label: "a", version: 1, revision, second, history }, i);
    const lost = at(9, 3, "old", 1);
    const served = at(5, 2, "old", 2);
    const older = at(4, 1, "old", 3);
    const lists = new Map([["a", { historyId: "old", revision: 5 }]]);
    expect(
      chooseByPolicy({ policy: "outdated", indexes: [lost, served, older], lists, busyLabels: new Set() }),
    ).toEqual([older]);
  });
});
