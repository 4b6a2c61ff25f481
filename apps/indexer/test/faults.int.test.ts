import { randomUUID } from "node:crypto";
import { type AddressInfo, createServer } from "node:net";
import { connectRedis, createIndexerRegistry } from "@lim/coordination";
import { eventually } from "@lim/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createHolder } from "./holding.ts";
import {
  buildRequest,
  createList,
  expectNothingOf,
  isAlive,
  type Stack,
  slowParams,
  stagingOf,
  startIndexer,
  startStack,
  type TestIndexer,
} from "./support.ts";

let stack: Stack;
let listId: string;
let indexer: TestIndexer | undefined;
beforeAll(async () => {
  stack = await startStack();
  listId = await createList(stack.db, 2000);
});
afterEach(async () => {
  await indexer?.process.stop();
  indexer = undefined;
});
afterAll(() => stack?.close());

const start = async (env: Record<string, string> = {}) => {
  indexer = await startIndexer(stack, { LIM_DRAIN_TIMEOUT_MS: "0", ...env });
  return indexer;
};
const slow = (over = {}) => buildRequest(listId, { params: slowParams, ...over });

describe("a running build", () => {
  it("I3 I4 refuses others, stale masters and wrong stops, and is cancelled by the right one (26106)", async () => {
    const { post, refusal, reach, outcome, state, buildPid } = await start();
    const request = slow();
    expect((await post("/index_list", request)).status).toBe(202);
    expect(await refusal("/index_list", slow())).toMatchObject({ status: 409, error_code: 26101 });
    const epoch = request.epoch + 10;
    expect((await post("/index_list", { ...request, epoch })).status).toBe(202);
    expect(await refusal("/index_list", slow({ epoch: epoch - 1 }))).toMatchObject({
      status: 409,
      error_code: 26030,
    });
    const { task_id, attempt } = request;
    expect(await refusal("/stop", { task_id, attempt, epoch: epoch - 1 })).toMatchObject({
      error_code: 26030,
    });
    expect(await refusal("/stop", { task_id, attempt: 2, epoch })).toMatchObject({ status: 404 });
    expect(await refusal("/stop", { task_id: randomUUID(), attempt, epoch })).toMatchObject({ status: 404 });
    await reach("build");
    const pid = await buildPid();
    expect((await stagingOf(stack)).length).toBe(1);
    expect((await post("/stop", { task_id, attempt, epoch })).status).toBe(200);
    expect((await outcome(request)).error?.error_code).toBe(26106);
    expect((await state()).state).toBe("idle");
    expect(isAlive(pid)).toBe(false);
    await expectNothingOf(stack, request);
  });

  it("I10 is refused before it begins where memory cannot hold it (26109, with numbers)", async () => {
    const { post, outcome } = await start({ LIM_BUILD_MEMORY_LIMIT_MB: "220" });
    // The process by itself stays below the limit; vectors and graph of this dimension would pass it.
    const request = buildRequest(listId, { dim: 4096 });
    await post("/index_list", request);
    expect((await outcome(request)).error).toMatchObject({
      error_code: 26109,
      detail: expect.stringMatching(/2000 faces of 4096 dimensions need about \d+ MiB.*limit is 220 MiB/),
    });
    await expectNothingOf(stack, request);
  });

  it("I10 is ended when its resident memory passes the limit (26109, with numbers)", async () => {
    // Accepts and never answers: the build cannot get as far as its preflight, only the watch can end it.
    const silent = createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as AddressInfo;
    const { post, outcome, state } = await start({
      LIM_BUILD_MEMORY_LIMIT_MB: "20",
      DATABASE_URL: `postgres://u:p@127.0.0.1:${port}/db`,
    });
    const request = buildRequest(listId);
    await post("/index_list", request);
    expect((await outcome(request)).error).toMatchObject({
      error_code: 26109,
      detail: expect.stringMatching(/resident memory of the build reached \d+ MiB, the limit is 20 MiB/),
    });
    expect((await state()).state).toBe("idle");
    await expectNothingOf(stack, request);
    silent.close();
  });

  it("I2 does not outlive its service: nobody would hear of it", async () => {
    const { post, reach, buildPid, process: service } = await start();
    const request = slow();
    await post("/index_list", request);
    await reach("build");
    const pid = await buildPid();
    service.kill("SIGKILL");
    await service.exited;
    await eventually("the build's end", () => (isAlive(pid) ? undefined : true));
    await expectNothingOf(stack, request);
  });
});

describe("shutdown", () => {
  it("lets a running build finish, takes no other, and exits 0", async () => {
    const holder = createHolder(stack);
    const {
      post,
      refusal,
      process: service,
    } = await start({
      LIM_DRAIN_TIMEOUT_MS: "600000",
      ...holder.env,
    });
    const request = buildRequest(listId);
    await holder.arm({ process: "build", phase: "build" });
    await post("/index_list", request);
    const pid = await holder.held();
    service.kill("SIGTERM");
    await service.waitForLine(/draining/, { timeoutMs: 60_000 });
    expect(await refusal("/index_list", buildRequest(listId))).toMatchObject({ error_code: 26101 });
    process.kill(pid, "SIGCONT");
    expect(await service.exited).toBe(0);
    await service.waitForLine(/build succeeded/, { timeoutMs: 60_000 });
    expect((await stack.storage.find({ indexId: request.task_id }))?.meta.count).toBe(2000);
  });

  it("cancels what outlives the drain timeout and leaves nothing, exit 0", async () => {
    const { post, reach, buildPid, process: service } = await start({ LIM_DRAIN_TIMEOUT_MS: "100" });
    const request = slow();
    await post("/index_list", request);
    await reach("build");
    const pid = await buildPid();
    service.kill("SIGTERM");
    expect(await service.exited).toBe(0);
    expect(isAlive(pid)).toBe(false);
    await service.waitForLine(/"error_code":26106/, { timeoutMs: 60_000 });
    await expectNothingOf(stack, request);
  });

  it("I9 is registered while it runs, again after Redis forgot it, and no longer once it stops", async () => {
    const redis = connectRedis({ url: stack.redisUrl, name: "test" });
    const registry = createIndexerRegistry({ redis });
    try {
      const { process: service } = await start({ LIM_INDEXER_ORIGIN: "http://indexer.test:5180" });
      const registered = async () =>
        (await registry.origins()).includes("http://indexer.test:5180") ? true : undefined;
      await eventually("the registration", registered);
      await stack.restartRedis();
      await eventually("the registration in an empty Redis", registered);
      await service.stop();
      expect(await service.exited).toBe(0);
      expect(await registry.origins()).toEqual([]);
    } finally {
      await redis.close();
    }
  });
});

it("names every fault of its settings and exits 2", async () => {
  await expect(
    startIndexer(stack, { LIM_INDEXER_PORT: "x", LIM_STORAGE_ROOT: "", DATABASE_URL: "" }),
  ).rejects.toThrow(/DATABASE_URL[\s\S]*LIM_STORAGE_ROOT[\s\S]*LIM_INDEXER_PORT/);
});
