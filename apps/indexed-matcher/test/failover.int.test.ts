import { eventually, faceIdOf, startFlakyProxy } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  announcers,
  createFilledList,
  facesOf,
  type Harness,
  publishIndex,
  startHarness,
  startLoad,
  vectorOf,
} from "./harness.ts";

const people = 300;
/** Of the label keys of the one that is killed. */
const ttlMs = 2_000;
let harness: Harness;
let listId: string;

beforeAll(async () => {
  harness = await startHarness();
  listId = await createFilledList(harness, "failover", people);
  await publishIndex(harness, harness.storage, listId);
});
afterAll(async () => {
  await harness?.close();
});

test("I6, I8: a killed matcher's requests are answered by another, its keys expire; a stopped one leaves none", async () => {
  const first = await harness.startMatcher({ LIM_LABEL_KEY_TTL_MS: String(ttlMs) });
  const second = await harness.startMatcher();
  expect((await announcers(harness, listId)).toSorted()).toEqual(
    [first.matcherId, second.matcherId].toSorted(),
  );
  const load = startLoad(harness, listId, 16, people);
  await eventually("both answer", async () => {
    const texts = await Promise.all(
      [first, second].map(async ({ url }) => (await fetch(`${url}/metrics`)).text()),
    );
    return texts.every((text) => /requests_total\{outcome="ok"\} [1-9]/.test(text)) || undefined;
  });
  first.process.kill("SIGKILL");
  await first.process.exited;
  // Nobody but Redis ends it now.
  expect(await harness.raw.pttl(`matching_label__${listId}__${first.matcherId}`)).toBeLessThanOrEqual(ttlMs);
  await eventually("the killed one's key is gone", async () =>
    (await announcers(harness, listId)).length === 1 ? true : undefined,
  );
  expect(await announcers(harness, listId)).toEqual([second.matcherId]);

  const third = await harness.startMatcher();
  await second.process.stop();
  expect(await second.process.exited).toBe(0);
  // Withdrawn, as it has not had the time to expire.
  expect(await announcers(harness, listId)).toEqual([third.matcherId]);
  // Where the killed one held all of them, the first answers after it came late.
  await eventually("the load is answered", () => (load.answered > 50 ? true : undefined));
  const { failures } = await load.stop();
  expect(failures).toEqual([]);
  await third.process.stop();
  expect(await announcers(harness, listId)).toEqual([]);
});

test("I1: a matcher that starts catches up with what was committed since the index, before it announces itself", async () => {
  await harness.db.putFaces({
    listIds: [listId],
    descriptorVersion: 1,
    faces: facesOf("failover", people, 30),
  });
  await harness.db.unlinkFaces({ listId, faceIds: [faceIdOf("failover", 0)] });
  const matcher = await harness.startMatcher({ LIM_REFRESH_ENABLED: "false" });
  const [index] = await matcher.indexes();
  expect(index).toMatchObject({ revision: people + 31, behind_by: 0, count: people + 29 });
  const reply = await harness.match(listId, vectorOf(people + 29));
  expect(reply.result[0]?.[0]).toBe(faceIdOf("failover", people + 29));
  const gone = await harness.match(listId, vectorOf(0));
  expect(gone.result.some(([faceId]) => faceId === faceIdOf("failover", 0))).toBe(false);
  // Without refresh an index ahead is not waited for.
  const ahead = await harness.match(listId, vectorOf(0), { minRevision: people + 32 });
  expect(ahead.error?.error_code).toBe(26304);
  await matcher.process.stop();
});

test("I9: Redis killed and started again: the matcher serves and announces again by itself", async () => {
  const matcher = await harness.startMatcher();
  await harness.redis.restart();
  await eventually("announced again", async () => (await announcers(harness, listId))[0]);
  await eventually("answers", async () => {
    const reply = await harness.match(listId, vectorOf(5), { timeoutMs: 1_000 }).catch(() => undefined);
    return reply?.result[0]?.[0] === faceIdOf("failover", 5) || undefined;
  });
  await matcher.process.stop();
  expect(await matcher.process.exited).toBe(0);
});

test("told to stop while Redis is dead and Postgres hangs, it ends in time and in order", async () => {
  const url = new URL(harness.databaseUrl);
  const proxy = await startFlakyProxy(Number(url.port || 5432));
  url.port = String(proxy.port);
  url.hostname = "127.0.0.1";
  const matcher = await harness.startMatcher({ DATABASE_URL: url.href });
  proxy.pause();
  for (const pid of harness.redis.pids) process.kill(pid, "SIGKILL");
  try {
    await matcher.process.stop({ graceMs: 60_000 });
    // Of one that is forced, after 15 s, it is another.
    expect(await matcher.process.exited).toBe(0);
  } finally {
    await proxy.close();
    await harness.redis.restart();
  }
});
