import { randomUUID } from "node:crypto";
import { createTestDatabase } from "@lim/testkit";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import {
  type FacesDb,
  type ImportFault,
  type ImportOptions,
  type ImportRow,
  type ListState,
  openFacesDb,
} from "../src/index.ts";
import { connectPlain, currentContent, dim, Follower, newVector, version } from "./helpers.ts";

let test: Awaited<ReturnType<typeof createTestDatabase>>;
let db: FacesDb;
let sql: pg.Client;
let list: ListState;
beforeAll(async () => {
  test = await createTestDatabase();
  db = openFacesDb({ connectionString: test.url });
  sql = await connectPlain(test.url);
});
afterAll(async () => {
  await sql?.end();
  await db?.close();
  await test?.drop();
});
beforeEach(async () => {
  list = await db.createList({ name: "import", accountId: randomUUID() });
});

async function* source(rows: readonly (ImportRow | ImportFault)[]) {
  yield* rows;
}
const run = (rows: readonly (ImportRow | ImportFault)[], over: Partial<ImportOptions> = {}) =>
  db.importRows({
    listId: list.listId,
    descriptorVersion: version,
    dim,
    sourceKey: "source",
    chunkRows: 10,
    rows: source(rows),
    ...over,
  });
const good = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ line: i + 1, externalId: `person ${i}`, vector: newVector() }));
const state = async () => (await db.listStates({ listIds: [list.listId] }))[0];

it("imports by chunks, and a second run of the source has nothing to do", async () => {
  const seen: number[] = [];
  const rows = good(25);
  const result = await run(rows, { onProgress: (progress) => seen.push(progress.doneRows) });
  expect(result).toEqual({ doneRows: 25, imported: 25, bad: 0, resumedFromRow: 0, faults: [] });
  expect(seen).toEqual([10, 20, 25]);
  expect(await state()).toMatchObject({ revision: 25, faceCount: 25 });
  expect(await run(rows)).toMatchObject({ doneRows: 25, imported: 25, resumedFromRow: 25 });
  expect(await state()).toMatchObject({ revision: 25 });
  const follower = new Follower(db, list);
  await follower.drain();
  expect(follower.content).toEqual(await currentContent(sql, list.listId));
  expect(follower.content.size).toBe(25);
});

it("resumes after the last committed chunk when an earlier run was aborted", async () => {
  const rows = good(35);
  const controller = new AbortController();
  const aborted = run(rows, {
    signal: controller.signal,
    onProgress: ({ doneRows }) => {
      if (doneRows === 20) controller.abort();
    },
  });
  await expect(aborted).rejects.toMatchObject({ errorName: "aborted" });
  expect(await state()).toMatchObject({ faceCount: 20 });
  expect(await run(rows)).toMatchObject({ doneRows: 35, imported: 35, resumedFromRow: 20 });
  expect(await state()).toMatchObject({ faceCount: 35, revision: 35 });
});

it("resumes when the connection was killed in the midst, without a row twice or lost", async () => {
  const rows = good(30);
  async function* killing() {
    for (const row of rows) {
      if (row.line === 15)
        await sql.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
      yield row;
    }
  }
  const outcome = await run([], { rows: killing() }).catch((thrown: unknown) => thrown);
  if (outcome instanceof Error) expect(outcome).toMatchObject({ errorName: "postgres_unavailable" });
  await run(rows);
  expect(await state()).toMatchObject({ faceCount: 30, revision: 30 });
});

