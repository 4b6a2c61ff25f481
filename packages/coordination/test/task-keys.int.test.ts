import { randomUUID } from "node:crypto";
import { eventually } from "@lim/testkit";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type RedisFixture, startFixture } from "./support.ts";
import { epoch, reason, taskBench } from "./task-support.ts";

let fixture: RedisFixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.close());

it("every script of the task store touches keys of one hash tag only, so of one slot of a Cluster", async () => {
  const bench = await taskBench(fixture);
  const { store, keys } = bench;
  const touched: { command: string; key: string }[] = [];
  const monitor = await fixture.raw.monitor();
  monitor.on("monitor", (_time: string, args: string[], source: string) => {
    if (source === "lua") touched.push({ command: args[0] ?? "", key: args[1] ?? "" });
  });
  const again = await bench.start();
  const input = { taskId: again.task_id, attempt: 1, epoch, reason, delayMs: 5 };
  await store.progress({
    ...input,
    progress: { phase: "build", done: 0, total: 1, rate_per_s: null, eta_s: null },
  });
  await store.requeue({ ...input, maxAttempts: 5 });
  await bench.end(await bench.start());
  const last = await bench.start();
  await store.requeue({ ...input, taskId: last.task_id, maxAttempts: 1 });
  const idempotency = { key: "{other tag}", fingerprint: "{}" };
  await bench.create({ idempotency });
  await store.create({
    taskId: randomUUID(),
    listId: randomUUID(),
    mode: "rebuild",
    trigger: "request",
    idempotency,
  });
  await store.adopt({
    taskId: randomUUID(),
    listId: randomUUID(),
    mode: "rebuild",
    attempt: 1,
    indexer: "http://h:1",
    startTime: "2020-01-01T00:00:00Z",
    epoch,
  });
  await fixture.raw.zadd(keys.tasks, 1, "ghost");
  const { tasks } = await store.find({}, { limit: 100 });
  await store.find({ listId: again.content.list_id, taskIds: [again.task_id] }, { limit: 100 });
  await store.find({ listId: again.content.list_id }, { limit: 100 });
  await store.queue({ limit: 5 });
  await store.ready({ limit: 5 });
  await store.openTasks([again.content.list_id]);
  await store.expired({ keep: 0, endedBeforeMs: 0 });
  await store.noteMissingLists({ labels: [randomUUID()], epoch });
  await store.noteMissingLists({ labels: [], epoch });
  await store.setLastPlanMs({ lastPlanMs: 1, epoch });
  await store.remove(tasks.map((task) => task.task_id));
  await eventually("the last removal is seen", async () =>
    touched.some(
      ({ command, key }) => /^del$/i.test(command) && key === keys.task(tasks.at(-1)?.task_id ?? ""),
    )
      ? true
      : undefined,
  );
  monitor.disconnect();
  expect(touched.length).toBeGreaterThan(100);
  const outside = touched.filter(
    ({ command, key }) => !/^time$/i.test(command) && !key.startsWith(`{${keys.masterLock}}:`),
  );
  expect(outside).toEqual([]);
});
