import { LimError } from "@lim/contracts";
import type { ChangePacket } from "@lim/faces-db";
import { expect, test } from "vitest";
import { followFeed } from "../src/follow-feed.ts";
import { IndexHolder } from "../src/index-holder.ts";
import { FakeKeyed, indexIdOf, metaOf } from "./fakes.ts";

function packet(fromRevision: number, toRevision: number): ChangePacket {
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

function setUp(...packets: ChangePacket[]) {
  const keyed = new FakeKeyed();
  const holder = new IndexHolder({ meta: metaOf({ revision: 10 }), keyed, sizeBytes: 1 });
  const asked: number[] = [];
  const db = {
    async readPacket({ sinceRevision }: { sinceRevision: number }) {
      asked.push(sinceRevision);
      return packets.shift() ?? { kind: "up_to_date" as const, headRevision: sinceRevision };
    },
  };
  const follow = (toRevision = 20) =>
    followFeed(db, holder, { toRevision, maxFaces: 10, signal: new AbortController().signal });
  return { keyed, holder, asked, follow };
}

test("I1: packets are read from where the last one ended until the revision is reached", async () => {
  const { holder, keyed, asked, follow } = setUp(packet(10, 14), packet(14, 20), packet(20, 21));
  expect(await follow()).toBeUndefined();
  expect([asked, keyed.applied.length, holder.revision]).toEqual([[10, 14], 2, 20]);
});

test("I5: the revision moves only once the packet is applied", async () => {
  const { holder, keyed, follow } = setUp(packet(10, 20));
  let during = 0;
  keyed.apply = async () => {
    await Promise.resolve();
    during = holder.revision;
    return { added: 0, replaced: 0, removed: 1, unchanged: 0 };
  };
  await follow();
  expect([during, holder.revision]).toEqual([10, 20]);
});

test("a packet that is refused leaves the index as it was; a failed engine is marked for a reload", async () => {
  const refused = setUp(packet(10, 20));
  refused.keyed.failure = new LimError("bad_input", "no unit norm");
  await expect(refused.follow()).rejects.toThrow("no unit norm");
  expect([refused.holder.revision, refused.holder.failed]).toEqual([10, false]);
  const dead = setUp(packet(10, 20));
  dead.keyed.failure = new LimError("engine_failed", "thread died");
  await expect(dead.follow()).rejects.toThrow("thread died");
  expect([dead.holder.revision, dead.holder.failed]).toEqual([10, true]);
});

test("I10: a packet that does not advance ends the loop, a gap is told", async () => {
  await expect(setUp(packet(10, 10)).follow()).rejects.toThrow("does not advance");
  expect(await setUp({ kind: "gap", gap: "compacted" }).follow()).toBe("compacted");
});
