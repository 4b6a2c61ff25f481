import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { openIndexStorage } from "@lim/index-storage";
import { connectSql } from "@lim/local-servers";
import { createFaceGenerator, eventually } from "@lim/testkit";
import { availableEngines } from "@lim/vector-index";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createHolder, type Holder } from "./holding.ts";
import { fillDisk, killFirst, limitData, makeMemoryCgroup, mountTmpfs, removeFile } from "./machine.ts";
import {
  buildRequest,
  createList,
  expectNextAttempt,
  expectNothingOf,
  faceOf,
  type Stack,
  startIndexer,
  startStack,
  type TestIndexer,
} from "./support.ts";

const mebibyte = 2 ** 20;
const faces = 300;
/** An index of so many faces of this dimension takes over 200 MiB at its creation, also without full precision. */
const wide = { faces: 50_000, dim: 4096 };
/** Faces with descriptors of that dimension, 16 KiB each. */
const heavyFaces = 3_000;

const engineNames = await availableEngines();

let stack: Stack;
let listId: string;
let wideListId: string;
let holder: Holder;
const indexers: TestIndexer[] = [];
beforeAll(async () => {
  stack = await startStack();
  holder = createHolder(stack);
  listId = await createList(stack.db, faces);
  wideListId = await createWideList();
});
afterEach(async () => {
  await Promise.all(indexers.splice(0).map((indexer) => indexer.process.stop()));
});
afterAll(() => stack?.close());

async function start(on: Stack = stack, env: Record<string, string> = {}) {
  const indexer = await startIndexer(on, { ...holder.env, ...env });
  indexers.push(indexer);
  return indexer;
}

/** Linked faces without descriptors: an index has room for them before it is known that they have none. */
async function createWideList(): Promise<string> {
  const { listId: id } = await stack.db.createList({ name: `wide-${randomUUID()}` });
  const sql = await connectSql(stack.databaseUrl);
  try {
    await sql.query(
      `WITH made AS (INSERT INTO faces.face (external_id) SELECT NULL FROM generate_series(1, ${wide.faces}) RETURNING face_id)
       INSERT INTO faces.list_face (list_id, face_id) SELECT '${id}', face_id FROM made`,
      [],
    );
  } finally {
    await sql.close();
  }
  return id;
}

/** Faces with descriptors, all alike but for one component: enough to read and insert, not to be published. */
async function createHeavyList(): Promise<string> {
  const mark = randomUUID();
  const { listId: id } = await stack.db.createList({ name: mark });
  const ofMark = `FROM faces.face WHERE external_id LIKE '${mark}-%'`;
  // 1/64 as a float32, and -1/64.
  const vector = `overlay(decode(repeat('0000803c', ${wide.dim}), 'hex') PLACING '\\x000080bc'::bytea
    FROM 1 + 4 * (row_number() OVER () % ${wide.dim})::int)`;
  const sql = await connectSql(stack.databaseUrl);
  try {
    for (const statement of [
      `INSERT INTO faces.face (external_id) SELECT '${mark}-' || n FROM generate_series(1, ${heavyFaces}) AS n`,
      `INSERT INTO faces.descriptor (face_id, descriptor_version, data) SELECT face_id, 1, ${vector} ${ofMark}`,
      `INSERT INTO faces.list_face (list_id, face_id) SELECT '${id}', face_id ${ofMark}`,
    ])
      await sql.query(statement, []);
  } finally {
    await sql.close();
  }
  return id;
}

