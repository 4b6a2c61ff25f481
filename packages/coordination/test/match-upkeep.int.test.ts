import { randomUUID } from "node:crypto";
import { defaults, limits } from "@lim/contracts";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { commandClient } from "../src/connection.ts";
import { Keys } from "../src/keys.ts";
import type { RedisConnection } from "../src/port.ts";
import { RedisClock } from "../src/streams/clock.ts";
import { abandonedAfterMs, StreamUpkeep } from "../src/streams/upkeep.ts";
import { type RedisFixture, startFixture } from "./support.ts";

const group = defaults.matcherConsumerGroup;
let fixture: RedisFixture;
let redis: RedisConnection;
let label: string;
let stream: string;
let upkeep: StreamUpkeep;
beforeAll(async () => {
  fixture = await startFixture();
  redis = fixture.connect();
});
afterAll(() => fixture.close());
beforeEach(async () => {
  label = randomUUID();
  const keys = new Keys({
    masterLock: "m",
    matcherLockPrefix: "l",
    consumerGroup: group,
    matchStreamPrefix: "lim_match:",
  });
  stream = keys.matchStream(label);
  upkeep = new StreamUpkeep(commandClient(redis), keys, "own", undefined);
  await fixture.raw.xgroup("CREATE", stream, group, "0", "MKSTREAM");
});

/** Entries read by `consumer`, their idle time set. */
async function deliver(consumer: string, count: number, idleMs: number): Promise<string[]> {
  for (let i = 0; i < count; i++) await fixture.raw.xadd(stream, "*", "n", i);
  await fixture.raw.xreadgroup("GROUP", group, consumer, "COUNT", count, "STREAMS", stream, ">");
  const rows = (await fixture.raw.xpending(stream, group, "-", "+", 1_000, consumer)) as [string][];
  const ids = rows.map(([id]) => id).slice(-count);
  for (const id of ids)
    await fixture.raw.call("XCLAIM", stream, group, consumer, 0, id, "IDLE", idleMs, "JUSTID");
  return ids;
}
const ownerOf = async (id: string) =>
  ((await fixture.raw.xpending(stream, group, id, id, 1)) as [string, string, number, number][])[0];

describe("claiming", () => {
  it("takes one delivered entry at a time, oldest first, and charges no other", async () => {
    const ids = await deliver("dead", 4, abandonedAfterMs + 100);
    const { entries } = await upkeep.claim(label, { maxUnread: 10, suspect: true });
    expect(entries).toEqual([{ id: ids[0], deliveries: 2, fields: [Buffer.from("n"), Buffer.from("0")] }]);
    expect((await ownerOf(ids[1] ?? ""))?.slice(1, 2)).toEqual(["dead"]);
    expect((await ownerOf(ids[1] ?? ""))?.[3]).toBe(1);
    expect((await upkeep.claim(label, { maxUnread: 10, suspect: false })).entries).toEqual([]);
  });

  it("leaves alone what is not idle for long enough", async () => {
    await deliver("alive", 3, abandonedAfterMs / 10);
    expect((await upkeep.claim(label, { maxUnread: 10, suspect: true })).entries).toEqual([]);
  });

  it("takes handed-back entries in numbers, as first deliveries", async () => {
    const ids = await deliver("own", 5, 0);
    await upkeep.handBack(label, ids);
    expect((await ownerOf(ids[0] ?? ""))?.[3]).toBe(0);
    const { entries } = await upkeep.claim(label, { maxUnread: 3, suspect: true });
    expect(entries.map(({ id, deliveries }) => [id, deliveries])).toEqual(
      ids.slice(0, 3).map((id) => [id, 1]),
    );
  });

  it("names and acknowledges pending entries that the stream no longer has", async () => {
    const ids = await deliver("dead", 2, abandonedAfterMs + 100);
    await fixture.raw.xdel(stream, ids[0] ?? "");
    const { entries, gone } = await upkeep.claim(label, { maxUnread: 1, suspect: true });
    expect(gone).toBe(1);
    expect(entries.map(({ id }) => id)).toEqual([ids[1]]);
    expect(await ownerOf(ids[0] ?? "")).toBeUndefined();
  });

  it("finds nothing, and fails not, where stream or group are gone", async () => {
    await fixture.raw.del(stream);
    expect(await upkeep.claim(label, { maxUnread: 1, suspect: true })).toEqual({ entries: [], gone: 0 });
    await upkeep.leave(label);
  });
});

describe("renewing", () => {
  const held = (id: string) =>
    ({ entryId: id, touchedAtMs: 0 }) as Parameters<StreamUpkeep["renew"]>[1][number];

  it("I4: resets what is held, and never takes back what another has claimed", async () => {
    const [own = "", stolen = "", deleted = ""] = await deliver("own", 3, 3_600_000);
    await fixture.raw.xclaim(stream, group, "thief", 0, stolen);
    await fixture.raw.xdel(stream, deleted);
    const lost = await upkeep.renew(label, [held(own), held(stolen), held(deleted)]);
    expect(lost.toSorted()).toEqual([stolen, deleted].toSorted());
    expect((await ownerOf(own))?.[2]).toBeLessThan(60_000);
    expect((await ownerOf(stolen))?.[1]).toBe("thief");
  });
});

describe("leaving and sweeping", () => {
  it("I6: never deletes a consumer that holds entries", async () => {
    const [id = ""] = await deliver("own", 1, 0);
    await upkeep.leave(label);
    expect((await ownerOf(id))?.[1]).toBe("own");
    await fixture.raw.xack(stream, group, id);
    await fixture.raw.xdel(stream, id);
    await upkeep.leave(label);
    expect(await fixture.raw.exists(stream)).toBe(0);
  });

  it("keeps the stream while it has entries, consumers or a foreign group", async () => {
    await fixture.raw.xgroup("CREATE", stream, "foreign", "0");
    await upkeep.leave(label);
    expect(await fixture.raw.exists(stream)).toBe(1);
    await fixture.raw.xgroup("DESTROY", stream, "foreign");
    await fixture.raw.xadd(stream, "*", "n", 1);
    await upkeep.leave(label);
    expect(await fixture.raw.exists(stream)).toBe(1);
  });

  it("takes the stream though a dead consumer is named in it, but not one that holds entries", async () => {
    await fixture.raw.xgroup("CREATECONSUMER", stream, group, "other");
    await upkeep.leave(label, 60_000);
    expect(await fixture.raw.exists(stream)).toBe(1);
    const [id = ""] = await deliver("other", 1, 0);
    await fixture.raw.xdel(stream, id);
    await upkeep.leave(label, 0);
    expect(await fixture.raw.exists(stream)).toBe(1);
    await fixture.raw.xack(stream, group, id);
    await upkeep.leave(label, 0);
    expect(await fixture.raw.exists(stream)).toBe(0);
  });

  it("cuts off what nobody can wait for any more, and nothing younger", async () => {
    const clock = new RedisClock(redis, undefined);
    await clock.ready(new AbortController().signal);
    const now = Date.now();
    await fixture.raw.xadd(stream, `${now - limits.maxMatchTimeoutMs - 31_000}-0`, "n", "old");
    const young = await fixture.raw.xadd(stream, `${now - limits.maxMatchTimeoutMs - 1_000}-0`, "n", "young");
    await upkeep.sweep(label, clock);
    expect((await fixture.raw.xrange(stream, "-", "+")).map(([id]) => id)).toEqual([young]);
  });
});
