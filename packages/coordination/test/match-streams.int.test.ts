import { randomBytes, randomUUID } from "node:crypto";
import { limits, parseMatchReply } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { MatchEntry } from "../src/port.ts";
import { descriptor, echoOf, requestTimeoutMs, type StreamFixture, streamFixture } from "./stream-support.ts";
import { type RedisFixture, startFixture } from "./support.ts";

let fixture: RedisFixture;
let streams: StreamFixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());
beforeEach(() => {
  streams = streamFixture(fixture);
});
afterEach(() => streams.close());

/** Sends an entry as a foreign client would, and reads the answer from a reply stream of its own. */
async function sendRaw(
  fields: (string | Buffer)[],
): Promise<() => Promise<ReturnType<typeof parseMatchReply>>> {
  const replyStream = `lim_reply:${randomUUID()}`;
  await fixture.raw.xadd(replyStream, "*", "hello", "1");
  await fixture.raw.xadd(streams.stream(), "*", ...fields, "response_stream", replyStream);
  return () =>
    eventually("a reply", async () => {
      const rows = await fixture.raw.xrange(replyStream, "-", "+");
      const row = rows.find(([, pairs]) => pairs[0] === "reply");
      return row ? parseMatchReply(row[1][1] ?? "") : undefined;
    });
}

const pendingCount = async () => {
  const summary = (await fixture.raw.xpending(streams.stream(), streams.keys.consumerGroup)) as [number];
  return summary[0];
};

/** Redis' clock is known to half a round trip. */
const clockToleranceMs = 1_000;

const unblockCalls = async () =>
  Number(/cmdstat_client\|unblock:calls=(\d+)/.exec(await fixture.raw.info("commandstats"))?.[1] ?? 0);

/** Awaits that nothing of any request is left: replies reach their callers a moment before the entries go. */
const emptied = () =>
  eventually("an empty stream", async () =>
    (await fixture.raw.xlen(streams.stream())) === 0 && (await pendingCount()) === 0 ? true : undefined,
  );

describe("a request and its reply", () => {
  it("carries the descriptor's bytes and the fields, and leaves nothing behind", async () => {
    const bytes = Buffer.concat([Buffer.from("dp\0\0\x01\0\0\0", "latin1"), randomBytes(2048)]);
    const seen: MatchEntry[] = [];
    await streams.consume({
      handle: async (batch, consumer) => {
        seen.push(...batch);
        await consumer.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
      },
    });
    const askedAtMs = performance.now();
    const reply = await streams.request({
      descriptor: bytes,
      limit: 3,
      threshold: 0.25,
      minRevision: 9,
      lunaRequestId: "1,a",
    });
    expect(reply).toMatchObject({ status_code: 200, revision: 7, error: null });
    const [entry] = seen;
    expect(entry?.deliveries).toBe(1);
    if (!entry || !("fields" in entry.request)) throw new Error("no fields");
    expect(entry.request.descriptor.equals(bytes)).toBe(true);
    expect(entry.request.fields).toMatchObject({
      limit: 3,
      threshold: 0.25,
      min_revision: 9,
      luna_request_id: "1,a",
    });
    const passedMs = performance.now() - askedAtMs;
    const leftMs = entry.deadlineMs - performance.now();
    expect(entry.waitedMs).toBeLessThan(passedMs + clockToleranceMs);
    expect(leftMs).toBeGreaterThan(requestTimeoutMs - passedMs - clockToleranceMs);
    expect(leftMs).toBeLessThan(requestTimeoutMs + clockToleranceMs);
    await emptied();
  });

  it("is read though it was sent before the first matcher came", async () => {
    const asked = streams.request();
    await eventually("the entry", async () =>
      (await fixture.raw.xlen(streams.stream())) > 0 ? true : undefined,
    );
    await streams.consume();
    expect((await asked).status_code).toBe(200);
  });

  it("answers over a pub/sub channel", async () => {
    await streams.consume();
    const subscriber = fixture.raw.duplicate();
    const channel = `channel-${randomUUID()}`;
    const message = new Promise<string>((resolve) => subscriber.on("message", (_, text) => resolve(text)));
    await subscriber.subscribe(channel);
    await fixture.raw.xadd(
      streams.stream(),
      "*",
      ...["rid", "r1", "descriptor", descriptor, "response_channel", channel],
    );
    expect(parseMatchReply(await message)).toMatchObject({ rid: "r1", status_code: 200 });
    subscriber.disconnect();
  });

  it("I6: 2,000 requests of 64 callers over two consumers get one answer each", async () => {
    const a = await streams.consume({ batchSize: 16 });
    const b = await streams.consume({ batchSize: 16 });
    let left = 2_000;
    let answered = 0;
    await Promise.all(
      Array.from({ length: 64 }, async () => {
        while (left-- > 0) if ((await streams.request()).status_code === 200) answered++;
      }),
    );
    expect(answered).toBe(2_000);
    await emptied();
    const counts = await eventually("both counts", () => {
      const both = [a.consumer.stats().answered, b.consumer.stats().answered] as const;
      return both[0] + both[1] === 2_000 ? both : undefined;
    });
    expect(Math.min(...counts)).toBeGreaterThan(0);
    for (const batch of [...a.batches, ...b.batches]) expect(batch.length).toBeLessThanOrEqual(16);
    await emptied();
  });

  it("I6: a second reply to the same rid reaches nobody", async () => {
    await streams.consume({
      handle: async (batch, consumer) => {
        const answers = batch.map((entry) => ({ entry, reply: echoOf(entry) }));
        await consumer.reply(answers);
        await consumer.reply(
          answers.map(({ entry, reply }) => ({ entry, reply: { ...reply, revision: 99 } })),
        );
      },
    });
    for (let i = 0; i < 20; i++) expect((await streams.request({ rid: `same-${i}` })).revision).toBe(7);
  });
});

