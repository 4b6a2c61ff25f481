import { randomUUID } from "node:crypto";
import { createTestDatabase } from "@lim/testkit";
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type FacesDb, facesDbLimits, openFacesDb } from "../src/index.ts";
import { addFaces, connectPlain, link, setDescriptor } from "./helpers.ts";

let test: Awaited<ReturnType<typeof createTestDatabase>>;
let db: FacesDb;
let sql: pg.Client;
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

const faceCount = 5;
const step = fc.record({
  kind: fc.constantFrom("link", "link", "unlink", "describe", "undescribe"),
  list: fc.nat(1),
  face: fc.nat(faceCount - 1),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

async function apply({ kind, list, face }: Step, lists: string[], faces: string[]): Promise<void> {
  const [listId, faceId] = [lists[list], faces[face]] as [string, string];
  if (kind === "link")
    await sql.query("INSERT INTO faces.list_face VALUES ($1, $2) ON CONFLICT DO NOTHING", [listId, faceId]);
  else if (kind === "unlink") await db.unlinkFaces({ listId, faceIds: [faceId] });
  else if (kind === "describe") await setDescriptor(sql, faceId);
  else await sql.query("DELETE FROM faces.descriptor WHERE face_id = $1", [faceId]);
}

it("counts what countChanges counts, on any history, range and compaction that keeps the range", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 15 }),
      fc.array(fc.tuple(fc.nat(16), fc.nat(16)), { minLength: 2, maxLength: 2 }),
      fc.boolean(),
      async (steps, drawn, compacts) => {
        const states = await Promise.all([0, 1].map((i) => db.createList({ name: `removals ${i}` })));
        const listIds = states.map((state) => state.listId);
        const faces = await addFaces(sql, faceCount);
        for (const one of steps) await apply(one, listIds, faces);
        const ranges = listIds.map((listId, i) => {
          const [a, b] = drawn[i] as [number, number];
          return { listId, sinceRevision: Math.min(a, b), toRevision: Math.max(a, b) };
        });
        const expected = new Map<string, number>();
        for (const range of ranges) expected.set(range.listId, (await db.countChanges(range)).removals);
        // The row at sinceRevision itself may go: an index of that revision can still follow.
        if (compacts)
          for (const { listId, sinceRevision } of ranges)
            await db.compactFeed({ listId, keepMs: 0, keepFromRevision: sinceRevision });
        expect(await db.removalsOf({ ranges })).toEqual(expected);
      },
    ),
    { numRuns: 60 },
  );
});

it("an index at the newest compacted revision still learns of the removals after it", async () => {
  const { listId } = await db.createList({ name: "compacted" });
  const faces = await addFaces(sql, 4);
  await link(sql, listId, ...faces);
  await db.unlinkFaces({ listId, faceIds: faces.slice(0, 2) });
  expect(await db.compactFeed({ listId, keepMs: 0, keepFromRevision: 4 })).toBe(4);
  const ranges = [{ listId, sinceRevision: 4, toRevision: 6 }];
  expect(await db.removalsOf({ ranges })).toEqual(new Map([[listId, 2]]));
});

it("a descriptor added after its link counts, as countChanges does", async () => {
  const { listId } = await db.createList({ name: "described later" });
  const [face] = (await addFaces(sql, 1)) as [string];
  await link(sql, listId, face);
  await setDescriptor(sql, face);
  const range = { listId, sinceRevision: 0, toRevision: 2 };
  expect((await db.countChanges(range)).removals).toBe(1);
  expect(await db.removalsOf({ ranges: [range] })).toEqual(new Map([[listId, 1]]));
});

it("one query for a thousand lists; lists that are gone are absent", async () => {
  const { listId } = await db.createList({ name: "one of many" });
  const faces = await addFaces(sql, 3);
  await link(sql, listId, ...faces);
  await db.unlinkFaces({ listId, faceIds: faces.slice(1) });
  const ranges = Array.from({ length: facesDbLimits.listsPerQuery * 2 }, () => ({
    listId: String(randomUUID()),
    sinceRevision: 0,
    toRevision: 9,
  }));
  ranges.push({ listId, sinceRevision: 3, toRevision: 5 });
  const query = vi.spyOn(pg.Client.prototype, "query");
  try {
    expect(await db.removalsOf({ ranges })).toEqual(new Map([[listId, 2]]));
    expect(query).toHaveBeenCalledTimes(3);
    query.mockClear();
    expect(await db.removalsOf({ ranges: [] })).toEqual(new Map());
    expect(query).not.toHaveBeenCalled();
  } finally {
    query.mockRestore();
  }
});

it("I11: refuses a list named twice, a bad id and a bad revision", async () => {
  const listId = randomUUID();
  const range = { listId, sinceRevision: 0, toRevision: 1 };
  for (const ranges of [
    [range, range],
    [{ ...range, listId: "x" }],
    [{ ...range, sinceRevision: -1 }],
    [{ ...range, toRevision: 0.5 }],
  ])
    await expect(db.removalsOf({ ranges })).rejects.toMatchObject({ errorName: "bad_input" });
});
