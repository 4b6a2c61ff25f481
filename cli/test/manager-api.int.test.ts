import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Task } from "@lim/contracts";
import { afterEach, expect, test } from "vitest";
import { ManagerApi } from "../src/api/manager-api.ts";
import { watchTask } from "../src/commands/watch.ts";

const token = "0123456789abcdef";
const taskId = "00000000-0000-4000-8000-0000000000a1";
const listId = "00000000-0000-4000-8000-0000000000b2";
const task: Task = {
  task_id: taskId,
  status: "indexing",
  create_time: "2026-11-21T10:00:00.000Z",
  start_time: "2026-11-21T10:00:01.000Z",
  end_time: null,
  indexer: "http://127.0.0.1:5180",
  error: null,
  content: { list_id: listId },
  mode: "rebuild",
  trigger: "request",
  priority: "default",
  not_before: null,
  attempt: 1,
  progress: { phase: "build", done: 1, total: 10, rate_per_s: 1, eta_s: 9 },
  skipped: null,
};
const ended: Task = { ...task, status: "success", end_time: "2026-11-21T10:01:00.000Z", progress: null };

interface Seen {
  method: string | undefined;
  url: string | undefined;
  headers: IncomingMessage["headers"];
}
type Answer = (response: ServerResponse, seen: Seen) => void;

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** A server whose nth request gets the nth answer, and the last one from then on. */
async function serve(answers: readonly Answer[]): Promise<{ api: ManagerApi; url: string; seen: Seen[] }> {
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    const { method, url, headers } = request;
    seen.push({ method, url, headers });
    request.resume();
    const answer = answers[Math.min(seen.length, answers.length) - 1];
    request.on("end", () => answer?.(response, { method, url, headers }));
  }).listen(0, "127.0.0.1");
  servers.push(server);
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { api: new ManagerApi(`${url}/`, { token }), url, seen };
}

