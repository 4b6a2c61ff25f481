import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { eventually, faceIdOf } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  announcers,
  createFilledList,
  facesOf,
  type Harness,
  publishIndex,
  type RunningMatcher,
  startHarness,
  startLoad,
  vectorOf,
} from "./harness.ts";
import { republish } from "./republish.ts";

const budgeted = fileURLToPath(new URL("./budgeted-matcher.ts", import.meta.url));
const people = 300;
let harness: Harness;

beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.close();
});

/** A matcher whose only memory are its indexes, with a limit that the test sets. */
async function startBudgeted(name: string, env: Record<string, string> = {}) {
  const limitFile = join(harness.dir, `limit of ${name}`);
  const setLimit = (bytes: number) => writeFile(limitFile, String(bytes));
  await setLimit(Number.MAX_SAFE_INTEGER);
  const matcher = await harness.startMatcher({ MEMORY_LIMIT_FILE: limitFile, ...env }, budgeted);
  return { ...matcher, setLimit };
}

async function served(matcher: RunningMatcher, listId: string) {
  return (await matcher.indexes()).find(({ label }) => label === listId);
}

async function untilServes(matcher: RunningMatcher, listId: string, indexId: string): Promise<void> {
  await eventually(`${matcher.matcherId} serves ${indexId}`, async () => {
    const index = await served(matcher, listId);
    return (index?.index_id === indexId && index.state === "serving") || undefined;
  });
}

async function metric(matcher: RunningMatcher, name: string): Promise<number> {
  const text = await (await fetch(`${matcher.url}/metrics`)).text();
  const line = text.split("\n").find((one) => one.startsWith(`${name} `) || one.startsWith(`${name}{`));
  return Number(line?.split(" ").at(-1) ?? Number.NaN);
}

async function resident(matcher: RunningMatcher): Promise<number> {
  const body = (await (await fetch(`${matcher.url}/indexes`)).json()) as { memory: { resident: number } };
  return body.memory.resident;
}

test("I10: a label that may not grow stays at its revision, says so, answers, and goes on when there is room", async () => {
  const listId = await createFilledList(harness, "grow", people);
  const indexId = await publishIndex(harness, harness.storage, listId);
  const matcher = await startBudgeted("grow");
  await untilServes(matcher, listId, indexId);
  await matcher.setLimit((await resident(matcher)) + 1_000);
  await harness.db.putFaces({ listIds: [listId], descriptorVersion: 1, faces: facesOf("grow", people, 25) });
  const full = await eventually("the label is full", async () => {
    const index = await served(matcher, listId);
    return index?.state === "full" ? index : undefined;
  });
  expect(full).toMatchObject({ index_id: indexId, revision: people, behind_by: 25 });
  expect(full.detail).toMatch(/would pass the limit.*LIM_MEMORY_LIMIT_RATIO/);
  expect(await metric(matcher, 'lim_matcher_labels{state="full"}')).toBe(1);
  const reply = await harness.match(listId, vectorOf(7));
  expect([reply.revision, reply.result[0]?.[0]]).toEqual([people, faceIdOf("grow", 7)]);
  // Nobody waits for what does not come.
  const ahead = await harness.match(listId, vectorOf(7), { minRevision: people + 25 });
  expect(ahead.error?.error_code).toBe(26304);
  await matcher.setLimit(Number.MAX_SAFE_INTEGER);
  await eventually("it follows its list again", async () => {
    const index = await served(matcher, listId);
    return (index?.revision === people + 25 && index.state === "serving") || undefined;
  });
  const found = await harness.match(listId, vectorOf(people + 24), { minRevision: people + 25 });
  expect(found.result[0]?.[0]).toBe(faceIdOf("grow", people + 24));
  await matcher.process.stop();
});

