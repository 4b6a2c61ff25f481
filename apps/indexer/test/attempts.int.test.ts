import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createHolder, type Holder, type HoldPoint } from "./holding.ts";
import {
  buildRequest,
  createList,
  expectNothingOf,
  faceOf,
  putPersons,
  type Stack,
  slowParams,
  stagingOf,
  startIndexer,
  startStack,
  type TestIndexer,
} from "./support.ts";

const faces = 200;

let stack: Stack;
let holder: Holder;
/** Its builds can be held; those of the other run through. */
let first: TestIndexer;
let second: TestIndexer;
beforeAll(async () => {
  stack = await startStack();
  holder = createHolder(stack);
  [first, second] = await Promise.all([startIndexer(stack, holder.env), startIndexer(stack)]);
});
afterAll(async () => {
  await Promise.all([first?.process.stop(), second?.process.stop()]);
  await stack?.close();
});

type Request = ReturnType<typeof buildRequest>;

async function standstill(point: HoldPoint, request: Request): Promise<number> {
  await holder.arm(point);
  expect((await first.post("/index_list", request)).status).toBe(202);
  return holder.held();
}

const wake = (pid: number) => process.kill(pid, "SIGCONT");
const codeOf = async (indexer: TestIndexer, request: Request) =>
  (await indexer.outcome(request)).error?.error_code ?? null;

async function buildAt(indexer: TestIndexer, request: Request) {
  expect((await indexer.post("/index_list", request)).status).toBe(202);
  return codeOf(indexer, request);
}

/** Exactly one whole index, and nothing else of the list or of its attempts. */
async function expectOneIndex(request: Request, count: number) {
  const { indexes, refused } = await stack.storage.list({ label: request.list_id });
  expect(refused).toEqual([]);
  expect(indexes.map(({ indexId }) => indexId)).toEqual([request.task_id]);
  const meta = await stack.storage.verify({ label: request.list_id, indexId: request.task_id });
  expect(meta.count).toBe(count);
  expect(await stagingOf(stack)).toEqual([]);
}

const points: readonly HoldPoint[] = [
  { process: "build", phase: "start" },
  { process: "build", phase: "verify" },
  { process: "publish", phase: "publish" },
];
const named = points.map((point) => [`${point.process} process at ${point.phase}`, point] as const);

describe("a first attempt that returns", () => {
  it.each(named)(
    "I4 after the second has published (%s) leaves the second's index and ends as the same success",
    async (_name, point) => {
      const listId = await createList(stack.db, faces);
      const request = buildRequest(listId);
      const pid = await standstill(point, request);
      await putPersons(stack.db, listId, faces, 5);
      expect(await buildAt(second, { ...request, attempt: 2 })).toBeNull();
      const before = await stack.storage.find({ indexId: request.task_id });
      wake(pid);
      expect(await codeOf(first, request)).toBeNull();
      expect(await stack.storage.find({ indexId: request.task_id })).toEqual(before);
      await expectOneIndex(request, faces + 5);
    },
  );

  it("I4 while the second builds publishes; the second, ended then, is the same success", async () => {
    const request = buildRequest(await createList(stack.db, 1500));
    const pid = await standstill({ process: "publish", phase: "store" }, request);
    const later = { ...request, attempt: 2, params: slowParams };
    expect((await second.post("/index_list", later)).status).toBe(202);
    await second.reach("build");
    wake(pid);
    expect(await codeOf(first, request)).toBeNull();
    expect((await second.state()).state).toBe("building");
    await second.post("/stop", { task_id: later.task_id, attempt: 2, epoch: later.epoch });
    expect(await codeOf(second, later)).toBeNull();
    await expectOneIndex(request, 1500);
  });

  it.each([
    ["build", "build"],
    ["publish", "store"],
  ] as const)(
    "I4 whose staging the same attempt elsewhere replaced (held in the %s process at %s) changes nothing",
    async (process, phase) => {
      const request = buildRequest(await createList(stack.db, faces));
      const pid = await standstill({ process, phase }, request);
      expect(await buildAt(second, request)).toBeNull();
      const before = await stack.storage.find({ indexId: request.task_id });
      wake(pid);
      // Fenced, or taken for the success that there is.
      expect([null, 26030]).toContain(await codeOf(first, request));
      expect(await stack.storage.find({ indexId: request.task_id })).toEqual(before);
      await expectOneIndex(request, faces);
    },
  );

  it("I4 after its service was frozen with it changes nothing", async () => {
    const request = buildRequest(await createList(stack.db, faces));
    const pid = await standstill({ process: "publish", phase: "store" }, request);
    first.process.kill("SIGSTOP");
    try {
      expect(await buildAt(second, { ...request, attempt: 2 })).toBeNull();
    } finally {
      first.process.kill("SIGCONT");
    }
    wake(pid);
    expect(await codeOf(first, request)).toBeNull();
    await expectOneIndex(request, faces);
  });
});