const breaks: Answer = (response) => response.destroy();
const json =
  (status: number, body: unknown): Answer =>
  (response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
const events =
  (text: string, end: "ends" | "breaks"): Answer =>
  (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(text, () => (end === "ends" ? response.end() : response.destroy()));
  };
const event = (name: string, data: unknown) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
const progressOf = ({ task_id, status, attempt, progress }: Task) => ({ task_id, status, attempt, progress });
const never = new AbortController().signal;

test("a creation whose connection breaks is sent again with the same key, another creation with another", async () => {
  const { api, seen } = await serve([breaks, breaks, json(201, task)]);
  expect(await api.createTask({ list_id: listId })).toEqual(task);
  expect(seen.map(({ method }) => method)).toEqual(["POST", "POST", "POST"]);
  const keys = seen.map(({ headers }) => headers["idempotency-key"]);
  expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
  expect(new Set(keys).size).toBe(1);
  await api.createTask({ list_id: listId });
  expect(seen[3]?.headers["idempotency-key"]).not.toBe(keys[0]);
});

test("connections that go on breaking end in an error that names the manager, after few tries", async () => {
  const { api, url, seen } = await serve([breaks]);
  await expect(api.task(taskId)).rejects.toThrow(`from the Index Manager at ${url}`);
  expect(seen.length).toBe(4);
});

test("a removal is not sent again: its first try may have come through", async () => {
  const { api, seen } = await serve([breaks, json(200, {})]);
  await expect(api.cancelTask(taskId)).rejects.toMatchObject({ errorName: "timeout" });
  await expect(api.removeTasks({ statuses: "error" }, { limit: 10, dry_run: false })).rejects.toThrow();
  expect(seen.length).toBe(2);
});

test("what the manager refuses is not tried again and comes as the error that it is", async () => {
  const { api, seen } = await serve([json(409, { error_code: 26031, desc: "x", detail: "task 7" })]);
  await expect(api.createTask({ list_id: listId })).rejects.toMatchObject({
    errorName: "task_conflict",
    detail: "task 7",
  });
  expect(seen.length).toBe(1);
});

test("every request bears the token; a refused or missing one names LIM_API_TOKEN", async () => {
  const { api, url, seen } = await serve([json(401, { error_code: 26009, desc: "x", detail: "y" })]);
  await expect(api.task(taskId)).rejects.toThrow(/refused the token: LIM_API_TOKEN/);
  await expect(watchTask(api, taskId, never)).rejects.toThrow(/refused the token: LIM_API_TOKEN/);
  expect(seen.map(({ headers }) => headers.authorization)).toEqual([`Bearer ${token}`, `Bearer ${token}`]);
  await expect(new ManagerApi(url).task(taskId)).rejects.toThrow(/set LIM_API_TOKEN/);
  expect(seen[2]?.headers.authorization).toBeUndefined();
});

test("something else at the manager's address is told from a manager", async () => {
  const { api } = await serve([json(200, { hello: "world" }), json(404, "no")]);
  await expect(api.task(taskId)).rejects.toThrow(/is LIM_MANAGER_URL right/);
  await expect(api.task(taskId)).rejects.toThrow(/HTTP 404, not from an Index Manager/);
});

test("filters and cursors are sent, the pages are put together", async () => {
  const page = (tasks: Task[], next_cursor: string | null) =>
    json(200, { count: tasks.length, tasks, next_cursor });
  const full = Array.from({ length: 1_000 }, () => task);
  const { api, seen } = await serve([page(full, "c&1"), page([ended], null)]);
  const found = await api.tasks({ statuses: "indexing,success", list_id: undefined }, { limit: 1_200 });
  expect(found.items.length).toBe(1_001);
  expect(seen.map(({ url }) => url)).toEqual([
    "/1/tasks?statuses=indexing%2Csuccess&limit=1000",
    "/1/tasks?statuses=indexing%2Csuccess&limit=200&cursor=c%261",
  ]);
});

test("a task is followed by its stream to its end", async () => {
  const text = `: beat\n\n${event("progress", progressOf(task))}${event("end", ended)}`;
  const { api, seen } = await serve([events(text, "ends")]);
  expect(await watchTask(api, taskId, never)).toEqual(ended);
  expect(seen.map(({ url }) => url)).toEqual([`/1/tasks/${taskId}/progress`]);
});

test.each(["ends", "breaks"] as const)(
  "where the stream %s before the task does, it is asked for",
  async (end) => {
    const { api, seen } = await serve([
      events(event("progress", progressOf(task)), end),
      json(200, task),
      breaks,
      json(200, ended),
    ]);
    expect(await watchTask(api, taskId, never)).toEqual(ended);
    expect(seen.slice(1).map(({ url }) => url)).toEqual(Array(3).fill(`/1/tasks/${taskId}`));
  },
);

test("where there are too many streams, the task is asked for", async () => {
  const { api } = await serve([
    json(503, { error_code: 26007, desc: "x", detail: "too many streams" }),
    json(503, { error_code: 26021, desc: "x", detail: "Redis is away" }),
    json(200, ended),
  ]);
  expect(await watchTask(api, taskId, never)).toEqual(ended);
});

test("a task that is removed while it is watched is an error that says so", async () => {
  const { api } = await serve([
    events(`${event("progress", progressOf(task))}${event("removed", {})}`, "ends"),
  ]);
  await expect(watchTask(api, taskId, never)).rejects.toThrow(/was removed while it was watched/);
  const gone = json(404, { error_code: 26002, desc: "x", detail: "no task" });
  const polled = await serve([events(event("progress", progressOf(task)), "breaks"), gone]);
  await expect(watchTask(polled.api, taskId, never)).rejects.toThrow(/was removed while it was watched/);
  const unknown = await serve([gone]);
  await expect(watchTask(unknown.api, taskId, never)).rejects.toThrow(/no task/);
});

test("watching ends when its signal fires, and says that the task goes on", async () => {
  const stop = new AbortController();
  const { api } = await serve([
    (response) => {
      response
        .writeHead(200, { "content-type": "text/event-stream" })
        .write(": beat\n\n", () => stop.abort());
    },
  ]);
  await expect(watchTask(api, taskId, stop.signal)).rejects.toThrow(/stopped watching; the task goes on/);
});
