import { randomUUID } from "node:crypto";
import type { MatchReply } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { type StreamFixture, streamFixture } from "./stream-support.ts";
import { type RedisFixture, startFixture } from "./support.ts";

let fixture: RedisFixture;
let streams: StreamFixture;
let group: string;
let stream: string;
let rid: string;
let reply: Promise<MatchReply>;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());
beforeEach(async () => {
  streams = streamFixture(fixture);
  group = streams.keys.consumerGroup;
  stream = streams.stream();
  rid = randomUUID();
  await fixture.raw.xgroup("CREATE", stream, group, "0", "MKSTREAM");
  reply = streams.request({ rid });
});
afterEach(() => streams.close());

const entries = async (): Promise<string[]> =>
  (await fixture.raw.xrange(stream, "-", "+")).map(([entryId]) => entryId);
const firstEntry = (): Promise<string> => eventually("the entry", async () => (await entries())[0]);

/** The stream's client has told the request of its entry. */
const resent = (): Promise<true> =>
  eventually("sent again", async () => (await streams.client.resend(rid)) || undefined);

async function answered(): Promise<void> {
  await streams.consume();
  expect((await reply).rid).toBe(rid);
}

it("leaves a request alone that waits unread, and does not know one that is answered", async () => {
  await firstEntry();
  for (let i = 0; i < 5; i++) expect(await streams.client.resend(rid)).toBe(false);
  expect(await entries()).toHaveLength(1);
  await answered();
  expect(await streams.client.resend(rid)).toBe(false);
});

it("takes an entry from a consumer that is silent for long, and asks the others by the same rid", async () => {
  const id = await firstEntry();
  await fixture.raw.xreadgroup("GROUP", group, "dead", "COUNT", 1, "STREAMS", stream, ">");
  await fixture.raw.call("XCLAIM", stream, group, "dead", 0, id, "IDLE", 60_000, "JUSTID");
  await resent();
  const held = (await fixture.raw.xpending(stream, group)) as unknown[];
  expect(held[0]).toBe(0);
  expect(await entries()).toEqual([expect.not.stringMatching(id)]);
  await answered();
});

it("sends again what the stream has lost", async () => {
  await fixture.raw.xdel(stream, await firstEntry());
  await resent();
  expect(await entries()).toHaveLength(1);
  await answered();
});

it("sends again once where it is asked to twice at a time", async () => {
  await fixture.raw.xdel(stream, await firstEntry());
  await eventually("sent again by one of two", async () => {
    const both = await Promise.all([streams.client.resend(rid), streams.client.resend(rid)]);
    return both[0] !== both[1] || undefined;
  });
  expect(await entries()).toHaveLength(1);
  await answered();
});

it("takes back what it sent again while its caller gave up", async () => {
  const controller = new AbortController();
  const ownRid = randomUUID();
  const own = streams.request({ rid: ownRid, signal: controller.signal });
  const refused = expect(own).rejects.toMatchObject({ errorName: "aborted" });
  await eventually("both entries", async () => (await entries()).length === 2 || undefined);
  const loseAll = async () => {
    for (const id of await entries()) await fixture.raw.xdel(stream, id);
  };
  await loseAll();
  await eventually("sent again", async () => (await streams.client.resend(ownRid)) || undefined);
  await loseAll();
  const again = streams.client.resend(ownRid);
  controller.abort();
  expect(await again).toBe(true);
  await refused;
  await eventually("no entry", async () => (await entries()).length === 0 || undefined);
  await resent();
  await answered();
});
