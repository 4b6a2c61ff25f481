import { randomUUID } from "node:crypto";
import { createTestDatabase, eventually } from "@lim/testkit";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type FacesDb, type ListSnapshot, type ListState, openFacesDb } from "../src/index.ts";
import { addFaces, connectPlain, dim, link, newVector, setDescriptor, version } from "./helpers.ts";

let test: Awaited<ReturnType<typeof createTestDatabase>>;
let db: FacesDb;
let sql: pg.Client;
let big: ListState;
const bigDim = 512;
const bigCount = 10_000;

beforeAll(async () => {
  test = await createTestDatabase();
  db = openFacesDb({ connectionString: test.url, applicationName: "snapshot-test", maxConnections: 4 });
  sql = await connectPlain(test.url);
  big = await db.createList({ name: "big" });
  await sql.query(`INSERT INTO faces.face SELECT gen_random_uuid() FROM generate_series(1, ${bigCount})`);
  await sql.query(
    `INSERT INTO faces.descriptor SELECT face_id, 1, decode(repeat('0000803f', ${bigDim}), 'hex') FROM faces.face`,
  );
  await sql.query("INSERT INTO faces.list_face SELECT $1, face_id FROM faces.face", [big.listId]);
});
afterAll(async () => {
  await sql?.end();
  await db?.close();
  await test?.drop();
});

/** Backends of `db`, by what they do. */
async function backends(): Promise<{ pid: number; state: string; wait: string | null; query: string }[]> {
  const { rows } = await sql.query(
    `SELECT pid, state, wait_event AS wait, query FROM pg_stat_activity
     WHERE application_name = 'snapshot-test' AND datname = current_database()`,
  );
  return rows;
}
const openBig = (signal?: AbortSignal) =>
  db.openSnapshot({ listId: big.listId, descriptorVersion: 1, dim: bigDim, batchRows: 100, signal });
const untilNoTransaction = () =>
  eventually("no backend is in a transaction", async () =>
    (await backends()).every((backend) => backend.state === "idle") ? true : undefined,
  );