describe("out of memory", () => {
  it.for(engineNames)(
    "I10 is 26109 where engine %s gets no memory for its index; the service goes on",
    async (engine, { skip }) => {
      const indexer = await start();
      const request = buildRequest(wideListId, { dim: wide.dim, engine });
      await holder.arm({ process: "build", phase: "snapshot" });
      await indexer.post("/index_list", request);
      const pid = await holder.held();
      const limited = await limitData(pid, 160 * mebibyte);
      process.kill(pid, "SIGCONT");
      const { error } = await indexer.outcome(request);
      if ("reason" in limited) return skip(limited.reason);
      expect(error, error?.detail).toMatchObject({ error_code: 26109 });
      await expectNothingOf(stack, request);
      const next = buildRequest(listId, { engine });
      await indexer.post("/index_list", next);
      expect((await indexer.outcome(next)).error).toBeNull();
    },
  );

  it("I10 is 26109 where the memory of an index that is updated cannot grow", async ({ skip }) => {
    // Its memory grows by 4,096 faces at once: then by far the largest allocation is that of the few that are added.
    const { base, added } = { base: 4_090, added: 20 };
    const build = { dim: 2048, engine: "hnsw", params: { m: 64, ef_construction: 64 } } as const;
    const growing = createFaceGenerator({ dim: build.dim, effectiveDim: 32 });
    const { listId: grown } = await stack.db.createList({ name: `grown-${randomUUID()}` });
    const add = (first: number, count: number) =>
      stack.db.putFaces({
        listIds: [grown],
        descriptorVersion: 1,
        faces: Array.from({ length: count }, (_, i) => ({
          faceId: faceOf(grown, first + i),
          vector: growing.vector(first + i, 0),
        })),
      });
    await add(0, base);
    const indexer = await start();
    const first = buildRequest(grown, build);
    await indexer.post("/index_list", first);
    expect((await indexer.outcome(first)).error).toBeNull();
    await add(base, added);
    const request = buildRequest(grown, { ...build, mode: "update" });
    await holder.arm({ process: "build", phase: "snapshot", done: 1 });
    await indexer.post("/index_list", request);
    const pid = await holder.held();
    const limited = await limitData(pid, 4 * mebibyte);
    process.kill(pid, "SIGCONT");
    const { error } = await indexer.outcome(request);
    if ("reason" in limited) return skip(limited.reason);
    expect(error, error?.detail).toMatchObject({
      error_code: 26109,
      detail: expect.stringMatching(/^no memory of \d+ bytes can be had/),
    });
    await expectNothingOf(stack, request);
    const again = { ...request, attempt: 2 };
    await indexer.post("/index_list", again);
    expect((await indexer.outcome(again)).error).toBeNull();
    const meta = await stack.storage.verify({ label: grown, indexId: request.task_id });
    expect(meta).toMatchObject({ base_index_id: first.task_id, count: base + added });
  });

  it("I10 is 26109 where the kernel kills the build for want of memory", async ({ skip }) => {
    const cgroup = await makeMemoryCgroup();
    if ("reason" in cgroup) return skip(cgroup.reason);
    const { made } = cgroup;
    const indexer = await start(stack, { LIM_BUILD_MEMORY_LIMIT_MB: "100000" });
    try {
      await made.add(indexer.process.pid);
      const request = buildRequest(await createHeavyList(), { dim: wide.dim, engine: "hnswlib" });
      await holder.arm({ process: "build", phase: "snapshot" });
      await indexer.post("/index_list", request);
      const pid = await holder.held();
      await killFirst(pid);
      await made.limit(16 * mebibyte);
      process.kill(pid, "SIGCONT");
      expect((await indexer.outcome(request)).error).toMatchObject({
        error_code: 26109,
        detail: expect.stringContaining("the kernel killed the build process"),
      });
      await expectNothingOf(stack, request);
    } finally {
      await indexer.process.stop();
      await eventually("the cgroup is empty", async () => {
        await made.remove();
        return true;
      });
    }
  });
});

describe("a full disk", () => {
  let unmount: (() => Promise<void>) | undefined;
  let small: Stack;
  let indexer: TestIndexer;
  let reason = "";
  beforeAll(async () => {
    const root = join(stack.scratch, "small");
    const mounted = await mountTmpfs(root, 96 * mebibyte);
    if ("reason" in mounted) {
      reason = mounted.reason;
      return;
    }
    unmount = mounted.made.unmount;
    small = { ...stack, root, storage: await openIndexStorage({ root }) };
    indexer = await startIndexer(small, holder.env);
  });
  afterAll(async () => {
    await indexer?.process.stop();
    await unmount?.();
  });

  it("is 26103 before the build begins, with the numbers", async ({ skip }) => {
    if (!unmount) return skip(reason);
    const ballast = await fillDisk(small.root, 40 * mebibyte);
    const request = buildRequest(listId);
    await indexer.post("/index_list", request);
    expect((await indexer.outcome(request)).error).toMatchObject({
      error_code: 26103,
      detail: expect.stringMatching(/300 faces of 64 dimensions need about \d+ MiB of disk, 40 MiB are free/),
    });
    await expectNothingOf(small, request);
    await removeFile(ballast);
    await expectNextAttempt(small, indexer, request, faces);
  });

  it.for([
    ["build", "snapshot"],
    ["build", "verify"],
    ["publish", "store"],
  ] as const)(
    "I2 is 26103 where it fills up while the index is written (held in the %s process at %s), and nothing stays",
    async ([name, phase], { skip }) => {
      if (!unmount) return skip(reason);
      const request = buildRequest(listId);
      await holder.arm({ process: name, phase });
      await indexer.post("/index_list", request);
      const pid = await holder.held();
      const ballast = await fillDisk(small.root, 0);
      process.kill(pid, "SIGCONT");
      const { error } = await indexer.outcome(request);
      expect(error).toMatchObject({ error_code: 26103 });
      await expectNothingOf(small, request);
      await removeFile(ballast);
      await expectNextAttempt(small, indexer, request, faces);
    },
  );
});
