import { randomUUID } from "node:crypto";
import type { LabelKeyValue } from "@lim/contracts";
import { defaults } from "@lim/contracts";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { fixedKeys } from "../src/keys.ts";
import { createLabelAnnouncer } from "../src/labels/announcer.ts";
import { createLabelWatcher } from "../src/labels/watcher.ts";
import type { LabelAnnouncer, LabelWatcher } from "../src/port.ts";
import { type RedisFixture, startFixture } from "./support.ts";

const ttlMs = 1_200;
const renewMs = 150;
const pollMs = 50;
const value: LabelKeyValue = {
  index_id: "7c2c4f0a-27c7-4c40-9f7b-0b1f6a5f8a11",
  revision: 4,
  descriptor_version: 1,
  dim: 16,
  count: 9,
  engine: defaults.engine,
};

let fixture: RedisFixture;
let label: string;
const cleanUps: (() => Promise<void>)[] = [];
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());
beforeEach(() => {
  label = randomUUID();
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

function announcer(matcherId: string, redis = fixture.connect(), expiresMs = ttlMs): LabelAnnouncer {
  const made = createLabelAnnouncer({ redis, matcherId, ttlMs: expiresMs, renewMs });
  cleanUps.push(() => made.close());
  return made;
}
function watcher(keepMs = ttlMs): LabelWatcher {
  const made = createLabelWatcher({ redis: fixture.connect(), ttlMs: keepMs, pollMs });
  cleanUps.push(() => made.close());
  return made;
}
const matchersOf = (watching: LabelWatcher) =>
  watching
    .served(label)
    .map(({ matcherId }) => matcherId)
    .toSorted();
/** A refresh may be the answer of a poll that had begun before the last change. */
const untilSeen = (watching: LabelWatcher, matchers: readonly string[]) =>
  eventually(`the view [${matchers}]`, async () => {
    await watching.refresh();
    return matchersOf(watching).join() === matchers.join() ? true : undefined;
  });
/** Longer than anything is awaited: what is gone by then did not expire. */
const longMs = 600_000;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("label keys", () => {
  it("say what is served, by whom, at which revision, and live on by renewal", async () => {
    const one = announcer("host:1");
    await one.announce(label, value);
    await announcer("host:2").announce(label, { ...value, revision: 5 });
    expect(JSON.parse((await fixture.raw.get(`matching_label__${label}__host:1`)) ?? "")).toEqual(value);
    const watching = watcher();
    await untilSeen(watching, ["host:1", "host:2"]);
    await sleep(ttlMs + 300);
    await untilSeen(watching, ["host:1", "host:2"]);
    await one.announce(label, { ...value, revision: 8 });
    await eventually("the newer revision", async () => {
      await watching.refresh();
      const seen = watching.served(label).find(({ matcherId }) => matcherId === "host:1");
      return seen?.value.revision === 8 ? true : undefined;
    });
  });

  it("I8: go at once when withdrawn, without any grace, and stay away", async () => {
    const one = announcer("host:1", fixture.connect(), longMs);
    await one.announce(label, value);
    const watching = watcher(longMs);
    await untilSeen(watching, ["host:1"]);
    await one.withdraw(label);
    expect(await fixture.raw.exists(fixedKeys.labelKey(label, "host:1"))).toBe(0);
    await untilSeen(watching, []);
    await sleep(renewMs * 2);
    expect(await fixture.raw.exists(fixedKeys.labelKey(label, "host:1"))).toBe(0);
    await one.announce(label, value);
    await untilSeen(watching, ["host:1"]);
  });

  it("I8: are gone within their TTL after a crash, from Redis and from every view", async () => {
    const redis = fixture.connect();
    const one = announcer("host:1", redis);
    await one.announce(label, value);
    const watching = watcher();
    await untilSeen(watching, ["host:1"]);
    // A dead process sends nothing any more.
    await redis.close();
    expect(await fixture.raw.pttl(fixedKeys.labelKey(label, "host:1"))).toBeLessThanOrEqual(ttlMs);
    await eventually("no key", async () =>
      (await fixture.raw.exists(fixedKeys.labelKey(label, "host:1"))) === 0 ? true : undefined,
    );
    await eventually("an empty view", () => (matchersOf(watching).length === 0 ? true : undefined));
  });

  it("I9: after FLUSHALL the view holds and the keys come back", async () => {
    const one = announcer("host:1");
    await one.announce(label, value);
    const watching = watcher(longMs);
    await untilSeen(watching, ["host:1"]);
    await fixture.raw.flushall();
    let empty = false;
    await eventually(
      "the key is back",
      async () => {
        await watching.refresh();
        empty ||= matchersOf(watching).length === 0;
        return (await fixture.raw.exists(fixedKeys.labelKey(label, "host:1"))) === 1 ? true : undefined;
      },
      { intervalMs: 1 },
    );
    expect(empty).toBe(false);
  });

  it("I8: what was flushed and never comes back is dropped after one TTL", async () => {
    const redis = fixture.connect();
    await announcer("host:1", redis, longMs).announce(label, value);
    const [watching, patient] = [watcher(), watcher(longMs)];
    await Promise.all([untilSeen(watching, ["host:1"]), untilSeen(patient, ["host:1"])]);
    await redis.close();
    await fixture.raw.flushall();
    await untilSeen(watching, []);
    await patient.refresh();
    expect(matchersOf(patient)).toEqual(["host:1"]);
  });

  it("I9: a restart of Redis is survived by announcer and watcher", async () => {
    await announcer("host:1").announce(label, value);
    const watching = watcher();
    await untilSeen(watching, ["host:1"]);
    await fixture.restart();
    await eventually("the key is back", async () =>
      (await fixture.raw.exists(fixedKeys.labelKey(label, "host:1"))) === 1 ? true : undefined,
    );
    await untilSeen(watching, ["host:1"]);
  });

  it("I11: foreign junk among them is left out", async () => {
    await announcer("host:1").announce(label, value);
    const far = Date.now() + 60_000;
    await fixture.raw.zadd(fixedKeys.labels, far, "no bar", far, `${label}|host:9`, far, `${label}|host:8`);
    await fixture.raw.set(fixedKeys.labelKey(label, "host:8"), "{not json");
    await untilSeen(watcher(), ["host:1"]);
    await fixture.raw.del(fixedKeys.labels);
  });

  it("close takes all of a matcher's keys away", async () => {
    const one = announcer("host:1");
    const other = randomUUID();
    await one.announce(label, value);
    await one.announce(other, value);
    await one.close();
    expect(
      await fixture.raw.exists(fixedKeys.labelKey(label, "host:1"), fixedKeys.labelKey(other, "host:1")),
    ).toBe(0);
    await one.announce(label, value);
    expect(await fixture.raw.exists(fixedKeys.labelKey(label, "host:1"))).toBe(0);
  });
});
