import { readFile } from "node:fs/promises";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createHolder, type Holder, type HoldPoint } from "./holding.ts";
import {
  buildRequest,
  createList,
  expectNextAttempt,
  expectNothingOf,
  isAlive,
  type Stack,
  stagingOf,
  startIndexer,
  startStack,
  type TestIndexer,
} from "./support.ts";

const faces = 300;

let stack: Stack;
let listId: string;
let holder: Holder;
let indexer: TestIndexer;
beforeAll(async () => {
  stack = await startStack();
  listId = await createList(stack.db, faces);
  holder = createHolder(stack);
  indexer = await startIndexer(stack, holder.env);
});
afterAll(async () => {
  await indexer?.process.stop();
  await stack?.close();
});

/** A build that stands still at the point. */
async function standstill(point: HoldPoint) {
  const request = buildRequest(listId);
  await holder.arm(point);
  expect((await indexer.post("/index_list", request)).status).toBe(202);
  return { request, pid: await holder.held() };
}

const beforeProgress: readonly HoldPoint[] = [
  { process: "build", phase: "start" },
  { process: "publish", phase: "start" },
];
const inPhases: readonly HoldPoint[] = [
  { process: "build", phase: "snapshot" },
  { process: "build", phase: "build" },
  { process: "build", phase: "verify" },
  { process: "publish", phase: "verify" },
  { process: "publish", phase: "store" },
  { process: "publish", phase: "publish" },
];
const named = (points: readonly HoldPoint[]) =>
  points.map((point) => [`the ${point.process} process at ${point.phase}`, point] as const);

describe("a build whose process dies", () => {
  it.each(named([...beforeProgress, ...inPhases]))(
    "I2 killed: %s: 26104, nothing half-published",
    async (_name, point) => {
      const { request, pid } = await standstill(point);
      process.kill(pid, "SIGKILL");
      const { error } = await indexer.outcome(request);
      expect(error).toMatchObject({ error_code: 26104, detail: expect.stringContaining("SIGKILL") });
      expect(error?.detail).toContain(`the ${point.process} process`);
      if (inPhases.includes(point)) expect(error?.detail).toContain(`phase ${point.phase}`);
      await expectNothingOf(stack, request);
      expect((await indexer.state()).state).toBe("idle");
      // What is left behind is most where the index was about to be published.
      if (point.process === "publish" && point.phase === "publish")
        await expectNextAttempt(stack, indexer, request, faces);
    },
  );

  it.each(
    named([
      { process: "build", phase: "build" },
      { process: "publish", phase: "verify" },
    ]),
  )(
    "I2 of a segmentation fault: %s: 26104 that names it, the next attempt succeeds",
    async (_name, point) => {
      const { request, pid } = await standstill(point);
      process.kill(pid, "SIGSEGV");
      process.kill(pid, "SIGCONT");
      expect((await indexer.outcome(request)).error).toMatchObject({
        error_code: 26104,
        detail: expect.stringContaining("SIGSEGV"),
      });
      await expectNothingOf(stack, request);
      await expectNextAttempt(stack, indexer, request, faces);
    },
  );

  it("I3 after its index was published, before it could say so: a success", async () => {
    const { request, pid } = await standstill({ process: "publish", phase: "publish", done: 1 });
    process.kill(pid, "SIGKILL");
    expect(await indexer.outcome(request)).toMatchObject({ status: "success", error: null });
    expect((await stack.storage.verify({ label: listId, indexId: request.task_id })).count).toBe(faces);
    expect(await stagingOf(stack)).toEqual([]);
  });
});

describe("a build that is cancelled", () => {
  it.each(named(inPhases))("I2 in %s: 26106, nothing half-published", async (_name, point) => {
    const { request, pid } = await standstill(point);
    const { task_id, attempt, epoch } = request;
    expect((await indexer.post("/stop", { task_id, attempt, epoch })).status).toBe(200);
    process.kill(pid, "SIGCONT");
    expect((await indexer.outcome(request)).error?.error_code).toBe(26106);
    expect(isAlive(pid)).toBe(false);
    await expectNothingOf(stack, request);
  });

  it("I10 is killed where its process does not hear of it", async () => {
    const { request, pid } = await standstill({ process: "build", phase: "build" });
    const { task_id, attempt, epoch } = request;
    await indexer.post("/stop", { task_id, attempt, epoch });
    expect((await indexer.outcome(request)).error?.error_code).toBe(26106);
    expect(isAlive(pid)).toBe(false);
    await expectNothingOf(stack, request);
    await expectNextAttempt(stack, indexer, request, faces);
  });
});

it.skipIf(process.platform !== "linux")("spare processes that are killed harm no build", async () => {
  const { pid } = indexer.process;
  const spares = await eventually("two spares", async () => {
    const pids = await childrenOf(pid);
    return pids.length === 2 ? pids : undefined;
  });
  for (const spare of spares) process.kill(spare, "SIGKILL");
  await eventually("their ends are noticed", async () => {
    const pids = await childrenOf(pid);
    return spares.some((spare) => pids.includes(spare)) ? undefined : true;
  });
  const request = buildRequest(listId);
  await indexer.post("/index_list", request);
  expect(await indexer.outcome(request)).toMatchObject({ status: "success" });
});

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "latin1");
  return text.trim().split(" ").filter(Boolean).map(Number);
}
