import { randomUUID } from "node:crypto";
import { type IndexSummary, indexesResponseSchema } from "@lim/contracts";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Api, ask, refusal, startApi, storeWith } from "./api-harness.ts";
import { uuidOf } from "./test-indexer.ts";

let api: Api;
let app: FastifyInstance;

beforeAll(async () => {
  api = await startApi();
});
beforeEach(async () => {
  app = await api.app();
});
afterEach(() => api.clear());
afterAll(() => api.close());

const idsOf = (body: { indexes: IndexSummary[] }) => body.indexes.map((index) => index.index_id);
const listed = async (query = "") => (await ask(app, "GET", `/1/indexes${query}`)).body;

/** Lists of five faces, at revision five, by id. */
async function lists(count: number): Promise<{ label: string; historyId: string }[]> {
  const ids: string[] = [];
  for (let n = 0; n < count; n++) ids.push(await api.harness.list(5));
  const states = await api.harness.db.listStates({ listIds: ids });
  return states
    .map(({ listId, historyId }) => ({ label: listId, historyId }))
    .toSorted((a, b) => (a.label < b.label ? -1 : 1));
}

describe("reads of indexes", () => {
  it("gives every field of one", async () => {
    const label = uuidOf(100);
    const indexId = await api.publish({ label, revision: 3, descriptorVersion: 1 });
    expect(await listed()).toEqual({
      count: 1,
      indexes: [
        {
          index_id: indexId,
          index_type: "list",
          label,
          descriptor_version: 1,
          dim: 8,
          engine: "hnsw",
          size: expect.any(Number),
          count: 1,
          revision: 3,
          mode: "rebuild",
          base_index_id: null,
          removed_since_rebuild: 0,
          create_time: expect.stringMatching(/Z$/),
          phases_ms: expect.objectContaining({ build: 1 }),
        },
      ],
      next_cursor: null,
    });
  });

  it("filters by label and descriptor version, and names the relevant one of the served version", async () => {
    const [a, b] = (await lists(2)) as [
      { label: string; historyId: string },
      { label: string; historyId: string },
    ];
    const old = await api.publish({ ...a, revision: 1 });
    const newest = await api.publish({ ...a, revision: 2 });
    const next = await api.publish({ ...a, revision: 3, descriptorVersion: 2 });
    const other = await api.publish({ ...b, revision: 1 });
    expect(idsOf(await listed())).toEqual([next, newest, old, other]);
    expect(await listed(`?label=${a.label.toUpperCase()}&descriptor_version=1`)).toMatchObject({ count: 2 });
    expect(idsOf(await listed("?descriptor_version=2"))).toEqual([next]);
    expect(idsOf(await listed("/relevant"))).toEqual([newest, other]);
    expect(idsOf(await listed(`/relevant?label=${b.label}`))).toEqual([other]);
  });

  it("calls none relevant that is ahead of its list, of another history, or whose list is gone", async () => {
    const [a] = (await lists(1)) as [{ label: string; historyId: string }];
    await api.publish({ label: uuidOf(100), revision: 1 });
    await api.publish({ label: a.label, historyId: uuidOf(2), revision: 5 });
    await api.publish({ ...a, revision: 6 });
    expect(await listed("/relevant")).toMatchObject({ count: 0, indexes: [] });
    const fits = await api.publish({ ...a, revision: 4 });
    expect(idsOf(await listed("/relevant"))).toEqual([fits]);
  });

  it("pages by label and age, while indexes appear and vanish", async () => {
    const [a, b, c] = [uuidOf(100), uuidOf(101), uuidOf(102)];
    const a2 = await api.publish({ label: a, revision: 2 });
    const a1 = await api.publish({ label: a, revision: 1 });
    const b1 = await api.publish({ label: b, revision: 1 });
    const c1 = await api.publish({ label: c, revision: 1 });
    const first = indexesResponseSchema.parse(await listed("?limit=1"));
    expect(idsOf(first)).toEqual([a2]);
    // The one that the cursor names goes, a newer one comes before it, an older one after it.
    await ask(app, "DELETE", `/1/indexes/${a2}`);
    await api.publish({ label: a, revision: 9 });
    const a0 = await api.publish({ label: a, revision: 0 });
    const second = await listed(`?limit=3&cursor=${first.next_cursor}`);
    expect([second.count, idsOf(second)]).toEqual([5, [a1, a0, b1]]);
    const last = await listed(`?limit=3&cursor=${second.next_cursor}`);
    expect([idsOf(last), last.next_cursor]).toEqual([[c1], null]);
  });

  it("pages relevant ones by label", async () => {
    const published: string[] = [];
    for (const list of await lists(3)) published.push(await api.publish({ ...list, revision: 5 }));
    const first = await listed("/relevant?limit=2");
    expect([first.count, idsOf(first)]).toEqual([3, published.slice(0, 2)]);
    expect(idsOf(await listed(`/relevant?limit=2&cursor=${first.next_cursor}`))).toEqual(published.slice(2));
  });

  it.each([
    "?label=1",
    "?descriptor_version=",
    "?descriptor_version=-1",
    "?cursor=AAAA",
    "?limit=1001",
    "?policy=all",
    "/relevant?descriptor_version=1",
  ])("I11: %s is bad input", async (query) => {
    expect((await refusal(app, "GET", `/1/indexes${query}`)).slice(0, 2)).toEqual([400, 26001]);
  });
});

