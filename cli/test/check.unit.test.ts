import type { IndexMeta } from "@lim/contracts";
import { writeUuid } from "@lim/contracts";
import { expect, test } from "vitest";
import { BestOf } from "../src/check/best-of.ts";
import { indexIds } from "../src/check/ids.ts";
import {
  judgeGraph,
  judgeIds,
  judgeList,
  judgeRecall,
  judgeVectors,
  type ListFacts,
} from "../src/check/judges.ts";
import { checkLimits } from "../src/check/limits.ts";
import { exitCodeOf, type Finding, finding, type IndexCheck, summarise } from "../src/check/report.ts";
import { sampleOf } from "../src/check/sample.ts";
import { reportText } from "../src/check/text.ts";
import { passOver, unitRows } from "../src/check/vectors.ts";

const codes = (findings: readonly Finding[]) => findings.map(({ severity, code }) => `${severity} ${code}`);
const none = { count: 0, examples: [] };
const faceIdOf = (n: number) => `00000000-0000-4000-8000-${n.toString(16).padStart(12, "0")}`;
const meta = { label: faceIdOf(1), revision: 40 };

function list(changes: Partial<ListFacts> = {}): ListFacts {
  return {
    revision: 40,
    faces: 100,
    indexFaces: 100,
    feed: "same_revision",
    changed: 0,
    missing: none,
    phantom: none,
    compared: { count: 50, different: none, leastSimilarity: 1 },
    ...changes,
  };
}
const three = { count: 3, examples: [faceIdOf(7)] };

test("a list that equals its index is clean, one that differs has errors with numbers and a remedy", () => {
  expect(judgeList(meta, list(), true)).toEqual([]);
  const found = judgeList(
    meta,
    list({ missing: three, phantom: three, compared: { count: 50, different: three, leastSimilarity: 0.1 } }),
    true,
  );
  expect(codes(found)).toEqual(["error faces_missing", "error faces_phantom", "error vectors_differ"]);
  for (const one of found) {
    expect(one.numbers.faces).toBe(3);
    expect(one.examples).toEqual([faceIdOf(7)]);
    expect(one.remedy).not.toBe("");
  }
});

test("differences are errors only where the feed tells what changed meanwhile", () => {
  const behind = { revision: 60, missing: three, phantom: three };
  const judged = judgeList(meta, list({ ...behind, feed: "followed", changed: 12 }), true);
  expect(codes(judged)).toEqual([
    "info index_behind",
    "info faces_not_judged",
    "error faces_missing",
    "error faces_phantom",
  ]);
  for (const feed of ["compacted", "too_many", "other_history", "ahead_of_list", "list_deleted"] as const) {
    const found = judgeList(meta, list({ ...behind, feed }), true);
    expect(codes(found), feed).toContain("info differences_not_judged");
    expect(codes(found).join(), feed).not.toMatch(/missing|phantom/);
  }
});

test("an index off its list's line is an error where it is the newest, else a warning", () => {
  for (const [feed, code] of [
    ["other_history", "other_history"],
    ["ahead_of_list", "index_ahead"],
  ] as const) {
    expect(codes(judgeList(meta, list({ feed }), true))).toContain(`error ${code}`);
    expect(codes(judgeList(meta, list({ feed }), false))).toContain(`warning ${code}`);
  }
});

test("only the newest index is told to be behind", () => {
  const behind = { revision: 60, feed: "compacted" } as const;
  expect(codes(judgeList(meta, list(behind), true))).toContain("warning feed_gap");
  expect(codes(judgeList(meta, list(behind), false))).toEqual(["info differences_not_judged"]);
});

test("a list that is gone is a warning", () => {
  expect(codes(judgeList(meta, undefined, true))).toEqual(["warning list_gone"]);
});

