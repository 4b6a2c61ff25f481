import { randomUUID } from "node:crypto";
import { mkdir, rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FacesDb } from "@lim/faces-db";
import { corruptFile, createTestDatabase } from "@lim/testkit";
import { availableEngines } from "@lim/vector-index";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkReportSchema } from "../src/check/report.ts";
import { reportText } from "../src/check/text.ts";
import {
  check,
  codes,
  dim,
  newFaces,
  newList,
  newStorage,
  only,
  personOf,
  publish,
  publishList,
  reseal,
} from "./check-world.ts";

let database: Awaited<ReturnType<typeof createTestDatabase>>;
let db: FacesDb;
beforeAll(async () => {
  database = await createTestDatabase();
  db = database.db;
});
afterAll(() => database?.drop());

const engines = await availableEngines();

/** A list of `count` faces and an index that is its equal. */
async function indexed(count = 120, more: Parameters<typeof publishList>[4] = {}) {
  const storage = await newStorage();
  const faces = newFaces(count);
  const label = await newList(db, faces);
  const indexId = await publishList(storage, db, label, faces, more);
  return { storage, faces, label, indexId, folder: join(storage.root, label, indexId) };
}

describe("an index that is its list's equal", () => {
  test.each(engines)("of engine %s is clean in every part that can be told", async (engine) => {
    const { storage, label, indexId } = await indexed(300, { engine });
    const report = await check(storage, db, { indexId });
    expect(checkReportSchema.parse(JSON.parse(JSON.stringify(report)))).toEqual(report);
    const index = only(report);
    expect(index.findings).toEqual(
      engine === "hnsw" ? [] : [expect.objectContaining({ severity: "info", code: "graph_not_told" })],
    );
    expect(index).toMatchObject({ index_id: indexId, label, newest: true, count: 300 });
    const checked = Object.entries(index.parts).filter(([, part]) => part.checked);
    expect(checked.map(([name]) => name)).toHaveLength(engine === "hnsw" ? 6 : 5);
    expect(index.measured).toMatchObject({ vectors: 300, list_faces: 300, compared_vectors: 50 });
    expect(index.measured.recall).toBeGreaterThan(0.97);
    expect(report.exit_code).toBe(0);
  });

  test("is clean without the database, which is said", async () => {
    const { storage, label } = await indexed();
    const report = await check(storage, undefined, { label });
    expect(only(report).parts.list).toEqual({ checked: false, reason: "--no-database" });
    expect(reportText(report)).toContain("lists were not compared (--no-database)");
    expect(report).toMatchObject({ exit_code: 0, database: false });
  });

  test("stays so after an update that removed positions", async () => {
    const { storage, faces, label } = await indexed();
    await db.unlinkFaces({ listId: label, faceIds: faces.slice(0, 7).map(({ faceId }) => faceId) });
    const indexId = await publishList(storage, db, label, faces.slice(7));
    const report = await check(storage, db, { label });
    expect(report.indexes.map(({ index_id, newest }) => [index_id, newest])).toContainEqual([indexId, true]);
    expect(report.summary).toMatchObject({ indexes: 2, clean: 2, errors: 0, warnings: 0 });
  });
});

