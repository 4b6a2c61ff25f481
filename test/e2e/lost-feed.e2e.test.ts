import { createFaceGenerator, eventually, type Service } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  descriptorVersion,
  facesOf,
  importFaces,
  startTestStack,
  type TestStack,
  untilServed,
  untilTaskEnds,
} from "./support.ts";

const dim = 16;
const people = 300;
const generator = createFaceGenerator({ dim, effectiveDim: 12 });
const listed = facesOf("listed", generator.matrix({ firstPerson: 0, persons: people }), dim);
const late = facesOf("late", generator.matrix({ firstPerson: 1_000, persons: 5 }), dim);

let stack: TestStack;
beforeAll(async () => {
  stack = await startTestStack({
    dim,
    minListSize: people,
    // What only changed would be updated, not rebuilt.
    env: { LIM_PLANNING_PERIOD_S: "1", LIM_PLANNING_SETTLE_MS: "0", LIM_REBUILD_DEFAULT: "false" },
  });
});
afterAll(() => stack?.stop());

async function loadedBy(matcher: Service, label: string): Promise<Record<string, unknown>> {
  const body = (await (await fetch(`${matcher.url}/indexes`)).json()) as {
    indexes: Record<string, unknown>[];
  };
  return body.indexes.find((index) => index.label === label) ?? {};
}

test("a matcher that the feed has left behind is stale, answers on, and is healed by the rebuild that the manager plans", async () => {
  const label = await importFaces(stack.db, "left behind", listed, dim);
  await stack.start("indexer");
  const matcher = await stack.start("indexed-matcher");
  const first = await stack.start("index-manager");
  const plugin = await stack.plugin();
  await untilServed(plugin, label, 1);
  const before = await loadedBy(matcher, label);
  // Nobody plans while the matcher is away, so that its being stale can be seen.
  await stack.kill(first);
  matcher.process.kill("SIGSTOP");
  await stack.db.putFaces({
    listIds: [label],
    descriptorVersion,
    faces: late.ids.map((faceId, i) => ({ faceId, vector: late.vectors[i] ?? new Float32Array(0) })),
  });
  await stack.db.compactFeed({ listId: label, keepMs: 0 });
  matcher.process.kill("SIGCONT");
  const stale = await eventually("stale", async () => {
    const index = await loadedBy(matcher, label);
    return index.state === "stale" ? index : undefined;
  });
  expect(stale).toMatchObject({ index_id: before.index_id, revision: people, behind_by: late.ids.length });
  expect(stale.detail).toContain("compacted");
  await untilServed(plugin, label, 1);
  const match = (vector: Float32Array | undefined) =>
    plugin.match({ label, references: [{ descriptor: vector ?? new Float32Array(0) }], limit: 1 });
  const [answer] = await match(listed.vectors[7]);
  expect(answer?.matches[0]?.[0]).toBe(listed.ids[7]);
  const metrics = await (await fetch(`${matcher.url}/metrics`)).text();
  expect(metrics).toMatch(/lim_matcher_labels\{state="stale"\} 1/);
  expect(metrics).toMatch(new RegExp(`lim_matcher_refresh_backlog_revisions ${late.ids.length}`));
  expect(metrics).toMatch(/lim_matcher_behind_seconds_max [\d.]+/);

  const second = await stack.start("index-manager");
  const healed = await eventually("healed", async () => {
    const index = await loadedBy(matcher, label);
    return index.state === "serving" ? index : undefined;
  });
  expect(healed).toMatchObject({ revision: people + late.ids.length, behind_by: 0 });
  expect(healed.index_id).not.toBe(before.index_id);
  const task = await untilTaskEnds(second, String(healed.index_id));
  expect(task).toMatchObject({ status: "success", trigger: "plan", mode: "rebuild" });
  const [found] = await match(late.vectors[0]);
  expect(found?.matches[0]?.[0]).toBe(late.ids[0]);
});
