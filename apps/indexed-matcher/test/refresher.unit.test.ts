import { setImmediate } from "node:timers/promises";
import type { ChangePackets, ListState } from "@lim/faces-db";
import { eventually } from "@lim/testkit";
import { expect, onTestFinished, test } from "vitest";
import { IndexHolder } from "../src/index-holder.ts";
import type { MatcherMetrics } from "../src/metrics.ts";
import { maxParallelPasses, maxPassRevisions, Refresher } from "../src/refresher.ts";
import { Registry } from "../src/registry.ts";
import { FakeKeyed, historyId, indexIdOf, metaOf } from "./fakes.ts";

const ignore = () => {};
const metrics: MatcherMetrics = {
  answered: ignore,
  waited: ignore,
  searched: ignore,
  replied: ignore,
  refreshed: ignore,
  refreshFailed: ignore,
  revisionsRead: ignore,
  loaded: ignore,
  loadFailed: ignore,
  storageRead: ignore,
  cacheEvent: ignore,
  cacheHolds: ignore,
  dropped: ignore,
};

/** Feeds of additions only, of as many revisions as each list's head says. */
class FakeFeeds {
  readonly heads = new Map<string, number>();
  /** Lists to which somebody adds without end, so much with every read. */
  readonly endless = new Map<string, number>();
  historyId = historyId;
  reads = 0;

  async listStates({ listIds = [] }: { listIds?: readonly string[] } = {}): Promise<ListState[]> {
    return listIds.flatMap((listId) => {
      const revision = this.heads.get(listId);
      if (revision === undefined) return [];
      const state = { listId, historyId: this.historyId, name: "", revision, faceCount: 0, removedTotal: 0 };
      return [{ ...state, oldestKeptRevision: 1 }];
    });
  }

  async countChanges({ sinceRevision, toRevision }: { sinceRevision: number; toRevision: number }) {
    await setImmediate();
    return { additions: toRevision - sinceRevision, removals: 0 };
  }

  async readPackets(options: {
    listId: string;
    sinceRevision: number;
    toRevision?: number;
    packetFaces?: number;
    maxFaces?: number;
  }): Promise<ChangePackets> {
    await setImmediate();
    this.reads++;
    const { listId, sinceRevision, packetFaces = 10, maxFaces = 500 } = options;
    const headRevision = (this.heads.get(listId) ?? 0) + (this.endless.get(listId) ?? 0);
    this.heads.set(listId, headRevision);
    const end = Math.min(headRevision, options.toRevision ?? headRevision, sinceRevision + maxFaces);
    const packets = [];
    for (let from = sinceRevision; from < end; from += packetFaces) {
      const toRevision = Math.min(from + packetFaces, end);
      const upserts = Array.from({ length: toRevision - from }, (_, i) => ({
        faceId: indexIdOf(from + i),
        vector: new Float32Array(8),
      }));
      const skipped = { wrong_length: 0, not_finite: 0, zero_norm: 0 };
      packets.push({
        kind: "changes" as const,
        fromRevision: from,
        toRevision,
        headRevision,
        upserts,
        removals: [],
        skipped,
      });
    }
    return packets.length > 0 ? { kind: "packets", packets } : { kind: "up_to_date", headRevision };
  }
}

function setUp(labels: readonly string[]) {
  const db = new FakeFeeds();
  const registry = new Registry();
  const slots = labels.map((label) => {
    const keyed = new FakeKeyed();
    const apply = keyed.apply.bind(keyed);
    keyed.apply = async (change) => {
      await setImmediate();
      keyed.applied.length = 0;
      return apply(change);
    };
    const slot = registry.slotOf(label);
    slot.swap(new IndexHolder({ meta: metaOf({ label, revision: 0 }), keyed, sizeBytes: 1 }));
    db.heads.set(label, 0);
    return slot;
  });
  const lines: string[] = [];
  const log = {
    debug: ignore,
    info: (_: object, line: string) => lines.push(line),
    warn: ignore,
    error: ignore,
  };
  const refresher = new Refresher({
    db,
    registry,
    publisher: { announce: async () => {}, announceSoon: ignore },
    metrics,
    log,
    periodMs: 5,
    onUnservable: ignore,
  });
  const stop = new AbortController();
  const running = refresher.run(stop.signal);
  onTestFinished(async () => {
    stop.abort();
    await running;
  });
  return { db, slots, lines, registry, refresher };
}

const labelsOf = (count: number) => Array.from({ length: count }, (_, i) => indexIdOf(900 + i));