describe("files", () => {
  test.each(["index.dat", "ids.dat", "vectors.dat"])("a flipped byte in %s is an error", async (name) => {
    const { storage, indexId, folder } = await indexed();
    await corruptFile(join(folder, name), { flipByteAt: -20 });
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual(["error files_differ"]);
    expect(only(report).findings[0]?.message).toContain(name);
    expect(only(report).parts.vectors.checked).toBe(false);
    expect(report.exit_code).toBe(1);
  });

  test("a truncated file, a changed meta and a missing file are errors, and hide no other index", async () => {
    const { storage, faces, label, folder } = await indexed();
    await corruptFile(join(folder, "index.dat"), { truncateTo: 100 });
    const second = await publishList(storage, db, label, faces);
    const meta = join(storage.root, label, second, "meta.json");
    await corruptFile(meta, { flipByteAt: 200 });
    const third = await publishList(storage, db, label, faces);
    await rm(join(storage.root, label, third, "ids.dat"));
    const good = await publishList(storage, db, label, faces);
    const report = await check(storage, db, "all");
    const found = report.indexes.map(({ index_id, findings }) => [index_id, codes(findings)]);
    expect(found).toHaveLength(4);
    expect(found).toContainEqual([second, ["error folder_refused"]]);
    expect(found).toContainEqual([good, []]);
    expect(report).toMatchObject({ exit_code: 1, summary: { clean: 1, errors: 3 } });
  });

  test("foreign files in the folder are a warning: exit code 1 only when it is strict", async () => {
    const { storage, indexId, folder } = await indexed();
    await writeFile(join(folder, "notes.txt"), "x");
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual(["warning foreign_files"]);
    expect(only(report).findings[0]?.examples).toEqual(["notes.txt"]);
    expect(report.exit_code).toBe(0);
    expect((await check(storage, db, { indexId }, { strict: true })).exit_code).toBe(1);
  });
});

describe("faces", () => {
  test("those of the list that the index lacks are missing, those that only it has are phantoms", async () => {
    const faces = newFaces(100);
    const strangers = newFaces(2);
    const storage = await newStorage();
    const label = await newList(db, faces);
    const indexId = await publishList(storage, db, label, [...faces.slice(3), ...strangers]);
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual(["error faces_missing", "error faces_phantom"]);
    const [missing, phantom] = only(report).findings;
    expect(missing).toMatchObject({ numbers: { faces: 3, of: 100 } });
    expect(missing?.examples.toSorted()).toEqual(
      faces
        .slice(0, 3)
        .map(({ faceId }) => faceId)
        .toSorted(),
    );
    expect(phantom).toMatchObject({ numbers: { faces: 2, of: 99 } });
    expect(phantom?.examples.toSorted()).toEqual(strangers.map(({ faceId }) => faceId).toSorted());
    expect(report.exit_code).toBe(1);
  });

  test("those that changed after the revision are not judged, the others are", async () => {
    const faces = newFaces(100);
    const storage = await newStorage();
    const label = await newList(db, faces);
    const lost = faces[50];
    const indexId = await publishList(
      storage,
      db,
      label,
      faces.filter((face) => face !== lost),
    );
    const replaced = newFaces(5).map(({ vector }, i) => ({ faceId: faces[i]?.faceId ?? "", vector }));
    await db.putFaces({ listIds: [label], descriptorVersion: 1, faces: [...replaced, ...newFaces(4)] });
    await db.unlinkFaces({ listId: label, faceIds: faces.slice(5, 8).map(({ faceId }) => faceId) });
    const report = await check(storage, db, { indexId }, { sample: 100 });
    expect(codes(only(report).findings)).toEqual([
      "error faces_missing",
      "info faces_not_judged",
      "info index_behind",
    ]);
    const byCode = new Map(only(report).findings.map((one) => [one.code, one]));
    expect(byCode.get("faces_missing")).toMatchObject({ numbers: { faces: 1 }, examples: [lost?.faceId] });
    expect(byCode.get("faces_not_judged")).toMatchObject({ numbers: { faces: 12 } });
    expect(byCode.get("index_behind")?.numbers.behind).toBeGreaterThanOrEqual(12);
    expect(only(report).measured.compared_vectors).toBe(91);
  });

  test("with another descriptor than the list's are told, where they were sampled", async () => {
    const faces = newFaces(60);
    const storage = await newStorage();
    const label = await newList(db, faces);
    const [other] = newFaces(1);
    const wrong = faces.map((face, i) =>
      i === 9 ? { ...face, vector: other?.vector ?? face.vector } : face,
    );
    const indexId = await publishList(storage, db, label, wrong);
    const report = await check(storage, db, { indexId }, { sample: 60 });
    expect(only(report).findings).toEqual([
      expect.objectContaining({ code: "vectors_differ", examples: [faces[9]?.faceId] }),
    ]);
  });

  test("an id that is there twice is an error", async () => {
    const { storage, indexId, folder, faces } = await indexed();
    await reseal(folder, { file: "ids.dat", bytes: (ids) => void ids.copyWithin(16, 0, 16) });
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual([
      "error faces_missing",
      "error ids_duplicate",
      "error open_refused",
    ]);
    const [duplicate] = only(report).findings;
    expect(duplicate).toMatchObject({ code: "ids_duplicate", examples: [faces[0]?.faceId] });
    expect(only(report).parts.graph).toMatchObject({ checked: false });
  });

  test("a count that meta does not tell is an error", async () => {
    const { storage, indexId, folder } = await indexed();
    await reseal(folder, { meta: { count: 119 } });
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual(["error ids_count", "error open_refused"]);
  });
});

