import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createIndexerRegistry } from "../src/indexer-registry.ts";
import { fixedKeys, Keys } from "../src/keys.ts";
import { createLabelLocks } from "../src/label-locks.ts";
import { freshKeyNames, type RedisFixture, startFixture } from "./support.ts";

let fixture: RedisFixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());

describe("locks of labels", () => {
  const ttlMs = 2_000;

  it("gives a label to one at a time, and renews it while held", async () => {
    const names = freshKeyNames();
    const [a, b] = [fixture.connect(), fixture.connect()].map((redis) =>
      createLabelLocks({ redis, keys: names }),
    );
    const held = await a?.tryAcquire("one", { ttlMs });
    expect(held).toBeDefined();
    expect(await b?.tryAcquire("one", { ttlMs })).toBeUndefined();
    const other = await b?.tryAcquire("two", { ttlMs });
    expect(other).toBeDefined();
    // Past the end of one that nobody renewed.
    await sleep(1.2 * ttlMs);
    expect(await b?.tryAcquire("one", { ttlMs })).toBeUndefined();
    expect(held?.signal.aborted).toBe(false);
    await held?.release();
    const next = await b?.tryAcquire("one", { ttlMs });
    expect(next).toBeDefined();
    // A second release must not free what another holds now.
    await held?.release();
    expect(await a?.tryAcquire("one", { ttlMs })).toBeUndefined();
    await next?.release();
    await other?.release();
    expect(await fixture.raw.exists(new Keys(names).labelLock("one"))).toBe(0);
  });

  it("tells its holder when it is lost (I4)", async () => {
    const names = freshKeyNames();
    const locks = createLabelLocks({ redis: fixture.connect(), keys: names });
    const held = await locks.tryAcquire("one", { ttlMs });
    await fixture.raw.set(new Keys(names).labelLock("one"), "another", "PX", 5_000);
    await eventually("the signal fires", () => held?.signal.aborted || undefined);
    expect(held?.signal.reason).toMatchObject({ errorName: "fenced" });
    await held?.release();
    expect(await fixture.raw.get(new Keys(names).labelLock("one"))).toBe("another");
  });

  it("is not kept by a try that was aborted", async () => {
    const names = freshKeyNames();
    const locks = createLabelLocks({ redis: fixture.connect(), keys: names });
    const controller = new AbortController();
    const trying = locks.tryAcquire("one", { ttlMs: 60_000, signal: controller.signal });
    controller.abort();
    await expect(trying).rejects.toMatchObject({ errorName: "aborted" });
    await eventually("the lock is free", () => locks.tryAcquire("one", { ttlMs })).then((lock) =>
      lock.release(),
    );
  });

  it("says that Redis is away instead of that another holds it", async () => {
    const redis = fixture.connect();
    const locks = createLabelLocks({ redis, keys: freshKeyNames() });
    await redis.close();
    await expect(locks.tryAcquire("one", { ttlMs })).rejects.toMatchObject({
      errorName: "redis_unavailable",
    });
  });
});

describe("registration of indexers", () => {
  it("lists who is alive, heals after a flush, and is gone at the end", async () => {
    const registry = createIndexerRegistry({ redis: fixture.connect() });
    const origins = ["http://10.0.0.1:5180", "http://10.0.0.2:5180"];
    const ends = origins.map(() => new AbortController());
    const running = origins.map((origin, n) =>
      registry.announce({ origin, ttlMs: 600, signal: ends[n]?.signal ?? AbortSignal.abort() }),
    );
    const both = () =>
      eventually("both are listed", async () => ((await registry.origins()).length === 2 ? true : undefined));
    await both();
    expect(await registry.origins()).toEqual(origins);
    await sleep(900);
    expect(await registry.origins()).toEqual(origins);
    await fixture.raw.flushall();
    await both();
    await fixture.restart();
    await both();
    ends[0]?.abort();
    await running[0];
    expect(await registry.origins()).toEqual(origins.slice(1));
    ends[1]?.abort();
    await running[1];
    expect(await registry.origins()).toEqual([]);
  });

  it("expires with its process and leaves a successor's registration alone", async () => {
    const registry = createIndexerRegistry({ redis: fixture.connect() });
    const origin = `http://${randomUUID()}:5180`;
    const end = new AbortController();
    const running = registry.announce({ origin, ttlMs: 30_000, signal: end.signal });
    const key = fixedKeys.indexer(origin);
    await eventually("it is announced", async () => (await fixture.raw.get(key)) ?? undefined);
    expect(await fixture.raw.pttl(key)).toBeGreaterThan(0);
    await fixture.raw.set(key, "successor", "PX", 30_000);
    end.abort();
    await running;
    expect(await registry.origins()).toContain(origin);
  });
});
