import type { Match } from "@lim/contracts";
import { beforeEach, expect, test } from "vitest";
import { type JudgedAnswer, ListTruth } from "./truth.ts";

const face = "018f6f2e-0000-4000-8000-00000000000a";
const other = "018f6f2e-0000-4000-8000-00000000000b";
const first = Float32Array.of(1, 0);
const second = Float32Array.of(0, 1);
let truth: ListTruth;

beforeEach(() => {
  truth = new ListTruth("list");
  truth.begin([{ faceId: face, kind: "linked", vector: first }]).committed(1);
});

const faults = (matches: Match[], rest: Partial<JudgedAnswer> = {}) =>
  truth.judge({ revision: truth.revision, indexId: null, matches, probe: undefined, floor: 0, ...rest });
const probe = { faceId: face, vector: first };

test("a right answer is right", () => {
  expect(faults([[face, 1]], { probe })).toEqual([]);
  expect(faults([])).toEqual([]);
});

test("I5: a face in an answer at or past its removal is told, one before it is not", () => {
  truth.begin([{ faceId: face, kind: "gone" }]).committed(4);
  expect(faults([[face, 1]])).toMatchObject([
    expect.stringMatching(/I5: face .*a is in the answer, .*gone by revision 4/),
  ]);
  expect(faults([[face, 1]], { revision: 3 })).toEqual([]);
  expect(faults([[other, 1]])).toMatchObject([expect.stringMatching(/never was in the list/)]);
});

test("I5: a linked face that is not found by its own vector is told, unless it may be gone already", () => {
  expect(faults([], { probe })).toMatchObject([expect.stringMatching(/I5: face .*a is not found/)]);
  expect(faults([], { probe, revision: 0 })).toEqual([]);
  const removal = truth.begin([{ faceId: face, kind: "gone" }]);
  expect(faults([], { probe })).toEqual([]);
  removal.undone();
  expect(faults([], { probe })).toHaveLength(1);
});

test("I5: a replaced descriptor that is still found by the old one is told", () => {
  truth.begin([{ faceId: face, kind: "linked", vector: second }]).committed(2);
  expect(faults([[face, 0.2]], { probe: { faceId: face, vector: second } })).toMatchObject([
    expect.stringMatching(/by an old descriptor/),
  ]);
  expect(faults([[face, 0.2]], { probe: { faceId: face, vector: second }, revision: 1 })).toEqual([]);
  expect(faults([[face, 0.2]], { probe })).toEqual([]);
});

test("changes under way may show in answers, those that never happened may not", () => {
  const change = truth.begin([{ faceId: other, kind: "linked", vector: second }]);
  expect(faults([[other, 1]])).toEqual([]);
  change.undone();
  expect(faults([[other, 1]])).toHaveLength(1);
  expect(truth.faceCount).toBe(1);
});

test("I12: an answer below what every matcher served already is told", () => {
  truth.begin([{ faceId: other, kind: "linked", vector: second }]).committed(5);
  expect(faults([], { revision: 3, floor: 4 })).toMatchObject([expect.stringMatching(/I12: revision 3/)]);
});

test("faces twice or out of order are told", () => {
  truth.begin([{ faceId: other, kind: "linked", vector: second }]).committed(2);
  expect(
    faults([
      [face, 0.5],
      [face, 0.5],
    ]),
  ).toHaveLength(1);
  expect(
    faults([
      [face, 0.5],
      [other, 0.6],
    ]),
  ).toHaveLength(1);
});

test("only faces that are linked for certain are offered, whatever came and went", () => {
  const ids = Array.from({ length: 20 }, (_, i) => `018f6f2e-0000-4000-8000-0000000001${i + 10}`);
  truth.begin(ids.map((faceId) => ({ faceId, kind: "linked" as const, vector: second }))).committed(21);
  const open = truth.begin(ids.slice(0, 5).map((faceId) => ({ faceId, kind: "gone" as const })));
  truth.begin(ids.slice(10, 15).map((faceId) => ({ faceId, kind: "gone" as const }))).committed(26);
  const offered = () => Array.from({ length: truth.faceCount }, (_, i) => truth.linkedAt(i)).toSorted();
  expect(offered()).toEqual([face, ...ids.slice(5, 10), ...ids.slice(15)].toSorted());
  open.undone();
  expect(offered()).toEqual([face, ...ids.slice(0, 10), ...ids.slice(15)].toSorted());
});