describe("an index and its list", () => {
  test("a list that is gone is a warning, and the index is checked otherwise", async () => {
    const { storage, label, indexId } = await indexed();
    await db.deleteList({ listId: label });
    const report = await check(storage, db, "all");
    expect(codes(only(report).findings)).toEqual(["warning list_gone"]);
    expect(codes(report.storage)).toEqual(["info labels_without_list"]);
    expect(only(report)).toMatchObject({ index_id: indexId, parts: { vectors: { checked: true } } });
    expect(report.exit_code).toBe(0);
  });

  test("of another history it is an error where it is the newest, and differences are not judged", async () => {
    const faces = newFaces(50);
    const storage = await newStorage();
    const label = await newList(db, faces);
    const revision = 50;
    const indexId = await publish(storage, {
      label,
      faces: faces.slice(1),
      revision,
      historyId: randomUUID(),
    });
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual(["error other_history", "info differences_not_judged"]);
    expect(only(report).findings[1]?.numbers).toMatchObject({ only_in_list: 1, only_in_index: 0 });
    await publishList(storage, db, label, faces);
    const after = await check(storage, db, { label });
    const old = after.indexes.find(({ index_id }) => index_id === indexId);
    expect(codes(old?.findings ?? [])).toEqual(["info differences_not_judged", "warning other_history"]);
    expect(after.exit_code).toBe(0);
  });

  test("ahead of its list is an error", async () => {
    const faces = newFaces(50);
    const storage = await newStorage();
    const label = await newList(db, faces);
    const [state] = await db.listStates({ listIds: [label] });
    const { historyId = "", revision = 0 } = state ?? {};
    const indexId = await publish(storage, { label, faces, revision: revision + 9, historyId });
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual(["error index_ahead", "info differences_not_judged"]);
  });

  test("behind what the feed still tells, only counts are reported", async () => {
    const { storage, label, indexId } = await indexed();
    await db.putFaces({ listIds: [label], descriptorVersion: 1, faces: newFaces(5) });
    await db.putFaces({ listIds: [label], descriptorVersion: 1, faces: newFaces(1) });
    await db.compactFeed({ listId: label, keepMs: 0 });
    const report = await check(storage, db, { indexId });
    expect(codes(only(report).findings)).toEqual(["info differences_not_judged", "warning feed_gap"]);
    expect(only(report).findings.find(({ code }) => code === "differences_not_judged")?.numbers).toEqual({
      list_faces: 126,
      index_faces: 120,
      only_in_list: 6,
      only_in_index: 0,
    });
  });
});