test("ids are held against meta, and a repeated one is named", () => {
  const bytes = new Uint8Array(16 * 5);
  [1, 2, 0, 1, 3].forEach((n, at) => {
    if (n > 0) writeUuid(faceIdOf(n), bytes, at * 16);
  });
  const ids = indexIds(bytes);
  expect(ids).toMatchObject({ slots: 5, live: 4, duplicates: { count: 1, examples: [faceIdOf(1)] } });
  expect([...ids.positions]).toEqual([0, 1, 3, 4]);
  expect([...ids.repeats]).toEqual([0, 0, 0, 1, 0]);
  expect(ids.table.find(faceIdOf(1))).toBe(0);
  expect(codes(judgeIds({ count: 4, slots: 5 }, ids))).toEqual(["error ids_duplicate"]);
  expect(codes(judgeIds({ count: 5, slots: 5 }, { ...ids, duplicates: none }))).toEqual(["error ids_count"]);
  expect(judgeIds({ count: 4, slots: 5 }, { ...ids, duplicates: none })).toEqual([]);
});

test("unreachable vectors: a few are no finding, a share is a warning, a large share an error", () => {
  const graph = (unreachable: number, total: number) =>
    codes(
      judgeGraph(
        { reachable: total - unreachable, unreachable, links: 9, badLinks: 0, problems: [] },
        "hnsw",
      ),
    );
  expect(graph(0, 100)).toEqual([]);
  expect(graph(checkLimits.fewUnreachable, 20)).toEqual([]);
  expect(graph(20, 10_000)).toEqual([]);
  expect(graph(21, 10_000)).toEqual(["warning graph_unreachable"]);
  expect(graph(500, 10_000)).toEqual(["warning graph_unreachable"]);
  expect(graph(501, 10_000)).toEqual(["error graph_unreachable"]);
  expect(codes(judgeGraph(undefined, "hnswlib"))).toEqual(["info graph_not_told"]);
  const bad = { reachable: 9, unreachable: 0, links: 9, badLinks: 1, problems: ["slot 3"] };
  expect(judgeGraph(bad, "hnsw")).toMatchObject([{ code: "graph_broken", examples: ["slot 3"] }]);
});

test("recall may be as much below the published one as the bound, not more", () => {
  const published: Pick<IndexMeta, "recall"> = { recall: { k: 10, sampled: 0.99 } };
  expect(judgeRecall(published, { queries: 100, recall: 0.945 })).toEqual([]);
  expect(codes(judgeRecall(published, { queries: 100, recall: 0.935 }))).toEqual(["warning recall_dropped"]);
  expect(judgeRecall(published, { queries: 0, recall: 0 })).toEqual([]);
});

test("vectors that are not finite or not of norm 1 are counted and named", async () => {
  const dim = 4;
  const vectors = Float32Array.of(1, 0, 0, 0, 0, 1.0009, 0, 0, 0, 1.002, 0, 0, 0, Number.NaN, 0, 0);
  const infinite = Float32Array.of(Number.POSITIVE_INFINITY, 0, 0, 0);
  const all = Float32Array.of(...vectors, ...infinite);
  let read = 0;
  const { facts } = await passOver({
    index: {
      dim,
      read: async (positions) =>
        Float32Array.from([...positions].flatMap((at) => [...all.subarray(at * 4, at * 4 + 4)])),
    },
    positions: Uint32Array.of(0, 1, 2, 3, 4),
    textOf: (position) => `face ${position}`,
    queries: Float32Array.of(1, 0, 0, 0),
    signal: new AbortController().signal,
    onRead: (rows) => {
      read += rows;
    },
  });
  expect(read).toBe(5);
  expect(facts.notUnit).toMatchObject({ count: 1, examples: ["face 2"] });
  expect(facts.notFinite).toMatchObject({ count: 2, examples: ["face 3", "face 4"] });
  expect(facts.worstNormError).toBeCloseTo(0.002, 5);
  expect(codes(judgeVectors(facts, 1e-3))).toEqual(["error vectors_not_finite", "error vectors_not_unit"]);
  expect([...unitRows(all, dim)]).toEqual([...all.subarray(0, 8)]);
});

