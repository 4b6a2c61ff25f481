import { randomUUID } from "node:crypto";
import { limits, type MatchReply, parseMatchReply } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { fixedKeys } from "../src/keys.ts";
import { maxPendingRequests } from "../src/streams/client.ts";
import { descriptor, echoOf, type StreamFixture, streamFixture } from "./stream-support.ts";
import { type RedisFixture, startFixture } from "./support.ts";

const longIdleMs = 60_000;
/** One a round of upkeep would take far longer. */
const limitMs = 20_000;
const count = 60;

let fixture: RedisFixture;
let streams: StreamFixture;
let replyStream: string;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());
beforeEach(async () => {
  streams = streamFixture(fixture);
  replyStream = `lim_reply:${randomUUID()}`;
  await fixture.raw.xadd(replyStream, "*", "hello", "1");
});
afterEach(() => streams.close());

/** Entries that a consumer took and left, delivered so many times, idle for long. */
async function leave(options: {
  count: number;
  deliveries: number;
  timeoutMs: number;
  agoMs: number;
}): Promise<void> {
  const { raw } = fixture;
  const stream = streams.stream();
  const group = streams.keys.consumerGroup;
  await raw.xgroup("CREATE", stream, group, "0", "MKSTREAM");
  const firstMs = Date.now() - options.agoMs;
  const ids = Array.from({ length: options.count }, (_, i) => `${firstMs}-${i}`);
  const adding = raw.pipeline();
  for (const id of ids)
    adding.xadd(
      stream,
      id,
      ...[
        "rid",
        id,
        "descriptor",
        descriptor,
        "timeout_ms",
        options.timeoutMs,
        "response_stream",
        replyStream,
      ],
    );
  await adding.exec();
  await raw.xreadgroup("GROUP", group, "dead", "COUNT", options.count, "STREAMS", stream, ">");
  const aging = raw.pipeline();
  for (const id of ids)
    aging.call(
      "XCLAIM",
      stream,
      group,
      "dead",
      0,
      id,
      "IDLE",
      longIdleMs,
      "RETRYCOUNT",
      options.deliveries,
      "JUSTID",
    );
  await aging.exec();
}

const allReplies = (expected: number): Promise<MatchReply[]> =>
  eventually(
    "all replies",
    async () => {
      const rows = (await fixture.raw.xrange(replyStream, "-", "+")).slice(1);
      if (rows.length < expected) throw new Error(`${rows.length} of ${expected}`);
      return rows.map(([, fields]) => parseMatchReply(fields[1] ?? ""));
    },
    { timeoutMs: limitMs },
  );

it("I6: what expired at a consumer that died is answered as such, all of it at once", async () => {
  await leave({ count, deliveries: 1, timeoutMs: 1_000, agoMs: 3_000 });
  const { consumer, batches } = await streams.consume();
  for (const reply of await allReplies(count)) expect(reply.error?.error_code).toBe(26302);
  expect(batches).toEqual([]);
  expect(consumer.stats()).toMatchObject({ claimed: count, expired: count });
});

it("I10: what was delivered too often goes to the dead letters, all of it at once, of which the newest are kept", async () => {
  const filling = fixture.raw.pipeline();
  for (let i = 0; i < limits.maxDeadLetters; i++) filling.xadd(fixedKeys.deadLetters, "*", "n", i);
  await filling.exec();
  await leave({ count, deliveries: limits.maxMatchDeliveries, timeoutMs: 30_000, agoMs: 0 });
  const { batches } = await streams.consume();
  for (const reply of await allReplies(count)) expect(reply.error?.error_code).toBe(26303);
  expect(batches).toEqual([]);
  const dead = await fixture.raw.xrange(fixedKeys.deadLetters, "-", "+");
  expect(dead).toHaveLength(limits.maxDeadLetters);
  expect(dead.at(-1)?.[1]).toContain(streams.label);
});

it("fills the next batch while a search runs, and holds two batches at most", async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const batchSize = 8;
  const { batches } = await streams.consume({
    batchSize,
    handle: async (batch, consumer) => {
      if (batches.length === 1) await gate;
      await consumer.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
    },
  });
  const asked = [streams.request({ timeoutMs: limits.maxMatchTimeoutMs })];
  await eventually("the first search runs", () => batches[0]);
  for (let i = 0; i < 3 * batchSize; i++)
    asked.push(streams.request({ timeoutMs: limits.maxMatchTimeoutMs }));
  await eventually("the next batch is full", async () => {
    const [pending] = (await fixture.raw.xpending(streams.stream(), streams.keys.consumerGroup)) as [number];
    // I10: what is read ahead, beside the one that is searched.
    if (pending > 1 + batchSize) throw new Error(`${pending} entries are held`);
    return pending === 1 + batchSize ? true : undefined;
  });
  release();
  for (const reply of await Promise.all(asked)) expect(reply.status_code).toBe(200);
  expect(batches.map((batch) => batch.length).slice(0, 2)).toEqual([1, batchSize]);
});

it("I6: what expires while a search hangs is answered as such, read ahead or searched for, and is not searched later", async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { consumer, batches } = await streams.consume({
    batchSize: 4,
    handle: async (batch, self) => {
      await gate;
      await self.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
    },
  });
  const send = (rid: string, timeoutMs: number) =>
    fixture.raw.xadd(
      streams.stream(),
      "*",
      ...["rid", rid, "descriptor", descriptor, "timeout_ms", timeoutMs, "response_stream", replyStream],
    );
  await send("searched for", 3_000);
  await eventually("the search hangs", () => batches[0]);
  await send("read ahead", 500);
  await send("in time", 30_000);
  const told = await allReplies(2);
  expect(told.map(({ error }) => error?.error_code)).toEqual([26302, 26302]);
  expect(told.map(({ rid }) => rid).toSorted()).toEqual(["read ahead", "searched for"]);
  expect(consumer.stats()).toMatchObject({ expired: 2 });
  release();
  // At least once: the search that hung says its word too, and nobody waits for it.
  expect((await allReplies(4)).slice(2).map(({ rid }) => rid)).toEqual(["searched for", "in time"]);
  expect(batches.map((batch) => batch.map(({ rid }) => rid))).toEqual([["searched for"], ["in time"]]);
});

it("I10: a client with too many requests in flight refuses one more, clearly", async () => {
  const ask = () => streams.request({ timeoutMs: limits.maxMatchTimeoutMs }).catch((error: unknown) => error);
  const asked = Array.from({ length: maxPendingRequests }, ask);
  const oneMore = ask();
  // Closed before any of them is sent: this is not about Redis.
  const closing = streams.client.close();
  expect(await oneMore).toMatchObject({ errorName: "overloaded" });
  expect(await asked.at(-1)).toMatchObject({ errorName: "aborted" });
  await Promise.all([...asked, closing]);
});
