import { randomUUID } from "node:crypto";
import { limits, type MatchReply } from "@lim/contracts";
import { eventually, type ManagedProcess } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { fixedKeys } from "../src/keys.ts";
import { createLabelAnnouncer } from "../src/labels/announcer.ts";
import { abandonedAfterMs } from "../src/streams/upkeep.ts";
import { descriptor, echoOf, type StreamFixture, streamFixture } from "./stream-support.ts";
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

const consumersOf = async () => {
  const rows = (await fixture.raw.xinfo(
    "CONSUMERS",
    streams.stream(),
    streams.keys.consumerGroup,
  )) as unknown[][];
  return rows.map((row) => String(row[1]));
};

const heldCount = async () => {
  const [count] = (await fixture.raw.xpending(streams.stream(), streams.keys.consumerGroup)) as [number];
  return count;
};

describe("a consumer that dies", () => {
  it("keeps what it holds as long as it lives, however long its search takes", async () => {
    const victim = streams.spawn("victim");
    await victim.waitForLine(/consuming/, { timeoutMs: 30_000 });
    const timeoutMs = limits.maxMatchTimeoutMs;
    const asked = [streams.request({ lunaRequestId: "stuck", timeoutMs })];
    await victim.waitForLine(/batch 1/, { timeoutMs: 30_000 });
    for (let i = 0; i < 5; i++) asked.push(streams.request({ timeoutMs }));
    await eventually("entries held", async () => ((await heldCount()) === 6 ? true : undefined));
    const { consumer } = await streams.consume();
    await new Promise((resolve) => setTimeout(resolve, abandonedAfterMs + 1_000));
    expect(consumer.stats().claimed).toBe(0);
    victim.kill("SIGKILL");
    for (const reply of await Promise.all(asked)) expect(reply.status_code).toBe(200);
    expect(consumer.stats().claimed).toBe(6);
  });

  it("I6: killed with a full hold, all its callers are answered by the survivor", async () => {
    const victim = streams.spawn("victim");
    await victim.waitForLine(/consuming/, { timeoutMs: 30_000 });
    const stuck = streams.request({ lunaRequestId: "stuck" });
    await victim.waitForLine(/batch 1/, { timeoutMs: 30_000 });
    const others = Array.from({ length: 6 }, () => streams.request());
    await eventually("entries held", async () => ((await heldCount()) === 7 ? true : undefined));
    victim.kill("SIGKILL");
    await victim.exited;
    const { consumer, batches } = await streams.consume();
    for (const reply of await Promise.all([stuck, ...others])) expect(reply.status_code).toBe(200);
    expect(consumer.stats().claimed).toBe(7);
    // Delivered once already, each might be the one that killed: none drags another along.
    for (const batch of batches) expect(batch).toHaveLength(1);
  });

  it("I11: a poison entry ends in the dead letters with its caller told, innocents of its batch are answered", async () => {
    let stopping = false;
    let deaths = 0;
    const children: ManagedProcess[] = [];
    const supervise = async (name: string) => {
      for (let life = 0; !stopping && life < 20; life++) {
        const child = streams.spawn(`${name}-${life}`);
        children.push(child);
        if ((await child.exited) === "SIGKILL") deaths++;
      }
    };
    const timeoutMs = limits.maxMatchTimeoutMs;
    // Sent before anybody reads, so that all of them are in one batch.
    const poison = streams.request({ lunaRequestId: "poison", timeoutMs });
    const innocents = Array.from({ length: 5 }, () => streams.request({ timeoutMs }));
    await eventually("entries sent", async () =>
      (await fixture.raw.xlen(streams.stream())) === 6 ? true : undefined,
    );
    const supervisors = [supervise("a"), supervise("b")];
    try {
      expect(await poison).toMatchObject({ status_code: 500, error: { error_code: 26303 } });
      for (const reply of await Promise.all(innocents)) {
        expect(reply).toMatchObject({ status_code: 200 });
        // The revision of this echo is the count of its deliveries: once with the poison, once alone.
        expect(reply.revision).toBeLessThanOrEqual(2);
      }
      expect(deaths).toBe(limits.maxMatchDeliveries);
      const dead = await fixture.raw.xrangeBuffer(fixedKeys.deadLetters, "-", "+");
      expect(dead).toHaveLength(1);
      const fields = dead[0]?.[1].map((field) => field.toString("latin1")) ?? [];
      expect(fields).toContain(streams.label);
      expect(fields[fields.indexOf("descriptor") + 1]).toBe(descriptor.toString("latin1"));
    } finally {
      stopping = true;
      for (const child of children) child.kill("SIGKILL");
      await Promise.all(supervisors);
    }
  });

  it("hands back what it has read ahead when it stops, uncounted and at once", async () => {
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const leaving = await streams.consume({
      batchSize: 4,
      handle: async (batch, consumer) => {
        await gate;
        await consumer.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
      },
    });
    const asked: Promise<MatchReply>[] = [streams.request()];
    await eventually("a running batch", () => leaving.batches[0]);
    for (let i = 0; i < 3; i++) asked.push(streams.request());
    await eventually("entries held", async () => ((await heldCount()) === 4 ? true : undefined));
    const stopping = leaving.stop();
    const { batches } = await streams.consume();
    for (const reply of await Promise.all(asked.slice(1))) expect(reply.status_code).toBe(200);
    // What is taken over as abandoned counts as delivered again.
    for (const batch of batches) for (const entry of batch) expect(entry.deliveries).toBe(1);
    release();
    await stopping;
    expect((await asked[0])?.status_code).toBe(200);
    expect(await consumersOf()).toHaveLength(1);
  });
});