it("I11 bad rows are counted, reported by line and harm no other", async () => {
  const nan = newVector();
  nan[2] = Number.NaN;
  const faceId = randomUUID();
  const result = await run([
    { line: 1, externalId: "ok", vector: newVector() },
    { line: 2, externalId: "short", vector: newVector(dim - 1) },
    { line: 3, externalId: "nan", vector: nan },
    { line: 4, externalId: "zero", vector: new Float32Array(dim) },
    { line: 5, vector: newVector() },
    { line: 6, faceId: "nobody", vector: newVector() },
    { line: 7, reason: "not JSON" },
    { line: 8, externalId: "", vector: newVector() },
    { line: 9, faceId, externalId: "shared", vector: newVector() },
    { line: 10, faceId: randomUUID(), externalId: "shared", vector: newVector() },
  ]);
  expect(result).toMatchObject({ doneRows: 10, imported: 2, bad: 8 });
  expect(result.faults.map((fault) => fault.line)).toEqual([2, 3, 4, 5, 6, 7, 8, 10]);
  expect(result.faults.map((fault) => fault.reason).join("; ")).toMatch(
    /wrong_length: 7 instead of 8; not_finite; zero_norm; neither.*UUID; not JSON; .*empty; external id belongs/,
  );
  expect(await state()).toMatchObject({ faceCount: 2 });
});

it("of duplicates in a chunk the last wins; across chunks a row replaces the earlier descriptor", async () => {
  const faceId = randomUUID();
  const last = newVector();
  const rows: ImportRow[] = [
    { line: 1, faceId, externalId: "one", vector: newVector() },
    { line: 2, faceId: faceId.toUpperCase(), vector: newVector() },
    { line: 3, externalId: "one", vector: last },
  ];
  expect(await run(rows)).toMatchObject({ imported: 3, bad: 0 });
  expect(await state()).toMatchObject({ revision: 1, faceCount: 1 });
  expect(await db.externalIdsOf({ faceIds: [faceId] })).toEqual(new Map([[faceId, "one"]]));
  const norm = Math.hypot(...last);
  const stored = (await db.descriptorsOf({ faceIds: [faceId], descriptorVersion: version })).get(faceId);
  expect(stored?.[0]).toBeCloseTo((last[0] ?? 0) / norm, 5);
  await run(rows, { sourceKey: "again", chunkRows: 1 });
  expect(await state()).toMatchObject({ faceCount: 1, removedTotal: 3 });
});

it("reuses the account's face of an external id and refuses what contradicts it", async () => {
  await run(good(3));
  const second = await db.createList({ name: "second", accountId: "elsewhere" });
  const [known] = (await sql.query("SELECT face_id FROM faces.list_face WHERE list_id = $1", [list.listId]))
    .rows;
  const result = await run(
    [
      { line: 1, externalId: "person 0", vector: newVector() },
      { line: 2, faceId: randomUUID(), externalId: "person 1", vector: newVector() },
    ],
    { sourceKey: "more" },
  );
  expect(result).toMatchObject({ imported: 1, bad: 1, faults: [{ line: 2 }] });
  expect(await state()).toMatchObject({ faceCount: 3 });
  const other = await run([{ line: 1, faceId: known.face_id, vector: newVector() }], {
    listId: second.listId,
  });
  expect(other.faults).toEqual([{ line: 1, reason: "face belongs to another account" }]);
});

it("two importers of one source do not both write it; of two sources with the same people both succeed", async () => {
  const rows = good(40);
  const both = await Promise.allSettled([run(rows), run(rows)]);
  expect(both.some((result) => result.status === "fulfilled")).toBe(true);
  expect(await state()).toMatchObject({ faceCount: 40, revision: 40 });
  const fresh = await db.createList({ name: "fresh", accountId: randomUUID() });
  const into = { listId: fresh.listId };
  const results = await Promise.all([
    run(rows, { ...into, sourceKey: "left" }),
    run(rows.toReversed(), { ...into, sourceKey: "right" }),
  ]);
  expect(results.map((result) => result.imported)).toEqual([40, 40]);
  expect((await db.listStates({ listIds: [fresh.listId] }))[0]).toMatchObject({ faceCount: 40 });
});

it("names a missing list", async () => {
  await expect(run(good(1), { listId: randomUUID() })).rejects.toMatchObject({ errorName: "list_not_found" });
});
