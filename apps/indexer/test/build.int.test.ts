import { randomUUID } from "node:crypto";
import { buildPhases, defaults, type IndexerState, type Match } from "@lim/contracts";
import { connectSql } from "@lim/local-servers";
import { metricSections } from "@lim/service-kit";
import { availableEngines, createExactIndex, type KeyedIndex } from "@lim/vector-index";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  buildRequest,
  createList,
  dim,
  faceOf,
  putPersons,
  type Stack,
  stagingOf,
  startIndexer,
  startStack,
  type TestIndexer,
  vectorOf,
} from "./support.ts";

const engineNames = await availableEngines();
const faces = 1_000;

let stack: Stack;
let indexer: TestIndexer;
beforeAll(async () => {
  stack = await startStack();
  indexer = await startIndexer(stack);
});
afterAll(async () => {
  await indexer?.process.stop();
  await stack?.close();
});

/** Builds to the end; the error's detail where it failed. */
async function build(request: ReturnType<typeof buildRequest>) {
  const { status } = await indexer.post("/index_list", request);
  expect(status).toBe(202);
  return indexer.outcome(request);
}

const allFaces = async (keyed: KeyedIndex, query: Float32Array) => {
  const [matches = []] = await keyed.search(query, { limit: 1000, ef: 2000 });
  return matches.map(([faceId]: Match) => faceId).toSorted();
};