describe("labels", () => {
  it("come and go without waiting for a BLOCK to end", async () => {
    const other = randomUUID();
    const { consumer } = await streams.consume({ labels: [streams.label] });
    await streams.request();
    await eventually("the reader blocks", async () =>
      /flags=b .*cmd=xreadgroup/.test(String(await fixture.raw.client("LIST"))) ? true : undefined,
    );
    const before = await unblockCalls();
    await consumer.setLabels([streams.label, other]);
    expect((await streams.request({ label: other })).status_code).toBe(200);
    expect(await unblockCalls()).toBeGreaterThan(before);
    await consumer.setLabels([other]);
    await expect(streams.request({ timeoutMs: 300 })).rejects.toMatchObject({ errorName: "request_expired" });
    expect((await streams.request({ label: other })).status_code).toBe(200);
  });

  it("are fair: a label whose batch takes long delays no other", async () => {
    const other = randomUUID();
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { batches } = await streams.consume({
      labels: [streams.label, other],
      batchSize: 4,
      handle: async (batch, consumer) => {
        if (batch[0]?.label === streams.label) await gate;
        await consumer.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
      },
    });
    const slow = Array.from({ length: 40 }, () => streams.request({ timeoutMs: limits.maxMatchTimeoutMs }));
    await eventually("a running batch", () => batches[0]);
    // The batch stands still all the while: who waited for it would never be answered.
    for (let i = 0; i < 20; i++) await streams.request({ label: other });
    // I10: at most two batches of a label are held, the rest waits in Redis for whoever is free.
    expect(await pendingCount()).toBeLessThanOrEqual(8);
    release();
    for (const reply of await Promise.all(slow)) expect(reply.status_code).toBe(200);
  });

  it("are left clean: the consumer goes, and the last one takes an empty stream with it", async () => {
    const running = await streams.consume();
    await streams.request();
    await running.stop();
    expect(await fixture.raw.exists(streams.stream())).toBe(0);
  });
});

