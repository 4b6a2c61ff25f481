import { utimes } from "node:fs/promises";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createHolder, type Holder, type HoldPoint } from "./holding.ts";
import {
  buildRequest,
  createList,
  expectNothingOf,
  isAlive,
  type Stack,
  stagingOf,
  startIndexer,
  startStack,
  type TestIndexer,
} from "./support.ts";

const faces = 200;
const minuteMs = 60_000;
/** Of a staging's heartbeat, after which it is taken for dead. */
const silentMs = 15 * minuteMs;

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

async function standstill(service: TestIndexer, point: HoldPoint) {
  const request = buildRequest(listId);
  await holder.arm(point);
  expect((await service.post("/index_list", request)).status).toBe(202);
  return { request, pid: await holder.held(), folder: `${request.task_id}.1` };
}
const collectAt = (nowMs: number, dryRun = false) => stack.storage.collect({ nowMs, dryRun });

describe("collecting beside builds", () => {
  it.each([
    ["build", "build"],
    ["publish", "store"],
  ] as const)("I2 takes nothing of a live build (%s process at %s)", async (process_, phase) => {
    const { request, pid, folder } = await standstill(indexer, { process: process_, phase });
    expect((await collectAt(Date.now() + silentMs - minuteMs)).staging).toEqual([]);
    expect(await stagingOf(stack)).toEqual([folder]);
    process.kill(pid, "SIGCONT");
    expect((await indexer.outcome(request)).error).toBeNull();
    expect((await stack.storage.verify({ label: listId, indexId: request.task_id })).count).toBe(faces);
  });

  it("I2 a heartbeat renews what looked silent", async () => {
    const staging = await stack.storage.stage({
      label: listId,
      indexId: buildRequest(listId).task_id,
      attempt: 1,
    });
    const longAgo = new Date(Date.now() - silentMs - minuteMs);
    await utimes(staging.path, longAgo, longAgo);
    expect((await collectAt(Date.now(), true)).staging).toHaveLength(1);
    await staging.touch();
    expect((await collectAt(Date.now())).staging).toEqual([]);
    await staging.discard();
  });

  it("I4 one that was silent for so long is fenced when it wakes, and leaves nothing", async () => {
    const { request, pid, folder } = await standstill(indexer, { process: "publish", phase: "store" });
    expect((await collectAt(Date.now() + silentMs + minuteMs)).staging).toEqual([folder]);
    process.kill(pid, "SIGCONT");
    expect((await indexer.outcome(request)).error?.error_code).toBe(26030);
    await expectNothingOf(stack, request);
  });

  it("takes what a build left that died with its service, after 15 minutes; a dry run only says so", async () => {
    const service = await startIndexer(stack, holder.env);
    const { request, pid, folder } = await standstill(service, { process: "publish", phase: "verify" });
    service.process.kill("SIGKILL");
    process.kill(pid, "SIGKILL");
    await service.process.exited;
    await eventually("the build's end", () => (isAlive(pid) ? undefined : true));
    expect(await stagingOf(stack)).toEqual([folder]);
    expect((await collectAt(Date.now() + silentMs - minuteMs)).staging).toEqual([]);
    expect((await collectAt(Date.now() + silentMs + minuteMs, true)).staging).toEqual([folder]);
    expect(await stagingOf(stack)).toEqual([folder]);
    expect((await collectAt(Date.now() + silentMs + minuteMs)).staging).toEqual([folder]);
    await expectNothingOf(stack, request);
  });

  it("removes removed indexes for good after their grace, marks last; a dry run changes nothing", async () => {
    const request = buildRequest(listId);
    await indexer.post("/index_list", request);
    expect((await indexer.outcome(request)).error).toBeNull();
    await stack.storage.remove({ indexId: request.task_id });
    const later = Date.now() + 365 * 24 * 60 * minuteMs;
    const foreseen = await collectAt(later, true);
    expect(foreseen.trash.some((name) => name.startsWith(request.task_id))).toBe(true);
    expect(foreseen.marks).toContain(request.task_id);
    expect(await stack.storage.isMarkedRemoved({ indexId: request.task_id })).toBe(true);
    expect(await collectAt(later)).toEqual(foreseen);
    expect(await collectAt(later)).toEqual({ staging: [], trash: [], marks: [] });
    expect(await stack.storage.find({ indexId: request.task_id })).toBeUndefined();
  });
});