describe("two indexers at once", () => {
  it("I4 with the same task and attempt publish one index", async () => {
    for (let round = 0; round < 2; round++) {
      const request = buildRequest(await createList(stack.db, faces));
      const codes = await Promise.all([buildAt(first, request), buildAt(second, request)]);
      expect(codes).toContain(null);
      for (const code of codes) expect([null, 26030]).toContain(code);
      await expectOneIndex(request, faces);
    }
  });

  it("I4 with two attempts of a task publish one index, and both are a success", async () => {
    const request = buildRequest(await createList(stack.db, faces));
    const codes = await Promise.all([buildAt(first, request), buildAt(second, { ...request, attempt: 2 })]);
    expect(codes).toEqual([null, null]);
    await expectOneIndex(request, faces);
  });
});

describe("a task or list that goes while its build runs", () => {
  it.each([
    ["build", "build"],
    ["publish", "start"],
    ["publish", "store"],
    ["publish", "publish"],
  ] as const)(
    "I4 removed with the %s process at %s: 26106, and it does not come back",
    async (process, phase) => {
      const request = buildRequest(await createList(stack.db, faces));
      const pid = await standstill({ process, phase }, request);
      await stack.storage.remove({ indexId: request.task_id });
      wake(pid);
      expect(await codeOf(first, request)).toBe(26106);
      await stack.storage.collect({ nowMs: Date.now() + 16 * 60_000 });
      await expectNothingOf(stack, request);
      expect(await buildAt(second, { ...request, attempt: 2 })).toBe(26106);
      await expectNothingOf(stack, request);
      expect((await stack.storage.list({ label: request.list_id })).indexes).toEqual([]);
    },
  );

  it("I1 emptied between request and snapshot: 26105; filled again, the next attempt succeeds", async () => {
    const listId = await createList(stack.db, faces);
    const request = buildRequest(listId);
    const pid = await standstill({ process: "build", phase: "start" }, request);
    const faceIds = Array.from({ length: faces }, (_, person) => faceOf(listId, person));
    await stack.db.unlinkFaces({ listId, faceIds });
    wake(pid);
    expect(await codeOf(first, request)).toBe(26105);
    await expectNothingOf(stack, request);
    await stack.db.linkFaces({ listId, faceIds });
    expect(await buildAt(first, { ...request, attempt: 2 })).toBeNull();
    await expectOneIndex(request, faces);
  });

  it.each(["start", "build"] as const)(
    "deleted with the build process at %s: 26102 and no index",
    async (phase) => {
      const listId = await createList(stack.db, faces);
      const request = buildRequest(listId);
      const pid = await standstill({ process: "build", phase }, request);
      await stack.db.deleteList({ listId });
      wake(pid);
      expect(await codeOf(first, request)).toBe(26102);
      await expectNothingOf(stack, request);
    },
  );

  it("I2 whose id another list takes meanwhile: 26108, and what is there stays", async () => {
    const request = buildRequest(await createList(stack.db, faces));
    const pid = await standstill({ process: "publish", phase: "store" }, request);
    const foreign = buildRequest(await createList(stack.db, 10), { task_id: request.task_id, attempt: 2 });
    expect(await buildAt(second, foreign)).toBeNull();
    wake(pid);
    expect(await codeOf(first, request)).toBe(26108);
    await expectOneIndex(foreign, 10);
    expect((await stack.storage.list({ label: request.list_id })).indexes).toEqual([]);
    const other = buildRequest(request.list_id);
    expect(await buildAt(first, other)).toBeNull();
  });
});
