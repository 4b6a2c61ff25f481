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
  waited() {},
  searched() {},
  replied() {},
  refreshed() {},
  refreshFailed() {},
  revisionsRead() {},
  loaded() {},
  loadFailed() {},
  storageRead() {},
  cacheEvent() {},
  cacheHolds() {},
  dropped() {},
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

function setUp(options: { refresh?: () => void; write?: () => Promise<void> } = {}) {
  const registry = new Registry();
  const keyed = new FakeKeyed();
  keyed.answers = faces;
  const holder = new IndexHolder({ meta: metaOf(), keyed, sizeBytes: 1 });
  registry.slotOf(listId).swap(holder);
  const replies = new Map<string, MatchReply>();
  const sent: string[] = [];
  let failures = 0;
  let repliedSearches = 0;
  const service = new MatchService({
    registry,
    consumer: {
      async reply(answers) {
        await options.write?.();
        for (const { reply } of answers) {
          sent.push(reply.rid);
          replies.set(reply.rid, reply);
        }
      },
    },
    metrics: {
      ...metrics,
      replied(_elapsedMs, requests) {
        repliedSearches += requests;
      },
    },
    log: silent,
    efSearch: 128,
    descriptorVersion: 1,
    dim,
    ...(options.refresh ? { requestRefresh: options.refresh } : {}),
    onEngineFailed: () => failures++,
  });
  const handle = async (batch: readonly MatchEntry[]) => {
    await service.handle(batch);
    await service.settled();
  };
  return {
    registry,
    keyed,
    holder,
    replies,
    sent,
    service,
    handle,
    failures: () => failures,
    repliedSearches: () => repliedSearches,
  };
}