test("where memory holds one index only, two matchers drop and load in turns: no request fails", async () => {
  const listId = await createFilledList(harness, "drop", people);
  const first = await publishIndex(harness, harness.storage, listId);
  const env = { LIM_DROP_THEN_LOAD: "true", LIM_LABEL_KEY_TTL_MS: "600000" };
  const [a, b] = await Promise.all([startBudgeted("a", env), startBudgeted("b", env)]);
  const both = [a, b];
  for (const matcher of both) {
    await untilServes(matcher, listId, first);
    await matcher.setLimit(await resident(matcher));
  }
  const load = startLoad(harness, listId, 4, people);
  const second = await republish(harness.storageRoot, listId, first);
  for (const matcher of both) await untilServes(matcher, listId, second);
  expect(await Promise.all(both.map((matcher) => metric(matcher, "lim_matcher_drops_total")))).toEqual([
    1, 1,
  ]);

  // Verified, dropped for it, and then no engine reads it: what was served is loaded again.
  const spoiled = await republish(harness.storageRoot, listId, second, { spoil: true });
  for (const matcher of both) {
    await matcher.process.waitForLine(new RegExp(`${spoiled}.*was not loaded`), { timeoutMs: 60_000 });
    await untilServes(matcher, listId, second);
    expect(await metric(matcher, "lim_matcher_drops_total")).toBeGreaterThanOrEqual(2);
  }
  await harness.storage.remove({ indexId: spoiled });
  const { replies, failures } = await load.stop();
  expect(failures).toEqual([]);
  expect(new Set(replies.map(({ index_id }) => index_id))).toEqual(new Set([first, second]));

  // Alone, it keeps what it has.
  await b.process.stop();
  const drops = await metric(a, "lim_matcher_drops_total");
  const third = await republish(harness.storageRoot, listId, second);
  await a.process.waitForLine(new RegExp(`${third}.*no other matcher serves`), { timeoutMs: 60_000 });
  expect((await harness.match(listId, vectorOf(1))).index_id).toBe(second);
  expect(await announcers(harness, listId)).toEqual([a.matcherId]);
  expect(await metric(a, "lim_matcher_drops_total")).toBe(drops);
  await a.process.stop();
});

test("memory is flat over many reloads under load, and answers of other labels go on meanwhile", async () => {
  const listId = await createFilledList(harness, "flat", 10_000);
  let indexId = await publishIndex(harness, harness.storage, listId);
  const otherId = await createFilledList(harness, "other", people);
  const otherIndexId = await publishIndex(harness, harness.storage, otherId);
  const matcher = await harness.startMatcher({
    LIM_RELOAD_PERIOD_MS: "50",
    // What its own heap grows to under load would hide what indexes leave.
    NODE_OPTIONS: "--max-semi-space-size=2 --max-old-space-size=96",
  });
  await untilServes(matcher, listId, indexId);
  await untilServes(matcher, otherId, otherIndexId);
  const indexMiB = Number((await served(matcher, listId))?.memory) / 2 ** 20;
  const load = startLoad(harness, listId, 2, people);
  const otherLoad = startLoad(harness, otherId, 2, people);
  const answered = { reloading: 0, quiet: 0 };
  const residentMiB: number[] = [];
  for (let reload = 0; reload < 30; reload++) {
    const before = indexId;
    const [startedMs, startedAt] = [performance.now(), otherLoad.answered];
    indexId = await republish(harness.storageRoot, listId, before);
    await untilServes(matcher, listId, indexId);
    if (reload < 10) {
      const reloadedAt = otherLoad.answered;
      const untilMs = 2 * performance.now() - startedMs;
      // Looked at as often as during the reload.
      await eventually("as long again", async () => {
        await matcher.indexes();
        return performance.now() >= untilMs || undefined;
      });
      answered.reloading += reloadedAt - startedAt;
      answered.quiet += otherLoad.answered - reloadedAt;
    }
    const status = readFileSync(`/proc/${matcher.process.pid}/status`, "utf8");
    residentMiB.push(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024);
    await harness.storage.remove({ indexId: before });
  }
  for (const one of [load, otherLoad]) expect((await one.stop()).failures).toEqual([]);
  // In the same time, turn about, so that it is no matter how fast the machine is.
  expect(answered.reloading).toBeGreaterThan(answered.quiet / 8);
  // Ten indexes were loaded in between.
  expect((residentMiB[29] ?? 0) - (residentMiB[19] ?? 0)).toBeLessThan(4 * indexMiB);
  await matcher.process.stop();
});
