import { encodeDescriptor, LimError, type Match, type MatchReply } from "@lim/contracts";
import type { MatchEntry } from "@lim/coordination";
import { expect, test } from "vitest";
import { IndexHolder } from "../src/index-holder.ts";
import { MatchService } from "../src/match-service.ts";
import { Registry } from "../src/registry.ts";
import { FakeKeyed, indexIdOf, listId, metaOf } from "./fakes.ts";

const dim = 8;
const silent = { debug() {}, info() {}, warn() {}, error() {} };
const metrics = {
  answered() {},
  searched() {},
  refreshed() {},
  refreshFailed() {},
  loaded() {},
  loadFailed() {},
};
const faces: Match[] = [0.9, 0.8, 0.7, 0.1].map((similarity, i) => [indexIdOf(i), similarity]);

function entryOf(
  rid: string,
  overrides: {
    descriptor?: Buffer;
    limit?: number;
    threshold?: number;
    minRevision?: number;
    deliveries?: number;
    leftMs?: number;
  } = {},
): MatchEntry {
  return {
    label: listId,
    entryId: `${rid}-0`,
    deliveries: overrides.deliveries ?? 1,
    waitedMs: 1,
    deadlineMs: performance.now() + (overrides.leftMs ?? 1_000),
    rid,
    request: {
      descriptor: overrides.descriptor ?? encodeDescriptor(new Float32Array(dim).fill(1), 1),
      fields: {
        rid,
        limit: overrides.limit ?? 10,
        threshold: overrides.threshold ?? 0,
        timeout_ms: 1_000,
        min_revision: overrides.minRevision,
        response_stream: "lim_reply:test",
      },
    },
  };
}

function setUp(options: { refresh?: () => void } = {}) {
  const registry = new Registry();
  const keyed = new FakeKeyed();
  keyed.answers = faces;
  const holder = new IndexHolder({ meta: metaOf(), keyed, sizeBytes: 1 });
  registry.slotOf(listId).swap(holder);
  const replies = new Map<string, MatchReply>();
  const sent: string[] = [];
  let failures = 0;
  const service = new MatchService({
    registry,
    consumer: {
      async reply(answers) {
        for (const { reply } of answers) {
          sent.push(reply.rid);
          replies.set(reply.rid, reply);
        }
      },
    },
    metrics,
    log: silent,
    efSearch: 128,
    descriptorVersion: 1,
    dim,
    ...(options.refresh ? { requestRefresh: options.refresh } : {}),
    onEngineFailed: () => failures++,
  });
  return { registry, keyed, holder, replies, sent, service, failures: () => failures };
}

test("I11: bad requests get their code and the others of the batch their matches", async () => {
  const { service, replies } = setUp();
  const vector = (value: number, length = dim) => new Float32Array(length).fill(value);
  await service.handle([
    entryOf("good"),
    entryOf("nan", { descriptor: encodeDescriptor(vector(Number.NaN), 1) }),
    entryOf("zero", { descriptor: encodeDescriptor(vector(0), 1) }),
    entryOf("long", { descriptor: encodeDescriptor(vector(1, 16), 1) }),
    entryOf("version", { descriptor: encodeDescriptor(vector(1), 7) }),
    entryOf("header", { descriptor: Buffer.from("nonsense") }),
    entryOf("two", { limit: 2 }),
    entryOf("above", { threshold: 0.75 }),
  ]);
  const codes = Object.fromEntries([...replies].map(([rid, reply]) => [rid, reply.error?.error_code ?? 0]));
  expect(codes).toEqual({
    good: 0,
    two: 0,
    above: 0,
    nan: 26306,
    zero: 26306,
    long: 26306,
    version: 26305,
    header: 26306,
  });
  expect(replies.get("good")?.result).toEqual(faces);
  expect(replies.get("two")?.result).toEqual(faces.slice(0, 2));
  expect(replies.get("above")?.result).toEqual(faces.slice(0, 2));
  expect(replies.get("good")).toMatchObject({ index_id: indexIdOf(1), revision: 10, status_code: 200 });
});

test("a request ahead of the index waits for its revision and holds up no other", async () => {
  let asked = 0;
  const { service, replies, sent, holder, registry } = setUp({ refresh: () => asked++ });
  await service.handle([entryOf("ahead", { minRevision: 12 }), entryOf("now")]);
  expect([...replies.keys()]).toEqual(["now"]);
  expect(asked).toBe(1);
  // Delivered again meanwhile: one answer all the same.
  await service.handle([entryOf("ahead", { minRevision: 12, deliveries: 2 })]);
  holder.advance(12);
  registry.slot(listId)?.wakeWaiters();
  await expect.poll(() => replies.get("ahead")?.revision).toBe(12);
  await service.close();
  expect(sent).toEqual(["now", "ahead"]);
});

test("a request ahead of the index is told so when its time is up, and at once where nothing refreshes", async () => {
  const waiting = setUp({ refresh: () => {} });
  await waiting.service.handle([entryOf("late", { minRevision: 12, leftMs: 80 })]);
  await expect.poll(() => waiting.replies.get("late")?.error?.error_code).toBe(26304);
  const still = setUp();
  await still.service.handle([entryOf("never", { minRevision: 12 })]);
  expect(still.replies.get("never")).toMatchObject({ status_code: 409, revision: 10 });
});

test("a request that fails the search is isolated; it alone is left, and told its error the second time", async () => {
  const { service, replies, keyed } = setUp();
  keyed.failure = new LimError("engine_failed", "odd vector");
  const bad = encodeDescriptor(new Float32Array(dim).fill(-1), 1);
  await service.handle([entryOf("a"), entryOf("bad", { descriptor: bad }), entryOf("b")]);
  expect([...replies.keys()].toSorted()).toEqual(["a", "b"]);
  await service.handle([entryOf("bad", { descriptor: bad, deliveries: 2 })]);
  expect(replies.get("bad")?.error?.error_code).toBe(26309);
});

test("an engine that died is reported for a reload, its requests are left to come again", async () => {
  const { service, replies, keyed, holder, failures } = setUp();
  keyed.failure = new LimError("engine_failed", "thread died");
  keyed.alive = false;
  const bad = encodeDescriptor(new Float32Array(dim).fill(-1), 1);
  await service.handle([entryOf("a"), entryOf("b", { descriptor: bad })]);
  expect(replies.size).toBe(0);
  expect([holder.failed, failures()]).toEqual([true, 1]);
  expect(holder.readers).toBe(0);
});

test("a label that is not served any more is said so", async () => {
  const { service, replies, registry } = setUp();
  registry.remove(listId);
  await service.handle([entryOf("a")]);
  expect(replies.get("a")?.error?.error_code).toBe(26301);
});