test("I11: bad requests get their code and the others of the batch their matches", async () => {
  const { handle, replies, repliedSearches } = setUp();
  const vector = (value: number, length = dim) => new Float32Array(length).fill(value);
  await handle([
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
  // What was refused was not searched.
  expect(repliedSearches()).toBe(3);
  expect(replies.get("good")?.result).toEqual(faces);
  expect(replies.get("two")?.result).toEqual(faces.slice(0, 2));
  expect(replies.get("above")?.result).toEqual(faces.slice(0, 2));
  expect(replies.get("good")).toMatchObject({ index_id: indexIdOf(1), revision: 10, status_code: 200 });
});

test("a request ahead of the index waits for its revision and holds up no other", async () => {
  let asked = 0;
  const { service, handle, replies, sent, holder, registry, keyed } = setUp({ refresh: () => asked++ });
  const heldBytes: number[] = [];
  keyed.onSearch = ({ buffer }) => heldBytes.push(buffer.byteLength);
  await handle([entryOf("ahead", { minRevision: 12 }), entryOf("now")]);
  expect([...replies.keys()]).toEqual(["now"]);
  expect(asked).toBe(1);
  // Delivered again meanwhile: one answer all the same.
  await handle([entryOf("ahead", { minRevision: 12, deliveries: 2 })]);
  holder.advance(12);
  registry.slot(listId)?.wakeWaiters();
  await expect.poll(() => replies.get("ahead")?.revision).toBe(12);
  await service.close();
  expect(sent).toEqual(["now", "ahead"]);
  // Of the batch of two; then of the one that waited, which held no more than its own.
  expect(heldBytes).toEqual([2 * dim * 4, dim * 4]);
});

test("a label settles when the requests that wait in it have their answers", async () => {
  const { registry, holder, replies, service, handle } = setUp({ refresh: () => {} });
  await handle([entryOf("ahead", { minRevision: 12 })]);
  let isSettled = false;
  const settled = service.settledOf(listId).then(() => {
    isSettled = true;
  });
  await service.settledOf("another label");
  expect([isSettled, replies.has("ahead")]).toEqual([false, false]);
  holder.advance(12);
  registry.slot(listId)?.wakeWaiters();
  await settled;
  expect(replies.get("ahead")?.revision).toBe(12);
});

test("a request ahead of an index that may not grow is told so at once", async () => {
  const { holder, replies, handle } = setUp({ refresh: () => {} });
  holder.heldBack = "no memory";
  await handle([entryOf("ahead", { minRevision: 12 })]);
  expect(replies.get("ahead")?.error?.error_code).toBe(26304);
});

test("a request ahead of the index is told so when its time is up, and at once where nothing refreshes", async () => {
  const waiting = setUp({ refresh: () => {} });
  await waiting.handle([entryOf("late", { minRevision: 12, leftMs: 80 })]);
  await expect.poll(() => waiting.replies.get("late")?.error?.error_code).toBe(26304);
  const still = setUp();
  await still.handle([entryOf("never", { minRevision: 12 })]);
  expect(still.replies.get("never")).toMatchObject({ status_code: 409, revision: 10 });
});

test("a request that fails the search is isolated; it alone is left, and told its error the second time", async () => {
  const { handle, replies, keyed } = setUp();
  keyed.failure = new LimError("engine_failed", "odd vector");
  const bad = encodeDescriptor(new Float32Array(dim).fill(-1), 1);
  await handle([entryOf("a"), entryOf("bad", { descriptor: bad }), entryOf("b")]);
  expect([...replies.keys()].toSorted()).toEqual(["a", "b"]);
  await handle([entryOf("bad", { descriptor: bad, deliveries: 2 })]);
  expect(replies.get("bad")?.error?.error_code).toBe(26309);
});

test("an engine that died is reported for a reload, its requests are left to come again", async () => {
  const { handle, replies, keyed, holder, failures } = setUp();
  keyed.failure = new LimError("engine_failed", "thread died");
  keyed.alive = false;
  const bad = encodeDescriptor(new Float32Array(dim).fill(-1), 1);
  await handle([entryOf("a"), entryOf("b", { descriptor: bad })]);
  expect(replies.size).toBe(0);
  expect([holder.failed, failures()]).toEqual([true, 1]);
  expect(holder.readers).toBe(0);
});

test("a label that is not served any more is said so", async () => {
  const { handle, replies, registry } = setUp();
  registry.remove(listId);
  await handle([entryOf("a")]);
  expect(replies.get("a")?.error?.error_code).toBe(26301);
});

test("the next batch is searched while the answers of the one before are being written, and no third", async () => {
  const writes: (() => void)[] = [];
  const { service, keyed, sent } = setUp({
    write: () => new Promise<void>((resolve) => writes.push(resolve)),
  });
  await service.handle([entryOf("a")]);
  await expect.poll(() => writes.length).toBe(1);
  let ended = false;
  const second = service.handle([entryOf("b")]).then(() => {
    ended = true;
  });
  await expect.poll(() => keyed.searches).toBe(2);
  expect([ended, sent]).toEqual([false, []]);
  writes.shift()?.();
  await second;
  expect(sent).toEqual(["a"]);
  await expect.poll(() => writes.length).toBe(1);
  const closed = service.close();
  writes.shift()?.();
  await closed;
  expect(sent).toEqual(["a", "b"]);
});

test("a large batch is searched in steps, all of them in the engine's queue before the first is answered", async () => {
  const { handle, keyed, sent } = setUp();
  const rids = Array.from({ length: 70 }, (_, i) => `r${i}`);
  let searchesAtFirstAnswer = 0;
  keyed.onSearch = () => {
    if (sent.length === 0) searchesAtFirstAnswer = keyed.searches;
  };
  await handle(rids.map((rid) => entryOf(rid)));
  expect(sent).toEqual(rids);
  expect([keyed.searches, searchesAtFirstAnswer]).toEqual([3, 3]);
});

test("answers that Redis did not take leave their entries pending and the service working", async () => {
  let away = true;
  const { handle, sent } = setUp({
    async write() {
      if (away) throw new LimError("redis_unavailable", "gone");
    },
  });
  await handle([entryOf("a")]);
  away = false;
  await handle([entryOf("a", { deliveries: 2 })]);
  expect(sent).toEqual(["a"]);
});
