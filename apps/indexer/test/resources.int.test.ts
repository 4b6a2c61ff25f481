import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { openIndexStorage } from "@lim/index-storage";
import { connectSql } from "@lim/local-servers";
import { eventually } from "@lim/testkit";
import { availableEngines } from "@lim/vector-index";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createHolder, type Holder } from "./holding.ts";
import { fillDisk, limitData, makeMemoryCgroup, mountTmpfs, removeFile } from "./machine.ts";
import {
  buildRequest,
  createList,
  expectNextAttempt,
  expectNothingOf,
  type Stack,
  startIndexer,
  startStack,
  type TestIndexer,
} from "./support.ts";

const mebibyte = 2 ** 20;
const faces = 300;
/** An index of so many faces of this dimension takes most of a gigabyte, all of it at its creation. */
const wide = { faces: 50_000, dim: 4096 };

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

describe("out of memory", () => {
  it.for(engineNames)(
    "I10 is 26109 where engine %s gets no memory for its index; the service goes on",
    async (engine, { skip }) => {
      const indexer = await start();
      const request = buildRequest(wideListId, { dim: wide.dim, engine });
      await holder.arm({ process: "build", phase: "snapshot" });
      await indexer.post("/index_list", request);
      const pid = await holder.held();
      const limited = await limitData(pid, 700 * mebibyte);
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

  it("I10 is 26109 where the kernel kills the build for want of memory", async ({ skip }) => {
    const cgroup = await makeMemoryCgroup(320 * mebibyte);
    if ("reason" in cgroup) return skip(cgroup.reason);
    const indexer = await start(stack, { LIM_BUILD_MEMORY_LIMIT_MB: "100000" });
    try {
      await cgroup.made.add(indexer.process.pid);
      const request = buildRequest(wideListId, { dim: wide.dim, engine: "hnswlib" });
      await indexer.post("/index_list", request);
      expect((await indexer.outcome(request)).error).toMatchObject({
        error_code: 26109,
        detail: expect.stringContaining("the kernel killed the build process"),
      });
      await expectNothingOf(stack, request);
    } finally {
      await indexer.process.stop();
      await eventually("the cgroup is empty", async () => {
        await cgroup.made.remove();
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