describe("limits", () => {
  it("I6: what waited past its time is answered as expired, and never searched", async () => {
    const { batches } = await streams.consume({ labels: [] });
    const old = Date.now() - 2_000;
    const replyStream = `lim_reply:${randomUUID()}`;
    await fixture.raw.xadd(replyStream, "*", "hello", "1");
    const fields = [
      "rid",
      "old",
      "descriptor",
      descriptor,
      "timeout_ms",
      "1500",
      "response_stream",
      replyStream,
    ];
    await fixture.raw.xadd(streams.stream(), `${old}-0`, ...fields);
    const { consumer } = await streams.consume({
      handle: async (batch) => {
        throw new Error(`searched ${batch.length}`);
      },
    });
    const reply = await eventually("the answer", async () => {
      const rows = await fixture.raw.xrange(replyStream, "-", "+");
      return rows[1] ? parseMatchReply(rows[1][1][1] ?? "") : undefined;
    });
    expect(reply).toMatchObject({ rid: "old", status_code: 504, error: { error_code: 26302 } });
    expect(consumer.stats()).toMatchObject({ expired: 1, failedBatches: 0 });
    expect(batches).toHaveLength(0);
    await emptied();
  });

  it("fails alone where its match stream is a key of another type", async () => {
    await streams.consume();
    const label = randomUUID();
    await fixture.raw.set(streams.stream(label), "text");
    const [refused, answered] = await Promise.allSettled([streams.request({ label }), streams.request()]);
    expect(refused).toMatchObject({ status: "rejected", reason: { errorName: "internal" } });
    expect(answered).toMatchObject({ status: "fulfilled", value: { status_code: 200 } });
  });

  it("rejects at its deadline where nobody answers, and takes its entry back", async () => {
    await expect(streams.request({ timeoutMs: 200 })).rejects.toMatchObject({ errorName: "request_expired" });
    await eventually("an empty stream", async () =>
      (await fixture.raw.xlen(streams.stream())) === 0 ? true : undefined,
    );
  });

  it("rejects at once when the caller gives up, or closes the client", async () => {
    const abort = new AbortController();
    const asked = streams.request({ signal: abort.signal });
    setImmediate(() => abort.abort());
    await expect(asked).rejects.toMatchObject({ errorName: "aborted" });
    const closing = streams.request();
    setImmediate(() => void streams.client.close());
    await expect(closing).rejects.toMatchObject({ errorName: "aborted" });
    await expect(streams.request()).rejects.toMatchObject({ errorName: "aborted" });
  });

  it("keeps a reply stream only while its client lives", async () => {
    await streams.consume();
    await streams.request();
    const before = await fixture.raw.keys("lim_reply:*");
    const ttls = await Promise.all(before.map((key) => fixture.raw.pttl(key)));
    expect(ttls.some((ttl) => ttl > 0 && ttl <= limits.maxMatchTimeoutMs * 2)).toBe(true);
    await streams.client.close();
    expect((await fixture.raw.keys("lim_reply:*")).length).toBe(before.length - 1);
  });
});

describe("I11: what is malformed is answered where it can be, and harms nobody", () => {
  const junk: [string, (string | Buffer)[], string][] = [
    ["no descriptor", ["rid", "x"], "x"],
    ["no rid", ["descriptor", descriptor], ""],
    ["limit that is no number", ["rid", "x", "descriptor", descriptor, "limit", "many"], "x"],
    ["limit past the highest", ["rid", "x", "descriptor", descriptor, "limit", "1001"], "x"],
    ["timeout past the highest", ["rid", "x", "descriptor", descriptor, "timeout_ms", "86400000"], "x"],
    ["threshold NaN", ["rid", "x", "descriptor", descriptor, "threshold", "NaN"], "x"],
    ["huge descriptor", ["rid", "x", "descriptor", randomBytes(200_000)], "x"],
    ["huge unknown field", ["rid", "x", "descriptor", descriptor, "note", randomBytes(200_000)], "x"],
    ["huge rid", ["rid", "r".repeat(5_000), "descriptor", descriptor], ""],
    ["binary field names", [randomBytes(64), randomBytes(64), "rid", "x"], "x"],
  ];
  it.each(junk)("%s", async (_, fields, rid) => {
    const { consumer } = await streams.consume();
    const reply = await sendRaw(fields);
    const good = streams.request();
    expect(await reply()).toMatchObject({ rid, status_code: 400, error: { error_code: 26306 } });
    expect((await good).status_code).toBe(200);
    await emptied();
    await eventually("both counted", () => (consumer.stats().answered === 2 ? true : undefined));
    expect(consumer.stats().invalid).toBe(1);
  });

  it("never writes to a key that is no reply stream, and survives one of another type", async () => {
    const victim = `victim-${randomUUID()}`;
    await fixture.raw.xadd(victim, "*", "a", "b");
    const wrongType = `lim_reply:${randomUUID()}`;
    await fixture.raw.set(wrongType, "text");
    const usedUp = `lim_reply:${randomUUID()}`;
    await fixture.raw.xadd(usedUp, "18446744073709551615-18446744073709551615", "a", "b");
    await streams.consume();
    for (const target of [victim, wrongType, usedUp, `lim_reply:${randomUUID()}`])
      await fixture.raw.xadd(
        streams.stream(),
        "*",
        ...["rid", "x", "descriptor", descriptor, "response_stream", target],
      );
    expect((await streams.request()).status_code).toBe(200);
    await eventually("an empty stream", async () =>
      (await fixture.raw.xlen(streams.stream())) === 0 ? true : undefined,
    );
    expect(await fixture.raw.xlen(victim)).toBe(1);
    expect(await fixture.raw.get(wrongType)).toBe("text");
  });
});
