import type { Match } from "@lim/contracts";
import { loadRealDescriptors } from "@lim/testkit";
import { afterAll, expect, test } from "vitest";
import {
  facesOf,
  importFaces,
  managerCall,
  oracleOf,
  startTestStack,
  type TestStack,
  untilServed,
} from "./support.ts";

const real = await loadRealDescriptors();
const rankTolerance = 0.001;
const recallGoal = 0.98;
const batch = 100;

let stack: TestStack | undefined;
afterAll(() => stack?.stop());

const title = real
  ? `${real.count} real descriptors: rank-1 through the index equals rank-1 by exact search`
  : "real descriptors: skipped, LIM_TEST_DATA (default ./test-data) has no descriptors/lfw.f32";

test.skipIf(real === undefined)(title, async () => {
  if (real === undefined) return;
  const { dim } = real;
  const faces = facesOf("real", real.vectors, dim);
  const identityOf = new Map(faces.ids.map((faceId, row) => [faceId, real.identities[row]]));
  const imagesOf = Map.groupBy(faces.ids.keys(), (row) => real.identities[row]);
  // Every image of everyone with two or more: the nearest other face must be another image of the same person.
  const queries = [...imagesOf.values()].filter((rows) => rows.length > 1).flat();
  const people = [...imagesOf.values()].filter((rows) => rows.length > 1).length;

  stack = await startTestStack({ dim, minListSize: 1_000 });
  const label = await importFaces(stack.db, "real", faces, dim);
  await stack.start("indexer");
  await stack.start("indexed-matcher");
  const manager = await stack.start("index-manager");
  const plugin = await stack.plugin();
  await untilServed(plugin, label, 1);
  const indexes = await managerCall<{ indexes: { count: number }[] }>(manager, "GET", "/1/indexes");
  expect(indexes.body.indexes.map(({ count }) => count)).toEqual([real.count]);

  const oracle = oracleOf(faces, dim);
  const score = { index: 0, exact: 0, found: 0, wanted: 0 };
  for (let from = 0; from < queries.length; from += batch) {
    const rows = queries.slice(from, from + batch);
    const matrix = new Float32Array(rows.length * dim);
    for (const [i, row] of rows.entries()) matrix.set(faces.vectors[row] ?? [], i * dim);
    const truth = await oracle.search(matrix, { limit: 11 });
    const answers = await plugin.match({
      label,
      references: rows.map((row) => ({ descriptor: faces.vectors[row] ?? new Float32Array(0) })),
      limit: 11,
    });
    for (const [i, row] of rows.entries()) {
      const nearestOther = (matches: readonly Match[] = []) =>
        identityOf.get(matches.find(([faceId]) => faceId !== faces.ids[row])?.[0] ?? "");
      expect(answers[i]?.path).toBe("index");
      if (nearestOther(answers[i]?.matches) === real.identities[row]) score.index++;
      if (nearestOther(truth[i]) === real.identities[row]) score.exact++;
      const got = new Set(answers[i]?.matches.map(([faceId]) => faceId));
      score.wanted += truth[i]?.length ?? 0;
      score.found += (truth[i] ?? []).filter(([faceId]) => got.has(faceId)).length;
    }
  }
  await oracle.close();
  const [index, exact] = [score.index / queries.length, score.exact / queries.length];
  console.log(
    `real faces: ${queries.length} images of ${people} people with two or more; rank-1 ${(100 * index).toFixed(2)} % ` +
      `through the index, ${(100 * exact).toFixed(2)} % by exact search; recall@11 ${(score.found / score.wanted).toFixed(4)}`,
  );
  expect(Math.abs(index - exact)).toBeLessThanOrEqual(rankTolerance);
  expect(score.found / score.wanted).toBeGreaterThanOrEqual(recallGoal);
});