describe("snapshots", () => {
  it("give the usable descriptors as unit vectors and count the others", async () => {
    const list = await db.createList({ name: "mixed" });
    const faces = (await addFaces(sql, 6)) as [string, string, string, string, string, string];
    const [good, short, nan, zero, huge] = faces;
    const nanVector = newVector();
    nanVector[0] = Number.NaN;
    await setDescriptor(sql, good, newVector());
    await setDescriptor(sql, short, newVector(7));
    await setDescriptor(sql, nan, nanVector);
    await setDescriptor(sql, zero, new Float32Array(dim));
    await setDescriptor(sql, huge, newVector(100_000));
    await link(sql, list.listId, ...faces);
    const snapshot = await db.openSnapshot({ listId: list.listId, descriptorVersion: version, dim });
    expect(snapshot).toMatchObject({ revision: 6, faceCount: 6, removedTotal: 0, historyId: list.historyId });
    const batches = [];
    for await (const batch of snapshot.batches) batches.push(batch);
    expect(batches.length).toBe(1);
    expect(Buffer.from(batches[0]?.faceIds ?? []).toString("hex")).toBe(good.replaceAll("-", ""));
    expect(Math.hypot(...(batches[0]?.vectors ?? []))).toBeCloseTo(1, 5);
    expect(snapshot.skipped).toEqual({ wrong_length: 2, not_finite: 1, zero_norm: 1 });
  });

  it("of an empty list has no batch; of a missing list is an error; batches are read once", async () => {
    const list = await db.createList({ name: "empty" });
    const snapshot = await db.openSnapshot({ listId: list.listId, descriptorVersion: version, dim });
    for await (const _ of snapshot.batches) throw new Error("a batch of an empty list");
    await expect(async () => {
      for await (const _ of snapshot.batches);
    }).rejects.toThrow("once");
    await expect(
      db.openSnapshot({ listId: randomUUID(), descriptorVersion: version, dim }),
    ).rejects.toMatchObject({ errorName: "list_not_found" });
    await untilNoTransaction();
  });

  it("cut batches at the size asked for and hold every face once", async () => {
    const snapshot = await openBig();
    const counts: number[] = [];
    const seen = new Set<string>();
    for await (const batch of snapshot.batches) {
      counts.push(batch.count);
      expect(batch.vectors.length).toBe(batch.count * bigDim);
      for (let i = 0; i < batch.count; i++)
        seen.add(Buffer.from(batch.faceIds.subarray(i * 16, i * 16 + 16)).toString("hex"));
    }
    expect(counts).toEqual(Array(bigCount / 100).fill(100));
    expect(seen.size).toBe(bigCount);
    await untilNoTransaction();
  });

  it("show the list at their revision whatever is committed meanwhile", async () => {
    const list = await db.createList({ name: "still" });
    const faces = (await addFaces(sql, 3)) as [string, string, string];
    for (const face of faces) await setDescriptor(sql, face);
    await link(sql, list.listId, faces[0], faces[1]);
    const snapshot = await db.openSnapshot({ listId: list.listId, descriptorVersion: version, dim });
    await link(sql, list.listId, faces[2]);
    await db.deleteFaces({ faceIds: [faces[0]] });
    expect(snapshot.revision).toBe(2);
    let count = 0;
    for await (const batch of snapshot.batches) count += batch.count;
    expect(count).toBe(2);
  });

  it("stop Postgres while the consumer is slow", async () => {
    const snapshot = await openBig();
    const batches = snapshot.batches[Symbol.asyncIterator]();
    await batches.next();
    await eventually("the backend waits for the client to read", async () =>
      (await backends()).some((backend) => backend.wait === "ClientWrite") ? true : undefined,
    );
    let count = 100;
    for (let next = await batches.next(); !next.done; next = await batches.next()) count += next.value.count;
    expect(count).toBe(bigCount);
  });

  it("are read no faster than at their pace, and as fast as they come in a hurry", async () => {
    const bytesPerS = 40_000_000;
    let hurry = true;
    const options = { listId: big.listId, descriptorVersion: 1, dim: bigDim, batchRows: 100 };
    const snapshot = await db.openSnapshot({ ...options, pace: { bytesPerS, inHurry: () => hurry } });
    let rows = 0;
    let pacedRows = 0;
    let pacedMs = 0;
    for await (const batch of snapshot.batches) {
      rows += batch.count;
      if (hurry) {
        if (rows < bigCount / 4) continue;
        hurry = false;
        pacedRows = -rows;
        pacedMs = performance.now();
      }
    }
    pacedRows += rows;
    pacedMs = performance.now() - pacedMs;
    expect(rows).toBe(bigCount);
    // What was on its way when the hurry ended, and the pace's own credit.
    const leastBytes = pacedRows * bigDim * 4 - bytesPerS / 10;
    expect(pacedMs).toBeGreaterThan((leastBytes * 1000) / bytesPerS);
    await untilNoTransaction();
  });

  it("hear an abort and a close while they wait for their pace", async () => {
    const slow = (signal?: AbortSignal) =>
      db.openSnapshot({
        listId: big.listId,
        descriptorVersion: 1,
        dim: bigDim,
        pace: { bytesPerS: 1_000 },
        signal,
      });
    const controller = new AbortController();
    const ends: [string, (snapshot: ListSnapshot) => unknown][] = [
      ["aborted", () => controller.abort()],
      ["postgres_unavailable", (snapshot) => snapshot.close()],
    ];
    for (const [errorName, end] of ends) {
      const snapshot = await slow(errorName === "aborted" ? controller.signal : undefined);
      const first = snapshot.batches[Symbol.asyncIterator]().next();
      await eventually(
        "the copy waits",
        async () =>
          (await backends()).some(({ query, wait }) => query.startsWith("COPY") && wait === "ClientWrite") ||
          undefined,
      );
      await Promise.all([expect(first).rejects.toMatchObject({ errorName }), end(snapshot)]);
      await untilNoTransaction();
    }
  });

  it("end their transaction when closed unread, left early or closed in the midst", async () => {
    const unread = await openBig();
    await unread.close();
    await unread.close();
    await untilNoTransaction();
    for await (const _ of (await openBig()).batches) break;
    await untilNoTransaction();
    const closed = await openBig();
    await expect(async () => {
      for await (const _ of closed.batches) await closed.close();
    }).rejects.toMatchObject({ errorName: "postgres_unavailable" });
    await untilNoTransaction();
    await db.ping();
  });

  it("end with `aborted` when the signal fires, before and in the midst of the copy", async () => {
    const controller = new AbortController();
    const snapshot = await openBig(controller.signal);
    await expect(async () => {
      for await (const _ of snapshot.batches) controller.abort();
    }).rejects.toMatchObject({ errorName: "aborted" });
    await expect(openBig(controller.signal)).rejects.toMatchObject({ errorName: "aborted" });
    const unread = new AbortController();
    await openBig(unread.signal);
    unread.abort();
    await untilNoTransaction();
  });

  it("fail, and do not hang, when their backend is killed", async () => {
    const snapshot = await openBig();
    const kill = async () => {
      for (const { pid, query } of await backends())
        if (query.startsWith("COPY")) await sql.query("SELECT pg_terminate_backend($1)", [pid]);
    };
    await expect(async () => {
      for await (const _ of snapshot.batches) await kill();
    }).rejects.toMatchObject({ errorName: "postgres_unavailable" });
    await db.ping();
  });
});
