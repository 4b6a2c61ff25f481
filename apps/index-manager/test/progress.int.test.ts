import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { LimError, type Progress, type Task, taskProgressEventSchema, taskSchema } from "@lim/contracts";
import type { TaskStore } from "@lim/coordination";
import { eventually } from "@lim/testkit";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { AppDeps } from "../src/app.ts";
import { managerLimits } from "../src/limits.ts";
import { type Api, ask, refusal, startApi, storeWith } from "./api-harness.ts";
import { followProgress, type ProgressClient, type SentEvent } from "./progress-client.ts";

let api: Api;
let app: FastifyInstance;
let url: string;
const clients: ProgressClient[] = [];
const epoch = 1;
const indexer = "http://indexer:5180";

beforeAll(async () => {
  api = await startApi();
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.leave();
  await api.clear();
});
afterAll(() => api.close());

async function listen(deps: Partial<AppDeps> = {}): Promise<void> {
  app = await api.app(deps);
  url = await app.listen({ host: "127.0.0.1", port: 0 });
}
async function follow(taskId: string, headers: Record<string, string> = {}): Promise<ProgressClient> {
  const client = await followProgress(`${url}/1/tasks/${taskId}/progress`, { headers });
  clients.push(client);
  return client;
}
async function pendingTask(): Promise<string> {
  const taskId = randomUUID();
  const listId = await api.harness.list();
  await api.harness.raw.set("{lim_manager_master}:epoch", epoch);
  await api.harness.store.create({ taskId, listId, mode: "rebuild", trigger: "request" });
  return taskId;
}
async function runningTask(): Promise<string> {
  const taskId = await pendingTask();
  await api.harness.store.dispatch({ taskId, indexer, epoch });
  return taskId;
}
const at = (phase: Progress["phase"], done: number): Progress => ({
  phase,
  done,
  total: 100,
  rate_per_s: 10,
  eta_s: 1,
});
const report = (taskId: string, progress: Progress, attempt = 1) =>
  api.harness.store.progress({ taskId, attempt, epoch, progress });
const finish = (taskId: string, attempt = 1) =>
  api.harness.store.finish({ taskId, attempt, epoch, error: null, endTime: new Date().toISOString() });
const openStreams = async () => {
  const text = (await app.inject("/metrics")).body;
  return Number(/^lim_manager_progress_streams (\d+)$/m.exec(text)?.[1]);
};
const last = (events: SentEvent[]) => events.at(-1);
const until = (client: ProgressClient, event: string) =>
  client.untilEvents(`event ${event}`, (events) => last(events)?.event === event);
const untilDone = (client: ProgressClient, done: number) =>
  client.untilEvents(`done ${done}`, (events) => last(events)?.data.progress?.done === done);

