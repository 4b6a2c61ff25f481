import { randomUUID } from "node:crypto";
import { replyStreamPrefix } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, expect, it } from "vitest";
import { connectRedis } from "../src/connection.ts";
import { defaultKeyNames } from "../src/keys.ts";
import { createMatchClient } from "../src/streams/client.ts";
import { createMatchConsumer } from "../src/streams/consumer.ts";
import { descriptor } from "./stream-support.ts";
import { type RedisFixture, startFixture } from "./support.ts";

let fixture: RedisFixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());

it("a client closed while its first request is on its way leaves no failure behind and no reply stream", async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => unhandled.push(reason);
  process.on("unhandledRejection", note);
  try {
    const redis = connectRedis({ url: fixture.url, name: "short" });
    await redis.ping();
    const client = createMatchClient({ redis, keys: defaultKeyNames });
    const asked = client.request({
      label: randomUUID(),
      rid: randomUUID(),
      descriptor,
      limit: 1,
      timeoutMs: 5_000,
    });
    const told = expect(asked).rejects.toMatchObject({ errorName: "aborted" });
    await new Promise((resolve) => setImmediate(resolve));
    await client.close();
    await redis.close();
    await told;
    // What was on its way when all was closed has come back by now.
    await fixture.raw.ping();
    await new Promise((resolve) => setTimeout(resolve, 50));
  } finally {
    process.off("unhandledRejection", note);
  }
  expect(unhandled).toEqual([]);
  expect(await fixture.raw.keys(`${replyStreamPrefix}*`)).toEqual([]);
});

it("a consumer of many labels ends in time while Redis hangs", async () => {
  const hanging = await startFixture();
  const consumer = createMatchConsumer({
    redis: hanging.connect(),
    keys: defaultKeyNames,
    consumerName: "one",
    batchSize: 8,
  });
  const stop = new AbortController();
  await consumer.setLabels(Array.from({ length: 30 }, () => randomUUID()));
  const running = consumer.run(async () => {}, { signal: stop.signal });
  await eventually("reading", async () =>
    String(await hanging.raw.client("LIST")).includes("cmd=xreadgroup") ? true : undefined,
  );
  for (const pid of hanging.pids) process.kill(pid, "SIGSTOP");
  try {
    const startedAtMs = performance.now();
    stop.abort();
    await running;
    await consumer.close();
    // Labels that waited one after the other would take a minute.
    expect(performance.now() - startedAtMs).toBeLessThan(30_000);
  } finally {
    for (const pid of hanging.pids) process.kill(pid, "SIGCONT");
    await hanging.close();
  }
});

it("a server that refuses to be read is complained of once, and once when it is over", async () => {
  const lines: string[] = [];
  const write = (_fields: object, message: string) => {
    lines.push(message);
  };
  const consumer = createMatchConsumer({
    redis: fixture.connect(),
    keys: defaultKeyNames,
    consumerName: "one",
    batchSize: 8,
    log: { debug() {}, info: write, warn: write, error: write },
  });
  const stop = new AbortController();
  await consumer.setLabels([randomUUID()]);
  await fixture.raw.call("ACL", "SETUSER", "default", "-xreadgroup");
  const running = consumer.run(async () => {}, { signal: stop.signal });
  try {
    await eventually("complained", () => lines.find((line) => /cannot be read/.test(line)));
    await new Promise((resolve) => setTimeout(resolve, 900));
    await fixture.raw.call("ACL", "SETUSER", "default", "+xreadgroup");
    await eventually("over", () => lines.find((line) => /read again/.test(line)));
    expect(lines).toEqual(["match streams cannot be read, trying again", "match streams are read again"]);
  } finally {
    stop.abort();
    await running;
    await consumer.close();
  }
});
