import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { corruptFile, eventually, faceIdOf } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  createFilledList,
  type Harness,
  publishIndex,
  type RunningMatcher,
  startHarness,
  vectorOf,
} from "./harness.ts";

let harness: Harness;

beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.close();
});

async function untilServes(matcher: RunningMatcher, indexIds: readonly string[]): Promise<void> {
  await eventually(`${matcher.matcherId} serves ${indexIds}`, async () => {
    const served = (await matcher.indexes()).map((index) => index.index_id);
    return indexIds.every((indexId) => served.includes(indexId)) || undefined;
  });
}

/** Sum over all labels of a metric. */
async function metric(matcher: RunningMatcher, name: string, labels = ""): Promise<number> {
  const text = await (await fetch(`${matcher.url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith(name) && line.includes(labels));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

const readsOf = (matcher: RunningMatcher) => metric(matcher, "lim_matcher_storage_reads_total");

test("matchers of one host read the storage once per index, also when it is replaced", async () => {
  const listIds = [await createFilledList(harness, "one", 300), await createFilledList(harness, "two", 300)];
  const [one = "", two = ""] = listIds;
  const first = [
    await publishIndex(harness, harness.storage, one),
    await publishIndex(harness, harness.storage, two),
  ];
  const env = { LIM_MATCHER_CACHE: join(harness.dir, "cache") };
  const matchers = await Promise.all([1, 2, 3].map(() => harness.startMatcher(env)));
  for (const matcher of matchers) await untilServes(matcher, first);
  const sumOfReads = async () => (await Promise.all(matchers.map(readsOf))).reduce((a, b) => a + b, 0);
  expect(await sumOfReads()).toBe(2);
  const next = await publishIndex(harness, harness.storage, one);
  for (const matcher of matchers) await untilServes(matcher, [next]);
  expect(await sumOfReads()).toBe(3);
  // One more needs nothing of what the storage holds.
  await corruptFile(join(harness.storageRoot, one, next, "index.dat"), { flipByteAt: -1_000 });
  const late = await harness.startMatcher(env);
  await untilServes(late, [next]);
  expect(await readsOf(late)).toBe(0);
  expect(await metric(late, "lim_matcher_cache_events_total", 'event="hit"')).toBe(2);
  expect((await harness.match(one, vectorOf(7))).result[0]?.[0]).toBe(faceIdOf("one", 7));
  await Promise.all([...matchers, late].map((matcher) => matcher.process.stop()));
});

test("a cache folder that cannot be used is said and counted, and indexes come from the storage", async () => {
  const listId = await createFilledList(harness, "none", 50);
  const indexId = await publishIndex(harness, harness.storage, listId);
  const file = join(harness.dir, "a file");
  await writeFile(file, "");
  const matcher = await harness.startMatcher({ LIM_MATCHER_CACHE: join(file, "cache") });
  await untilServes(matcher, [indexId]);
  const bypassed = await metric(matcher, "lim_matcher_cache_events_total", 'event="bypassed"');
  expect(bypassed).toBeGreaterThanOrEqual(1);
  // Those whose copy in the storage is corrupt count as well, each time that they are tried.
  expect(await readsOf(matcher)).toBeGreaterThanOrEqual(bypassed);
  expect(
    matcher.process.lines.filter((line) => line.includes("the cache folder cannot be used")),
  ).toHaveLength(1);
  await matcher.process.stop();
});