describe("a handler that fails", () => {
  it("leaves its entries to come again, alone; past the limit they are dead letters", async () => {
    const rid = randomUUID();
    const { consumer, batches } = await streams.consume({
      handle: async (batch, self) => {
        if (batch.some((entry) => entry.rid === rid && entry.deliveries < 2))
          throw new Error("engine failed");
        await self.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
      },
    });
    expect((await streams.request({ rid, timeoutMs: 10_000 })).status_code).toBe(200);
    expect(consumer.stats()).toMatchObject({ failedBatches: 1, claimed: 1 });
    expect(batches.map((batch) => batch.length)).toEqual([1, 1]);
  });
});

describe("Redis loses everything", () => {
  it("I6, I9: after FLUSHALL groups and reply streams heal, and requests in flight are answered", async () => {
    let held = true;
    await streams.consume({
      handle: async (batch, consumer) => {
        while (held) await new Promise((resolve) => setTimeout(resolve, 10));
        await consumer.reply(batch.map((entry) => ({ entry, reply: echoOf(entry) })));
      },
    });
    const inFlight = Array.from({ length: 10 }, () => streams.request());
    await eventually("entries sent", async () =>
      (await fixture.raw.xlen(streams.stream())) === 10 ? true : undefined,
    );
    await fixture.raw.flushall();
    held = false;
    for (const reply of await Promise.all(inFlight)) expect(reply.status_code).toBe(200);
    expect((await streams.request()).status_code).toBe(200);
  });

  it("I6, I9: FLUSHALL again and again under load costs no caller its answer or error", async () => {
    await streams.consume();
    let running = true;
    const outcomes = { answered: 0, failed: 0 };
    const callers = Array.from({ length: 8 }, async () => {
      while (running) {
        await streams.request().then(
          () => outcomes.answered++,
          () => outcomes.failed++,
        );
      }
    });
    for (let i = 0; i < 3; i++) {
      await new Promise((resolve) => setTimeout(resolve, 700));
      await fixture.raw.flushall();
    }
    const before = outcomes.answered;
    await eventually("answers after the last flush", () =>
      outcomes.answered > before + 50 ? true : undefined,
    );
    running = false;
    await Promise.all(callers);
    expect(outcomes.failed).toBe(0);
  });

  it("ends consumer, client and label keys in time while Redis is away", async () => {
    const away = await startFixture();
    const other = streamFixture(away);
    const { stop } = await other.consume();
    const announcer = createLabelAnnouncer({
      redis: away.connect(),
      matcherId: "host:1",
      ttlMs: 2_000,
      renewMs: 500,
    });
    expect((await other.request()).status_code).toBe(200);
    for (const pid of away.pids) process.kill(pid, "SIGKILL");
    const failed = expect(other.request({ timeoutMs: 10_000 })).rejects.toMatchObject({
      errorName: "redis_unavailable",
    });
    await failed;
    const startedAt = performance.now();
    await stop();
    await announcer.close();
    await other.close();
    // Each part waits out a limit of seconds, none the client library's own of more than a minute.
    expect(performance.now() - startedAt).toBeLessThan(30_000);
    await away.close();
  });

  it("I6, I9: a restart without persistence is survived by consumer and client", async () => {
    await streams.consume();
    expect((await streams.request()).status_code).toBe(200);
    await fixture.restart();
    const reply = await eventually("an answer", () => streams.request({ timeoutMs: 3_000 }), {
      timeoutMs: 30_000,
    });
    expect(reply.status_code).toBe(200);
  });
});
