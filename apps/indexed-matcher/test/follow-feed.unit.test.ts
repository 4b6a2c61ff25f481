import { setImmediate } from "node:timers/promises";
import { LimError } from "@lim/contracts";
import type { ChangePackets, FaceChanges } from "@lim/faces-db";
import { expect, test } from "vitest";
import { followFeed } from "../src/follow-feed.ts";
import { IndexHolder } from "../src/index-holder.ts";
import { FakeKeyed, indexIdOf, metaOf } from "./fakes.ts";

function packet(fromRevision: number, toRevision: number): FaceChanges {
  return {
    kind: "changes",
    fromRevision,
    toRevision,
    headRevision: 20,
    upserts: [],
    removals: [indexIdOf(toRevision)],
    skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 },
  };
}

const read = (...packets: FaceChanges[]): ChangePackets => ({ kind: "packets", packets });

function setUp(...reads: (ChangePackets | Error)[]) {
  const keyed = new FakeKeyed();
  const holder = new IndexHolder({ meta: metaOf({ revision: 10 }), keyed, sizeBytes: 1 });
  const asked: number[] = [];
  const db = {
    async readPackets({ sinceRevision }: { sinceRevision: number }) {
      asked.push(sinceRevision);
      const next = reads.shift() ?? { kind: "up_to_date" as const, headRevision: sinceRevision };
      if (next instanceof Error) throw next;
      return next;
    },
  };
  const stop = new AbortController();
  const follow = (toRevision = 20, applyAfter?: Promise<unknown>) =>
    followFeed(db, holder, {
      toRevision,
      maxFaces: 10,
      signal: stop.signal,
      ...(applyAfter ? { applyAfter } : {}),
    });
  return { keyed, holder, asked, follow, stop };
}

test("I1: packets are read from where the last one ended until the revision is reached", async () => {
  const { holder, keyed, asked, follow } = setUp(
    read(packet(10, 12), packet(12, 14)),
    read(packet(14, 20)),
    read(packet(20, 21)),
  );
  expect(await follow()).toBeUndefined();
  expect([asked, keyed.applied.length, holder.revision]).toEqual([[10, 14], 3, 20]);
});

test("I10: while packets are applied the next are read, and no more than those", async () => {
  const { keyed, asked, follow } = setUp(
    read(packet(10, 12), packet(12, 14)),
    read(packet(14, 16)),
    read(packet(16, 20)),
  );
  const askedAt: number[][] = [];
  keyed.apply = async (change) => {
    await setImmediate();
    askedAt.push([...asked]);
    return { added: 0, replaced: 0, removed: change.removals.length, unchanged: 0 };
  };
  await follow();
  expect(askedAt).toEqual([
    [10, 14],
    [10, 14],
    [10, 14, 16],
    [10, 14, 16],
  ]);
});

test("I5: the revision moves only once the packet is applied", async () => {
  const { holder, keyed, follow } = setUp(read(packet(10, 15), packet(15, 20)));
  const during: number[] = [];
  keyed.apply = async () => {
    await Promise.resolve();
    during.push(holder.revision);
    return { added: 0, replaced: 0, removed: 1, unchanged: 0 };
  };
  await follow();
  expect([during, holder.revision]).toEqual([[10, 15], 20]);
});

test("a packet that is refused leaves the index as it was; a failed engine is marked for a reload", async () => {
  const refused = setUp(read(packet(10, 20)));
  refused.keyed.failure = new LimError("bad_input", "no unit norm");
  await expect(refused.follow()).rejects.toThrow("no unit norm");
  expect([refused.holder.revision, refused.holder.failed]).toEqual([10, false]);
  const dead = setUp(read(packet(10, 20)));
  dead.keyed.failure = new LimError("engine_failed", "thread died");
  await expect(dead.follow()).rejects.toThrow("thread died");
  expect([dead.holder.revision, dead.holder.failed]).toEqual([10, true]);
});

test("I10: packets that do not advance end the loop, a gap is told once what was read before is applied", async () => {
  await expect(setUp(read(packet(10, 10))).follow()).rejects.toThrow("does not advance");
  await expect(setUp(read(packet(10, 12), packet(12, 12))).follow()).rejects.toThrow("does not advance");
  const { holder, follow } = setUp(read(packet(10, 14)), { kind: "gap", gap: "compacted" });
  expect(await follow()).toBe("compacted");
  expect(holder.revision).toBe(14);
});

test("a read that fails ahead of its turn is heard in its turn", async () => {
  const { holder, follow } = setUp(read(packet(10, 14)), new LimError("postgres_unavailable", "away"));
  await expect(follow()).rejects.toThrow("away");
  expect(holder.revision).toBe(14);
});

test("an abort ends it between two packets; nothing is applied before what it waits for", async () => {
  const { holder, keyed, follow, stop } = setUp(read(packet(10, 14), packet(14, 20)));
  let begin = () => {};
  const following = follow(20, new Promise<void>((resolve) => (begin = resolve)));
  await setImmediate();
  expect(keyed.applied).toEqual([]);
  const apply = keyed.apply.bind(keyed);
  keyed.apply = async (change) => {
    stop.abort(new LimError("aborted", "stopped"));
    return apply(change);
  };
  begin();
  await expect(following).rejects.toThrow("stopped");
  expect([keyed.applied.length, holder.revision]).toEqual([1, 14]);
});
