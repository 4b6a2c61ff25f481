import { randomUUID } from "node:crypto";
import { matchReplySchema } from "@lim/contracts";
import { createSearchPlugin } from "@lim/search-plugin";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createFilledList,
  dim,
  facesOf,
  type Harness,
  publishIndex,
  startHarness,
  vectorOf,
} from "./harness.ts";
import { openPlainConnection, type PlainConnection } from "./plain-client.ts";

const people = 30;
let harness: Harness;
let label: string;
let indexId: string;
let asking: PlainConnection;
let listening: PlainConnection;
let channel: string;

beforeAll(async () => {
  harness = await startHarness();
  label = await createFilledList(harness, "plain", people);
  indexId = await publishIndex(harness, harness.storage, label);
  await harness.startMatcher({ LIM_MATCH_STREAM_PREFIX: "" });
  [asking, listening] = await Promise.all([
    openPlainConnection(harness.redis.url),
    openPlainConnection(harness.redis.url),
  ]);
  channel = `replies-${randomUUID()}`;
  expect(await listening.command("SUBSCRIBE", channel)).toEqual(["subscribe", channel, 1]);
});
afterAll(async () => {
  asking?.close();
  listening?.close();
  await harness?.close();
});

/** 8 bytes before the numbers: `dp\0\0` and the version. */
function descriptorOf(vector: Float32Array, version = 1): Buffer {
  const bytes = Buffer.alloc(8 + vector.length * 4);
  bytes.write("dp\0\0", "latin1");
  bytes.writeUInt32LE(version, 4);
  vector.forEach((value, i) => {
    bytes.writeFloatLE(value, 8 + i * 4);
  });
  return bytes;
}

/** The six fields of the plain form, in no order that matters. */
async function ask(descriptor: Buffer, changes: Record<string, string> = {}) {
  const rid = randomUUID();
  const fields: Record<string, string> = {
    label,
    limit: "3",
    response_channel: channel,
    luna_request_id: `1700000000,${randomUUID()}`,
    rid,
    ...changes,
  };
  const id = await asking.command(
    "XADD",
    label,
    "*",
    "descriptor",
    descriptor,
    ...Object.entries(fields).flat(),
  );
  expect(id).toMatch(/^\d+-\d+$/);
  const message = await listening.next();
  expect(message).toEqual(["message", channel, expect.any(String)]);
  const reply = matchReplySchema.parse(JSON.parse((message as string[])[2] ?? ""));
  expect(reply.rid).toBe(rid);
  return reply;
}

describe("a client of the plain form, by commands alone", () => {
  it("is answered on its channel: the stream is named as the label", async () => {
    for (const person of [0, 7, 29]) {
      const reply = await ask(descriptorOf(vectorOf(person)));
      expect(reply).toMatchObject({ status_code: 200, error: null, index_id: indexId });
      expect(reply.result).toHaveLength(3);
      expect(reply.result[0]).toEqual([facesOf("plain", person, 1)[0]?.faceId, expect.closeTo(1, 4)]);
    }
    await eventually("nothing is left on the stream", async () =>
      (await asking.command("XLEN", label)) === 0 ? true : undefined,
    );
  });

  it("finds out whether the label is served by its key", async () => {
    const [, keys] = (await asking.command(
      "SCAN",
      "0",
      "MATCH",
      `matching_label__${label}__*`,
      "COUNT",
      "10000",
    )) as [string, string[]];
    expect(keys).toEqual([
      expect.stringMatching(new RegExp(`^matching_label__${label}__127\\.0\\.0\\.1:\\d+$`)),
    ]);
    const value = JSON.parse(String(await asking.command("GET", keys[0] ?? "")));
    expect(value).toMatchObject({ index_id: indexId, descriptor_version: 1, dim, count: people });
  });

  it("is told 26305 of a descriptor of another version, and 26306 of what is no request", async () => {
    const otherVersion = await ask(descriptorOf(vectorOf(0), 2));
    expect(otherVersion).toMatchObject({ status_code: 400, result: [], error: { error_code: 26305 } });
    for (const [descriptor, changes] of [
      [Buffer.from("short"), {}],
      [descriptorOf(vectorOf(0)), { limit: "many" }],
      [descriptorOf(vectorOf(0)), { label: randomUUID() }],
    ] as const)
      expect(await ask(descriptor, changes)).toMatchObject({
        status_code: 400,
        result: [],
        error: { error_code: 26306 },
      });
  });

  it("shares its stream with the search plugin", async () => {
    const plugin = await createSearchPlugin({
      redis: { url: harness.redis.url },
      dim,
      matchStreamPrefix: "",
    });
    try {
      const [answer] = await plugin.match({ label, references: [{ descriptor: vectorOf(3) }], limit: 1 });
      expect(answer).toMatchObject({
        path: "index",
        indexId,
        matches: [[facesOf("plain", 3, 1)[0]?.faceId, expect.closeTo(1, 4)]],
      });
      expect((await ask(descriptorOf(vectorOf(4)))).result[0]?.[0]).toBe(facesOf("plain", 4, 1)[0]?.faceId);
    } finally {
      await plugin.close();
    }
  });
});