test("the best of a stream are those of a sort, and recall counts ties as right", () => {
  const dim = 3;
  const rows = 200;
  const values = Float32Array.from({ length: rows * dim }, (_, i) => Math.sin(i * 12.9898) * 0.5);
  const queries = values.slice(0, 2 * dim);
  const best = new BestOf(queries, dim, 10);
  for (let from = 0; from < rows; from += 64) {
    const positions = Uint32Array.from({ length: Math.min(64, rows - from) }, (_, i) => from + i);
    best.offer(positions, values.subarray(from * dim, (from + 64) * dim));
  }
  const dot = (query: number, row: number) =>
    [0, 1, 2].reduce((sum, d) => sum + (queries[query * dim + d] ?? 0) * (values[row * dim + d] ?? 0), 0);
  for (const query of [0, 1]) {
    const order = Array.from({ length: rows }, (_, row) => row).toSorted(
      (a, b) => dot(query, b) - dot(query, a),
    );
    expect(best.of(query)).toEqual(order.slice(0, 10));
    const answers = order.slice(0, 7).map((position) => ({ position, similarity: dot(query, position) }));
    expect(best.recallOf(query, answers)).toBeCloseTo(0.7);
    const tie = { position: 10_000, similarity: dot(query, order[9] ?? 0) };
    const worse = { position: 10_001, similarity: tie.similarity - 1e-3 };
    expect(best.recallOf(query, [...answers, tie, worse])).toBeCloseTo(0.8);
  }
  expect(new BestOf(queries, dim, 10).recallOf(0, [])).toBe(1);
});

test("a sample has distinct values in order, is the same for the same seed and all where it is larger", () => {
  const values = Uint32Array.from({ length: 1000 }, (_, i) => i * 3);
  const sample = sampleOf(values, 100, 5);
  expect(new Set(sample).size).toBe(100);
  expect([...sample]).toEqual([...sample].toSorted((a, b) => a - b));
  expect(sample.every((value) => value % 3 === 0 && value < 3000)).toBe(true);
  expect(sampleOf(values, 100, 5)).toEqual(sample);
  expect(sampleOf(values, 100, 6)).not.toEqual(sample);
  expect(sampleOf(values, 5000, 5)).toEqual(values);
  expect(sampleOf(new Uint32Array(), 5, 5)).toHaveLength(0);
});

test("exit codes: clean, errors, warnings when strict, not everything checked", () => {
  const code = (errors: number, warnings: number, failed = false, strict = false) =>
    exitCodeOf({ errors, warnings, failed }, strict);
  expect(code(0, 0)).toBe(0);
  expect(code(0, 2)).toBe(0);
  expect(code(0, 2, false, true)).toBe(1);
  expect(code(1, 0)).toBe(1);
  expect(code(1, 0, true)).toBe(3);
});

test("the text has a block for each index, what was not checked and why, remedies, and a line that sums up", () => {
  const part = { checked: true };
  const index: IndexCheck = {
    index_id: faceIdOf(5),
    label: faceIdOf(6),
    engine: "hnsw 0.1.0",
    count: 1200,
    revision: 9,
    create_time: null,
    newest: true,
    parts: {
      files: part,
      ids: part,
      vectors: part,
      graph: part,
      recall: part,
      list: { checked: false, reason: "--no-database" },
    },
    measured: { recall: 0.99612, unreachable: 0 },
    findings: [
      finding("error", "faces_missing", "3 faces are missing", { examples: ["a", "b"], remedy: "rebuild" }),
    ],
  };
  const text = reportText({
    report_version: 1,
    time: "2026-11-21T10:00:00.000Z",
    storage_root: "/indexes",
    seed: 77,
    sample: 100,
    database: false,
    indexes: [index],
    storage: [finding("info", "trash_left", "1 removed index would be collected")],
    summary: summarise([index], [], 1234),
    failure: { error_code: 26020, desc: "Postgres is not available", detail: "gone" },
    exit_code: 3,
  });
  expect(text.split("\n")).toEqual([
    `index ${faceIdOf(5)}`,
    `  list ${faceIdOf(6)}, 1,200 faces, revision 9, hnsw 0.1.0, newest`,
    "  checked: files, ids, vectors, graph, recall",
    "  not checked: list (--no-database)",
    "  measured: recall 0.9961, unreachable 0",
    "  ✗ error faces_missing: 3 faces are missing",
    "      such as a, b",
    "      remedy: rebuild",
    "",
    "storage",
    "  · info trash_left: 1 removed index would be collected",
    "",
    "1 index checked in 1.2 s: 0 clean, 1 error, 0 warnings",
    "sample 100, seed 77; lists were not compared (--no-database)",
    "could not go on: Postgres is not available: gone (26020)",
  ]);
});