describe("a build", () => {
  it.each(engineNames)(
    "publishes an index of %s that answers as exact search does, and tells how far it is on the way",
    async (engine) => {
      const listId = await createList(stack.db, faces);
      const request = buildRequest(listId, { engine });
      expect((await indexer.post("/index_list", request)).status).toBe(202);
      const seen: NonNullable<IndexerState["progress"]>[] = [];
      for (let state = await indexer.state(); state.state === "building"; state = await indexer.state())
        if (state.progress) seen.push(state.progress);
      expect(await indexer.outcome(request)).toMatchObject({ status: "success", error: null });

      const rank = (p: (typeof seen)[number]) => buildPhases.indexOf(p.phase) * 1e9 + p.done;
      expect(seen.map(rank)).toEqual(seen.map(rank).toSorted((a, b) => a - b));

      const [state] = await stack.db.listStates({ listIds: [listId] });
      const opened = await stack.storage.open({ label: listId, indexId: request.task_id });
      expect(opened.meta).toMatchObject({
        engine: { name: engine },
        count: faces,
        slots: faces,
        revision: state?.revision,
        history_id: state?.historyId,
        removed_since_rebuild: 0,
        build: { mode: "rebuild", skipped: { wrong_length: 0, not_finite: 0, zero_norm: 0 } },
      });
      expect(Object.keys(opened.meta.build.phases)).toEqual(expect.arrayContaining(["snapshot", "build"]));
      const exact = createExactIndex({ dim });
      for (let person = 0; person < faces; person++)
        exact.upsert([{ faceId: faceOf(listId, person), vector: vectorOf(person) }]);
      let agreed = 0;
      for (let person = 0; person < 50; person++) {
        const query = vectorOf(person, 1);
        const [[want = []], [got = []]] = await Promise.all([
          exact.search(query, { limit: 10 }),
          opened.keyed.search(query, { limit: 10, ef: 128 }),
        ]);
        expect(got[0]?.[0]).toBe(want[0]?.[0]);
        const ids = new Set(want.map(([faceId]) => faceId));
        agreed += got.filter(([faceId]) => ids.has(faceId)).length;
      }
      expect(agreed / 500).toBeGreaterThanOrEqual(0.98);
      await Promise.all([opened.keyed.close(), exact.close()]);
      expect(await stagingOf(stack)).toEqual([]);
    },
  );

  it("B3 I11 leaves bad rows out, counts them by kind in meta and outcome, and indexes the rest", async () => {
    const listId = await createList(stack.db, 40);
    const bytes = (vector: Float32Array) => Buffer.from(vector.buffer);
    const oneBad = new Float32Array(dim).fill(0.1);
    oneBad[dim - 1] = Number.NEGATIVE_INFINITY;
    const faults: [number, Buffer][] = [
      [2, Buffer.alloc(0)],
      [3, Buffer.alloc(12)],
      [4, bytes(new Float32Array(2 * dim).fill(1))],
      [5, bytes(new Float32Array(dim).fill(Number.NaN))],
      [6, bytes(oneBad)],
      [7, bytes(new Float32Array(dim))],
    ];
    const spoil = async (rows: readonly [number, Buffer][]) => {
      const sql = await connectSql(stack.databaseUrl);
      for (const [person, data] of rows)
        await sql.query("UPDATE faces.descriptor SET data = $1 WHERE face_id = $2", [
          data,
          faceOf(listId, person),
        ]);
      await sql.close();
    };
    await spoil(faults);
    const request = buildRequest(listId);
    const skipped = { wrong_length: 3, not_finite: 2, zero_norm: 1 };
    expect(await build(request)).toMatchObject({ status: "success", error: null, skipped });
    const opened = await stack.storage.open({ label: listId, indexId: request.task_id });
    expect(opened.meta.build.skipped).toEqual(skipped);
    expect(opened.meta.count).toBe(34);
    for (const [person] of faults) expect(opened.keyed.has(faceOf(listId, person))).toBe(false);
    expect(opened.keyed.has(faceOf(listId, 8))).toBe(true);
    await opened.keyed.close();

    // A face whose vector turns bad leaves the index; those bad since before are no news.
    await spoil([
      [8, Buffer.alloc(4)],
      [9, bytes(new Float32Array(dim))],
    ]);
    const updating = buildRequest(listId, { mode: "update" });
    const news = { wrong_length: 1, not_finite: 0, zero_norm: 1 };
    expect(await build(updating)).toMatchObject({ status: "success", skipped: news });
    const updated = await stack.storage.open({ label: listId, indexId: updating.task_id });
    expect(updated.meta).toMatchObject({
      count: 32,
      removed_since_rebuild: 2,
      build: { mode: "update", skipped: news },
    });
    for (const person of [8, 9]) expect(updated.keyed.has(faceOf(listId, person))).toBe(false);
    await updated.keyed.close();

    const allBad = await createList(stack.db, 2, 900);
    const sql = await connectSql(stack.databaseUrl);
    await sql.query("UPDATE faces.descriptor SET data = '' WHERE face_id IN ($1, $2)", [
      faceOf(allBad, 900),
      faceOf(allBad, 901),
    ]);
    await sql.close();
    expect((await build(buildRequest(allBad))).error?.error_code).toBe(26105);
  });

  it("refuses an empty list (26105), one that is unknown (26102), one without descriptors of the version (26105)", async () => {
    const empty = await build(buildRequest(await createList(stack.db, 0)));
    expect(empty.error?.error_code).toBe(26105);
    const unknown = buildRequest(randomUUID());
    expect((await build(unknown)).error?.error_code).toBe(26102);
    expect((await build({ ...unknown, task_id: randomUUID(), mode: "update" })).error?.error_code).toBe(
      26102,
    );
    const otherVersion = buildRequest(await createList(stack.db, 5), { descriptor_version: 9 });
    expect((await build(otherVersion)).error?.error_code).toBe(26105);
    expect(await stagingOf(stack)).toEqual([]);
  });

  it("I11 refuses what is no build request, and nothing begins", async () => {
    const request = buildRequest(randomUUID());
    for (const bad of [{ ...request, dim: 3 }, { ...request, extra: 1 }, { ...request, engine: "other" }, {}])
      expect(await indexer.refusal("/index_list", bad)).toMatchObject({ status: 400, error_code: 26001 });
    expect((await indexer.state()).state).toBe("idle");
  });

  it("I2 finds foreign content under its id and leaves it (26108); its own index is a success", async () => {
    const first = buildRequest(await createList(stack.db, 30));
    expect((await build(first)).error).toBeNull();
    const other = await build(
      buildRequest(await createList(stack.db, 10), { task_id: first.task_id, attempt: 2 }),
    );
    expect(other.error?.error_code).toBe(26108);
    expect((await stack.storage.verify({ label: first.list_id, indexId: first.task_id })).count).toBe(30);
    expect((await build({ ...first, attempt: 3, epoch: first.epoch + 1000 })).error).toBeNull();
  });

  it("I4 never publishes an id that was removed (26106)", async () => {
    const request = buildRequest(await createList(stack.db, 10), { epoch: 10_000 });
    await stack.storage.markRemoved({ indexId: request.task_id });
    expect((await build(request)).error?.error_code).toBe(26106);
    expect(await stack.storage.find({ indexId: request.task_id })).toBeUndefined();
  });
});