describe("removal of indexes", () => {
  const remove = async (query: string) => (await ask(app, "DELETE", `/1/indexes${query}`)).body;
  const stateOf = async (listId: string) => {
    const [list] = await api.harness.db.listStates({ listIds: [listId] });
    if (!list) throw new Error("the list is gone");
    return list;
  };

  it("by id", async () => {
    const label = uuidOf(100);
    const indexId = await api.publish({ label, revision: 1 });
    expect(await ask(app, "DELETE", `/1/indexes/${indexId}`)).toMatchObject({ status: 204, body: undefined });
    expect(await listed()).toMatchObject({ count: 0 });
    for (const gone of [indexId, randomUUID()])
      expect((await refusal(app, "DELETE", `/1/indexes/${gone}`)).slice(0, 2)).toEqual([404, 26002]);
    expect((await refusal(app, "DELETE", "/1/indexes/x"))[0]).toBe(400);
  });

  it("by policy outdated, which is the default, leaves the newest of each label and version", async () => {
    const [a, b] = [uuidOf(100), uuidOf(101)];
    const old = await api.publish({ label: a, revision: 1 });
    const newest = await api.publish({ label: a, revision: 2 });
    const next = await api.publish({ label: a, revision: 1, descriptorVersion: 2 });
    const single = await api.publish({ label: b, revision: 1 });
    const dry = await remove("?dry_run=true");
    expect(dry).toMatchObject({ count: 1, policy: "outdated", dry_run: true, busy_labels: [] });
    expect(await listed()).toMatchObject({ count: 4 });
    const removed = await remove("");
    expect(removed).toEqual({ ...dry, dry_run: false });
    expect(idsOf(removed)).toEqual([old]);
    expect(idsOf(await listed())).toEqual([newest, next, single]);
    expect(await remove("")).toMatchObject({ count: 0, indexes: [] });
  });

  it("by policy all takes everything of a label, or of all", async () => {
    const [a, b] = [uuidOf(100), uuidOf(101)];
    const ids = [await api.publish({ label: a, revision: 2 }), await api.publish({ label: a, revision: 1 })];
    const other = await api.publish({ label: b, revision: 1 });
    expect(idsOf(await remove(`?policy=all&label=${a}`))).toEqual(ids);
    expect(idsOf(await listed())).toEqual([other]);
    expect(await remove("?policy=all")).toMatchObject({ count: 1 });
    expect(await listed()).toMatchObject({ count: 0 });
  });

  it("after a restored backup keeps the newest that fits its list beside what looks newest", async () => {
    const label = await api.harness.list();
    const { historyId, revision } = await stateOf(label);
    const older = await api.publish({ label, revision: revision - 1, historyId });
    const served = await api.publish({ label, revision, historyId });
    const lost = await api.publish({ label, revision: revision + 9, historyId });
    expect(idsOf(await remove(""))).toEqual([older]);
    expect(idsOf(await listed())).toEqual([lost, served]);
  });

  it.each(["all", "outdated"])("by policy %s leaves labels alone whose update is open", async (policy) => {
    const [busy, free] = [await api.harness.list(), await api.harness.list()];
    for (const label of [busy, free])
      for (const revision of [1, 2])
        await api.publish({ label, revision, historyId: (await stateOf(label)).historyId });
    await ask(app, "POST", "/1/tasks", { list_id: busy, mode: "update" });
    await ask(app, "POST", "/1/tasks", { list_id: free, mode: "rebuild" });
    const removed = await remove(`?policy=${policy}`);
    expect(removed.busy_labels).toEqual([busy]);
    expect(new Set(removed.indexes.map((index: IndexSummary) => index.label))).toEqual(new Set([free]));
    expect(await listed(`?label=${busy}`)).toMatchObject({ count: 2 });
  });

  it("looks for an open update again right before a label's indexes go", async () => {
    const label = await api.harness.list();
    await api.publish({ label, revision: 1 });
    const { store } = api.harness;
    let looks = 0;
    const racing = storeWith(store, {
      async openTasks(...call) {
        const open = await store.openTasks(...call);
        if (looks++ === 0)
          await store.create({ taskId: randomUUID(), listId: label, mode: "update", trigger: "request" });
        return open;
      },
    });
    app = await api.app({ store: racing });
    expect(await remove("?policy=all")).toMatchObject({ count: 0, busy_labels: [label] });
    expect(await listed()).toMatchObject({ count: 1 });
  });

  it.each(["?policy=newest", "?dry_run=yes", "?label=x", "?limit=1"])("I11: refuses %s", async (query) => {
    await api.publish({ label: uuidOf(100), revision: 1 });
    expect((await refusal(app, "DELETE", `/1/indexes${query}`)).slice(0, 2)).toEqual([400, 26001]);
    expect(await listed()).toMatchObject({ count: 1 });
  });
});