describe("vectors and graph", () => {
  test.skipIf(!engines.includes("hnswlib"))(
    "one that is not of norm 1 or not finite is an error",
    async () => {
      const m = 16;
      const { storage, indexId, folder, faces } = await indexed(120, { engine: "hnswlib", m });
      // As hnswlib lays its elements out: a header, then links of level 0, vector and label of each position.
      const vectorAt = (position: number) => 96 + position * (2 * m * 4 + 4 + dim * 4 + 8) + 2 * m * 4 + 4;
      const bytes = (data: Buffer) => {
        for (let d = 0; d < dim; d++)
          data.writeFloatLE(1.01 * data.readFloatLE(vectorAt(7) + d * 4), vectorAt(7) + d * 4);
        data.writeFloatLE(Number.NaN, vectorAt(33));
      };
      await reseal(folder, { file: "index.dat", bytes });
      const report = await check(storage, undefined, { indexId });
      const found = new Map(only(report).findings.map((one) => [one.code, one]));
      expect(found.get("vectors_not_unit")).toMatchObject({
        severity: "error",
        examples: [faces[7]?.faceId],
      });
      expect(found.get("vectors_not_finite")).toMatchObject({
        severity: "error",
        examples: [faces[33]?.faceId],
      });
      expect(report.exit_code).toBe(1);
    },
  );

  test("vectors that no link leads to are a warning: near copies make islands", async () => {
    const faces = newFaces(800).map(({ faceId }, i) => ({ faceId, vector: personOf(i < 400 ? 1 : 2) }));
    const storage = await newStorage();
    const label = await newList(db, faces);
    const indexId = await publishList(storage, db, label, faces, { m: 4 });
    const index = only(await check(storage, db, { indexId }));
    expect(index.measured.unreachable).toBeGreaterThan(10);
    expect(codes(index.findings)).toEqual(["warning graph_unreachable"]);
  });

  test("a recall below that of the publication is a warning", async () => {
    const { storage, indexId, folder } = await indexed(3000, { m: 4, efConstruction: 10 });
    const before = only(await check(storage, undefined, { indexId }));
    expect(before.measured.recall).toBeLessThan(0.94);
    expect(codes(before.findings)).not.toContain("warning recall_dropped");
    await reseal(folder, { meta: { recall: { k: 10, sampled: 1 } } });
    const after = only(await check(storage, undefined, { indexId }));
    expect(codes(after.findings)).toContain("warning recall_dropped");
  });
});

describe("the whole storage", () => {
  test("left-overs that would be collected are told, and stay", async () => {
    const { storage, label } = await indexed();
    const { path } = await storage.stage({ label, indexId: randomUUID(), attempt: 1 });
    await mkdir(path, { recursive: true });
    const old = new Date(Date.now() - 3_600_000);
    await utimes(path, old, old);
    for (const _ of [1, 2]) {
      const report = await check(storage, db, "all");
      expect(codes(report.storage)).toEqual(["warning staging_left"]);
      expect(report.summary).toMatchObject({ errors: 0, warnings: 1 });
    }
  });

  test("an empty storage is clean; an index or label that is not there is not found", async () => {
    const storage = await newStorage();
    expect(await check(storage, db, "all")).toMatchObject({ exit_code: 0, summary: { indexes: 0 } });
    for (const scope of [{ indexId: randomUUID() }, { label: randomUUID() }])
      await expect(check(storage, db, scope)).rejects.toMatchObject({ errorName: "not_found" });
  });

  test("what was checked before the storage went away is reported, with exit code 3", async () => {
    const { storage, faces, label } = await indexed();
    await publishList(storage, db, label, faces);
    let verified = 0;
    const failing = {
      ...storage,
      verify: (options: Parameters<typeof storage.verify>[0]) => {
        if (verified++ === 1)
          return rm(storage.root, { recursive: true })
            .then(() => storage.list())
            .then(() => storage.verify(options));
        return storage.verify(options);
      },
    };
    const report = await check(failing, db, "all");
    expect(report).toMatchObject({ exit_code: 3, failure: { error_code: 26022 } });
    expect(report.indexes).toHaveLength(1);
  });

  test("an abort ends it at once and is no finding", async () => {
    const { storage, indexId } = await indexed();
    const controller = new AbortController();
    controller.abort();
    await expect(check(storage, db, { indexId }, { signal: controller.signal })).rejects.toMatchObject({
      errorName: "aborted",
    });
  });
});
