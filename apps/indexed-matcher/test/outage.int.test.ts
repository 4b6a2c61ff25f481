import { rename, rm } from "node:fs/promises";
import { openIndexStorage } from "@lim/index-storage";
import { eventually, type FlakyProxy, faceIdOf, startFlakyProxy } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  createFilledList,
  facesOf,
  type Harness,
  publishIndex,
  type RunningMatcher,
  startHarness,
  startLoad,
  vectorOf,
} from "./harness.ts";

const people = 200;
let harness: Harness;
let proxy: FlakyProxy;
let matcher: RunningMatcher;
let listId: string;

beforeAll(async () => {
  harness = await startHarness();
  listId = await createFilledList(harness, "outage", people);
  await publishIndex(harness, harness.storage, listId);
  const url = new URL(harness.databaseUrl);
  proxy = await startFlakyProxy(Number(url.port || 5432));
  url.port = String(proxy.port);
  url.hostname = "127.0.0.1";
  matcher = await harness.startMatcher({ DATABASE_URL: url.href });
});
afterAll(async () => {
  await harness?.close();
  await proxy?.close();
});

const put = (firstPerson: number, count: number) =>
  harness.db.putFaces({
    listIds: [listId],
    descriptorVersion: 1,
    faces: facesOf("outage", firstPerson, count),
  });

async function stateOf(): Promise<Record<string, unknown> | undefined> {
  return (await matcher.indexes()).find(({ label }) => label === listId);
}

async function untilState(state: string): Promise<Record<string, unknown>> {
  return eventually(`label is ${state}`, async () => {
    const index = await stateOf();
    return index?.state === state ? index : undefined;
  });
}

/** A line that is written from now on: outages of before have said the same. */
function nextLine(pattern: RegExp): () => Promise<string> {
  const { lines } = matcher.process;
  const from = lines.length;
  return () => eventually(`line ${pattern}`, () => lines.slice(from).find((line) => pattern.test(line)));
}

/** An outage that goes on is told once: before the next one, the storage and lists must have been compared again. */
function untilCompared(): Promise<true> {
  const count = (pattern: RegExp) => matcher.process.lines.filter((line) => pattern.test(line)).length;
  return eventually(
    "comparing goes on",
    () => count(/cannot be compared/) === count(/reconciling goes on/) || undefined,
  );
}

test("I1: without Postgres matching goes on; what was committed meanwhile is found when it is back", async () => {
  const load = startLoad(harness, listId, 2, people);
  proxy.cut();
  await put(people, 5);
  for (let person = 0; person < 20; person++) {
    const reply = await harness.match(listId, vectorOf(person));
    expect(reply.result[0]?.[0]).toBe(faceIdOf("outage", person));
  }
  expect(await stateOf()).toMatchObject({ state: "serving", revision: people });
  proxy.resume();
  await eventually(
    "found",
    async () =>
      (await harness.match(listId, vectorOf(people))).result[0]?.[0] === faceIdOf("outage", people) ||
      undefined,
  );
  expect((await load.stop()).failures).toEqual([]);
});

test("without the storage matching goes on, and a newer index is taken when it is back", async () => {
  await untilCompared();
  const away = `${harness.storageRoot}.away`;
  const told = nextLine(/cannot be compared/);
  await rename(harness.storageRoot, away);
  await told();
  expect((await harness.match(listId, vectorOf(7))).result[0]?.[0]).toBe(faceIdOf("outage", 7));
  await rename(away, harness.storageRoot);
  const next = await publishIndex(harness, harness.storage, listId);
  await eventually("taken", async () => (await stateOf())?.index_id === next || undefined);
});

test("an empty storage in the place of the real one, as of a volume that is not mounted, takes no index away", async () => {
  await untilCompared();
  const away = `${harness.storageRoot}.away`;
  const served = await stateOf();
  const told = nextLine(/is it mounted/);
  await rename(harness.storageRoot, away);
  await openIndexStorage({ root: harness.storageRoot });
  await told();
  expect(await stateOf()).toMatchObject({ state: "serving", index_id: served?.index_id });
  expect((await harness.match(listId, vectorOf(8))).result[0]?.[0]).toBe(faceIdOf("outage", 8));
  await rm(harness.storageRoot, { recursive: true });
  await rename(away, harness.storageRoot);
  const next = await publishIndex(harness, harness.storage, listId);
  await eventually("taken", async () => (await stateOf())?.index_id === next || undefined);
});

test("a feed that no longer reaches back makes the label stale, in the open; the rebuilt index heals it", async () => {
  proxy.cut();
  await put(people + 5, 5);
  await harness.db.compactFeed({ listId, keepMs: 0 });
  proxy.resume();
  const stale = await untilState("stale");
  expect(stale).toMatchObject({ revision: people + 5, behind_by: 5 });
  expect(stale.detail).toContain("compacted");
  expect(await (await fetch(`${matcher.url}/metrics`)).text()).toMatch(
    /lim_matcher_labels\{state="stale"\} 1/,
  );
  expect((await harness.match(listId, vectorOf(3))).result[0]?.[0]).toBe(faceIdOf("outage", 3));
  await publishIndex(harness, harness.storage, listId);
  expect(await untilState("serving")).toMatchObject({ revision: people + 10, behind_by: 0 });
  await put(people + 10, 1);
  const found = await harness.match(listId, vectorOf(people + 10), { minRevision: people + 11 });
  expect(found.result[0]?.[0]).toBe(faceIdOf("outage", people + 10));
});

test("after a restore (new history) the old index is stale until one of the new history takes its place", async () => {
  await harness.db.newHistory();
  expect((await untilState("stale")).detail).toContain("other_history");
  const next = await publishIndex(harness, harness.storage, listId);
  expect(await untilState("serving")).toMatchObject({ index_id: next });
});