test("labels with endless changes starve neither each other nor a label with one change, nor a swap", async () => {
  const labels = labelsOf(maxParallelPasses + 3);
  const { db, slots } = setUp(labels);
  const [quiet, ...busy] = labels;
  for (const label of busy) {
    db.endless.set(label, 1_000);
    db.heads.set(label, 1_000);
  }
  const rounds = 3;
  await eventually(
    "every busy label has had several passes",
    () =>
      slots.slice(1).every((slot) => (slot.current?.revision ?? 0) >= rounds * maxPassRevisions) || undefined,
    { timeoutMs: 20_000 },
  );
  db.heads.set(quiet ?? "", 1);
  await eventually("the quiet label is refreshed", () => slots[0]?.current?.revision === 1 || undefined, {
    timeoutMs: 20_000,
  });
  // As a swap does: it waits for the pass under way, not for the end of the changes.
  let turns = 0;
  await Promise.all(slots.map((slot) => slot.exclusive(async () => turns++)));
  expect(turns).toBe(slots.length);
});

test("a backlog is logged packet by packet and pass by pass", async () => {
  const [label = ""] = labelsOf(1);
  const { db, slots, lines } = setUp([label]);
  db.heads.set(label, 25);
  await eventually("drained", () => slots[0]?.current?.revision === 25 || undefined);
  const finished = `Refresh index for: ${label} has finished successfully`;
  await eventually("logged", () => lines.includes(finished) || undefined);
  expect(lines).toEqual([
    `Refresh index for: ${label}`,
    "Sync: 1->3, 0->0",
    "Sync: 2->3, 0->0",
    "Sync: 3->3, 0->0",
    finished,
  ]);
  lines.length = 0;
  db.heads.set(label, 25 + maxPassRevisions + 5);
  await eventually("both passes", () => lines.filter((line) => line === finished).length === 2 || undefined);
  const packets = maxPassRevisions / 10;
  expect(lines.slice(0, 2)).toEqual([`Refresh index for: ${label}`, `Sync: 1->${packets}, 0->0`]);
  expect(lines.slice(packets, packets + 5)).toEqual([
    `Sync: ${packets}->${packets}, 0->0`,
    finished,
    `Refresh index for: ${label}`,
    "Sync: 1->1, 0->0",
    finished,
  ]);
});

test("a label that cannot follow is stale, goes on answering, and tells how far it is behind", async () => {
  const [label = ""] = labelsOf(1);
  const { db, slots, registry } = setUp([label]);
  const gap = async (): Promise<ChangePackets> => ({ kind: "gap", gap: "compacted" });
  db.readPackets = gap;
  db.heads.set(label, 5);
  await eventually("stale", () => slots[0]?.gap);
  db.heads.set(label, 9);
  await eventually("the list goes on", () => registry.describe()[0]?.behind_by === 9 || undefined);
  await eventually("time goes on", () => (registry.describe()[0]?.behind_seconds ?? 0) > 0 || undefined);
  expect(registry.describe()[0]).toMatchObject({ state: "stale", revision: 0 });
  expect(registry.acquire(label)).toBeDefined();
  // A rebuilt index ends it.
  const keyed = new FakeKeyed();
  slots[0]?.swap(new IndexHolder({ meta: metaOf({ label, revision: 9 }), keyed, sizeBytes: 1 }));
  expect(registry.describe()[0]).toMatchObject({ state: "serving", behind_by: 0, behind_seconds: 0 });
});

test("an index of another history has nothing to catch up with that was heard of the old one", async () => {
  const [label = ""] = labelsOf(1);
  const { db, slots, registry } = setUp([label]);
  db.heads.set(label, 40);
  await eventually("followed", () => slots[0]?.current?.revision === 40 || undefined);
  db.historyId = indexIdOf(777);
  db.heads.set(label, 30);
  await eventually("stale", () => slots[0]?.gap === "other_history" || undefined);
  const meta = metaOf({ label, revision: 30, history_id: db.historyId });
  slots[0]?.swap(new IndexHolder({ meta, keyed: new FakeKeyed(), sizeBytes: 1 }));
  const { reads } = db;
  expect(registry.describe()[0]).toMatchObject({ state: "serving", revision: 30, behind_by: 0 });
  db.heads.set(label, 31);
  await eventually("followed again", () => slots[0]?.current?.revision === 31 || undefined);
  expect(db.reads).toBe(reads + 1);
});