describe("update mode", () => {
  const update = (listId: string) => buildRequest(listId, { mode: "update", epoch: 20_000 });

  // After any sequence of changes, with every engine: update-equivalence.int.test.ts.
  it("I1 I5 equals a rebuild after links, unlinks and replacements, and begins anew with another engine", async () => {
    const { engine } = defaults;
    const listId = await createList(stack.db, 300);
    const base = buildRequest(listId, { epoch: 20_000, engine });
    expect((await build(base)).error).toBeNull();
    await putPersons(stack.db, listId, 300, 100);
    await putPersons(stack.db, listId, 0, 20, 1);
    const gone = Array.from({ length: 30 }, (_, i) => faceOf(listId, 50 + i));
    await stack.db.unlinkFaces({ listId, faceIds: gone.slice(0, 20) });
    await stack.db.deleteFaces({ faceIds: gone.slice(20) });

    const updating = { ...update(listId), engine };
    const rebuilding = buildRequest(listId, { epoch: 20_000, engine });
    expect((await build(updating)).error).toBeNull();
    expect((await build(rebuilding)).error).toBeNull();
    const [updated, rebuilt] = await Promise.all(
      [updating, rebuilding].map(({ task_id }) => stack.storage.open({ label: listId, indexId: task_id })),
    );
    if (!updated || !rebuilt) throw new Error("unreachable");
    expect(updated.meta).toMatchObject({
      count: 370,
      revision: rebuilt.meta.revision,
      base_index_id: base.task_id,
      removed_since_rebuild: 50,
      build: { mode: "update" },
    });
    expect(rebuilt.meta).toMatchObject({ count: 370, removed_since_rebuild: 0 });
    const query = vectorOf(1);
    const ids = await allFaces(updated.keyed, query);
    expect(ids).toHaveLength(370);
    expect(ids).toEqual(await allFaces(rebuilt.keyed, query));
    for (const faceId of gone) expect(ids).not.toContain(faceId);
    const [[best]] = (await updated.keyed.search(vectorOf(3, 1), { limit: 1, ef: 128 })) as [Match[]];
    expect(best?.[0]).toBe(faceOf(listId, 3));
    expect(best?.[1]).toBeCloseTo(1, 4);

    await stack.db.unlinkFaces({ listId, faceIds: [faceOf(listId, 1)] });
    const again = { ...update(listId), engine };
    expect((await build(again)).error).toBeNull();
    const second = await stack.storage.find({ indexId: again.task_id });
    expect(second?.meta).toMatchObject({ count: 369, removed_since_rebuild: expect.any(Number) });
    for (const other of engineNames.filter((name) => name !== engine)) {
      const switching = { ...update(listId), engine: other };
      expect((await build(switching)).error).toBeNull();
      const switched = await stack.storage.find({ indexId: switching.task_id });
      expect(switched?.meta).toMatchObject({ engine: { name: other }, build: { mode: "rebuild" } });
    }
    await Promise.all([updated.keyed.close(), rebuilt.keyed.close()]);
  });

  it("rebuilds within the same task where there is no fitting base, or the feed does not reach back to it", async () => {
    const listId = await createList(stack.db, 50);
    const first = update(listId);
    expect((await build(first)).error).toBeNull();
    expect((await stack.storage.find({ indexId: first.task_id }))?.meta.build.mode).toBe("rebuild");
    const finer = { ...update(listId), params: { m: 8, ef_construction: 100 } };
    expect((await build(finer)).error).toBeNull();
    expect((await stack.storage.find({ indexId: finer.task_id }))?.meta).toMatchObject({
      params: finer.params,
      build: { mode: "rebuild" },
    });
    await putPersons(stack.db, listId, 50, 10);
    await putPersons(stack.db, listId, 60, 10);
    await stack.db.compactFeed({ listId, keepMs: 0 });
    const second = { ...update(listId), params: finer.params };
    expect((await build(second)).error).toBeNull();
    expect((await stack.storage.find({ indexId: second.task_id }))?.meta).toMatchObject({
      count: 70,
      build: { mode: "rebuild" },
    });
    await indexer.process.waitForLine(/cannot update, rebuilding instead/, { timeoutMs: 60_000 });
  });

  it("I1 goes on from an index of the restored list, not from one of the time after its backup", async () => {
    const listId = await createList(stack.db, 20);
    await putPersons(stack.db, listId, 20, 10);
    expect((await build(buildRequest(listId, { epoch: 20_000 }))).error).toBeNull();
    const [later] = await stack.db.listStates({ listIds: [listId] });
    // A restore to the time of twenty faces.
    await stack.db.unlinkFaces({
      listId,
      faceIds: Array.from({ length: 10 }, (_, i) => faceOf(listId, 20 + i)),
    });
    const sql = await connectSql(stack.databaseUrl);
    await sql.query("DELETE FROM faces.list_change WHERE list_id = $1 AND revision > 20", [listId]);
    await sql.close();
    await stack.db.newHistory();
    const rebuilt = buildRequest(listId, { epoch: 20_000 });
    expect((await build(rebuilt)).error).toBeNull();
    await stack.db.unlinkFaces({ listId, faceIds: [faceOf(listId, 0)] });
    const updated = update(listId);
    expect((await build(updated)).error).toBeNull();
    const found = await stack.storage.find({ indexId: updated.task_id });
    expect(found?.meta).toMatchObject({
      count: 19,
      revision: 21,
      base_index_id: rebuilt.task_id,
      build: { mode: "update" },
    });
    expect(found?.meta.revision).toBeLessThan(later?.revision ?? 0);
  });

  it("publishes under its own id even where nothing changed, and ends empty lists as 26105", async () => {
    const listId = await createList(stack.db, 8);
    await build(buildRequest(listId, { epoch: 20_000 }));
    const unchanged = update(listId);
    expect((await build(unchanged)).error).toBeNull();
    expect((await stack.storage.find({ indexId: unchanged.task_id }))?.meta.count).toBe(8);
    await stack.db.unlinkFaces({
      listId,
      faceIds: Array.from({ length: 8 }, (_, person) => faceOf(listId, person)),
    });
    expect((await build(update(listId))).error?.error_code).toBe(26105);
  });
});

it("shows its builds in /metrics and its parts in /healthcheck", async () => {
  const metrics = await (await fetch(`${indexer.url}/metrics`)).text();
  expect(metrics).toMatch(/lim_indexer_builds_total\{mode="rebuild",outcome="success"\} [1-9]/);
  expect(metrics).toMatch(/lim_indexer_building 0/);
  const sections = { ...metricSections["Every service"], ...metricSections.Indexer };
  for (const name of Object.keys(sections)) expect(metrics).toContain(`# TYPE ${name} `);
  for (const phase of ["snapshot", "build", "verify", "store"])
    expect(metrics).toMatch(
      new RegExp(`lim_indexer_build_phase_duration_seconds_count\\{phase="${phase}"\\} [1-9]`),
    );
  expect(metrics).toMatch(/lim_indexer_build_phase\{phase="build"\} 0/);
  expect(metrics).toMatch(/lim_http_errors_total\{error="bad_input"\} [1-9]/);
  expect(await (await fetch(`${indexer.url}/healthcheck`)).json()).toEqual({
    status: "ok",
    components: { postgres: "ok", redis: "ok", storage: "ok" },
  });
  expect((await fetch(`${indexer.url}/readyz`)).status).toBe(200);
});