describe("progress of a task as server-sent events", () => {
  it("tells every step from pending to the task as it ended, then closes", async () => {
    await listen();
    const taskId = await pendingTask();
    const client = await follow(taskId);
    expect(client.status).toBe(200);
    await client.untilEvents("pending", (events) => events.length === 1);
    await api.harness.store.dispatch({ taskId, indexer, epoch });
    await client.untilEvents("indexing", (events) => events.length === 2);
    await report(taskId, at("build", 40));
    await untilDone(client, 40);
    await report(taskId, at("verify", 1));
    await untilDone(client, 1);
    await finish(taskId);
    const events = await until(client, "end");
    await client.untilClosed();
    const seen = events.slice(0, -1).map(({ event, data }) => {
      expect(event).toBe("progress");
      const { status, attempt, progress } = taskProgressEventSchema.strict().parse(data);
      return [status, attempt, progress?.phase, progress?.done];
    });
    expect(seen).toEqual([
      ["pending", 0, undefined, undefined],
      ["indexing", 1, undefined, undefined],
      ["indexing", 1, "build", 40],
      ["indexing", 1, "verify", 1],
    ]);
    expect(taskSchema.parse(last(events)?.data)).toEqual(await api.harness.store.get(taskId));
    expect(client.text()).toMatch(/^retry: \d+\n\n/);
  });

  it("leaves out a step back within an attempt, and tells of another attempt", async () => {
    const taskId = await runningTask();
    const { store } = api.harness;
    const read: (number | undefined)[] = [];
    await listen({
      store: storeWith(store, {
        async get(...call) {
          const task = await store.get(...call);
          read.push(task?.progress?.done);
          return task;
        },
      }),
    });
    const reportAndWait = async (progress: Progress) => {
      await report(taskId, progress);
      await eventually("it is read", () => (read.at(-1) === progress.done ? true : undefined));
    };
    await report(taskId, at("build", 50));
    const client = await follow(taskId);
    await untilDone(client, 50);
    await reportAndWait(at("build", 20));
    await reportAndWait(at("snapshot", 99));
    await report(taskId, at("build", 51));
    await untilDone(client, 51);
    const reason = new LimError("indexer_lost", "gone").toBody();
    await store.requeue({ taskId, attempt: 1, epoch, reason, maxAttempts: 3, delayMs: 0 });
    await client.untilEvents("pending again", (events) => last(events)?.data.status === "pending");
    await store.dispatch({ taskId, indexer, epoch });
    await report(taskId, at("snapshot", 1), 2);
    const events = await untilDone(client, 1);
    expect(last(events)?.data.attempt).toBe(2);
    expect(events.map(({ data }) => data.progress?.done ?? null).filter((done) => done !== null)).toEqual([
      50, 51, 1,
    ]);
  });

  it("ends at once where the task is over already", async () => {
    await listen();
    const task = await api.ended(await api.harness.list());
    const client = await follow(task.task_id);
    await client.untilClosed();
    expect(client.events).toEqual([{ event: "end", data: task }]);
  });

  it("says so when the record is removed, and closes", async () => {
    await listen();
    const taskId = await runningTask();
    const client = await follow(taskId);
    await client.untilEvents("first", (events) => events.length === 1);
    await ask(app, "DELETE", `/1/tasks/${taskId}`);
    await client.untilClosed();
    expect(last(client.events)).toEqual({ event: "removed", data: { task_id: taskId } });
  });

  it("sends the headers that every answer has, and those of a stream", async () => {
    await listen();
    const requestId = `1700000000,${randomUUID()}`;
    const client = await follow(await runningTask(), { "Luna-Request-Id": requestId });
    expect(client.headers).toMatchObject({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
      "x-content-type-options": "nosniff",
      "luna-request-id": requestId,
    });
  });

  it("answers HEAD without a stream", async () => {
    await listen();
    const taskId = await runningTask();
    const response = await fetch(`${url}/1/tasks/${taskId}/progress`, { method: "HEAD" });
    expect([response.status, response.headers.get("content-type")]).toEqual([
      200,
      "text/event-stream; charset=utf-8",
    ]);
    expect(await openStreams()).toBe(0);
    expect((await fetch(`${url}/1/tasks/${randomUUID()}/progress`, { method: "HEAD" })).status).toBe(404);
  });

  it("I10: all streams of one task share a reader, which stops when the last client has gone", async () => {
    const taskId = await runningTask();
    const { store } = api.harness;
    let reads = 0;
    /** A reader, and each stream's own first read, has its own. */
    const signals = new Set<AbortSignal | undefined>();
    await listen({
      store: storeWith(store, {
        get(taskId, options) {
          reads++;
          signals.add(options?.signal);
          return store.get(taskId, options);
        },
      }),
    });
    const followers = await Promise.all(Array.from({ length: 20 }, () => follow(taskId)));
    await Promise.all(followers.map((client) => client.untilEvents("first", (events) => events.length > 0)));
    expect(await openStreams()).toBe(20);
    signals.clear();
    await report(taskId, at("build", 1));
    await Promise.all(followers.map((client) => untilDone(client, 1)));
    expect(signals.size).toBe(1);
    for (const client of followers) client.leave();
    await eventually("no stream is open", async () => ((await openStreams()) === 0 ? true : undefined));
    signals.clear();
    const after = reads;
    const another = await follow(taskId);
    await another.untilEvents("first", (events) => events.length > 0);
    await eventually("its reader reads on", () => (reads - after >= 4 ? true : undefined));
    // The next stream's own first read and its reader's: nobody else reads any more.
    expect(signals.size).toBeLessThanOrEqual(2);
  });

  it("I10: refuses more streams than the limit, and takes one again when another has gone", async () => {
    await listen();
    const taskId = await runningTask();
    const most = managerLimits.maxProgressStreams;
    const all = await Promise.all(Array.from({ length: most }, () => follow(taskId)));
    const [status, code, detail] = await refusal(app, "GET", `/1/tasks/${taskId}/progress`);
    expect([status, code]).toEqual([503, 26007]);
    expect(detail).toContain(`${most}`);
    all[0]?.leave();
    const late = await eventually("there is room again", async () => {
      const client = await follow(taskId);
      return client.status === 200 ? client : undefined;
    });
    await late.untilEvents("first", (events) => events.length > 0);
  });

  it("I9: goes on after Redis was away", async () => {
    const taskId = await runningTask();
    const { store } = api.harness;
    let broken = false;
    let failures = 0;
    const get: TaskStore["get"] = async (...call) => {
      if (!broken) return store.get(...call);
      failures++;
      throw new LimError("redis_unavailable", "away");
    };
    await listen({ store: storeWith(store, { get }) });
    const client = await follow(taskId);
    await client.untilEvents("first", (events) => events.length === 1);
    broken = true;
    await eventually("reads have failed", () => (failures >= 2 ? true : undefined));
    broken = false;
    await report(taskId, at("build", 7));
    await untilDone(client, 7);
  });

  it("refuses a new stream while Redis is away", async () => {
    const get: TaskStore["get"] = () => Promise.reject(new LimError("redis_unavailable", "away"));
    await listen({ store: storeWith(api.harness.store, { get }) });
    const refused = await refusal(app, "GET", `/1/tasks/${randomUUID()}/progress`);
    expect(refused.slice(0, 2)).toEqual([503, 26021]);
  });

  it("ends all streams when the service stops, without an end event", async () => {
    const stopping = new AbortController();
    await listen({ stopping: stopping.signal });
    const taskId = await runningTask();
    const [a, b] = [await follow(taskId), await follow(taskId)];
    stopping.abort();
    await Promise.all([a.untilClosed(), b.untilClosed()]);
    expect([...a.events, ...b.events].every(({ event }) => event === "progress")).toBe(true);
    expect((await refusal(app, "GET", `/1/tasks/${taskId}/progress`)).slice(0, 2)).toEqual([503, 26007]);
  });

  it("ends streams when only the application closes", async () => {
    await listen();
    const client = await follow(await runningTask());
    await app.close();
    await client.untilClosed();
  });

  it("ends streams when the process is told to stop, and then exits", async () => {
    const manager = await api.harness.manager({ LIM_PLANNING_SETTLE_MS: "600000" });
    url = manager.url;
    const client = await follow(await pendingTask());
    await client.untilEvents("pending", (events) => events.length === 1);
    manager.process.kill("SIGTERM");
    await client.untilClosed();
    // Not by the force that ends a shutdown which waits in vain.
    expect(await manager.process.exited).toBe(0);
    expect(client.events.map(({ event }) => event)).toEqual(["progress"]);
  });

  it("I10: closing does not wait for a client that reads nothing", async () => {
    await listen();
    const taskId = await runningTask();
    const socket = connect(Number(new URL(url).port), "127.0.0.1");
    await once(socket, "connect");
    socket.pause();
    socket.write(`GET /1/tasks/${taskId}/progress HTTP/1.1\r\nHost: x\r\n\r\n`);
    await eventually("it is followed", async () => ((await openStreams()) === 1 ? true : undefined));
    await app.close();
    socket.destroy();
  });
});

describe("tasks that change while nobody may miss the end", () => {
  it("many quick changes end in the one end event", async () => {
    await listen();
    const taskId = await runningTask();
    const client = await follow(taskId);
    for (let done = 1; done <= 50; done++) await report(taskId, at("build", done));
    await finish(taskId);
    const events = await until(client, "end");
    expect(events.filter(({ event }) => event === "end")).toHaveLength(1);
    const dones = events.slice(0, -1).map(({ data }: SentEvent) => (data as Task).progress?.done ?? 0);
    expect(dones).toEqual(dones.toSorted((x, y) => x - y));
  });
});
