import type { IndexSummary, PlanResponse, RetentionResponse, Task } from "@lim/contracts";
import { createFaceGenerator, faceIdOf, startProcess } from "@lim/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lim } from "./lim-process.ts";
import { facesOf, importFaces, limMain, startTestStack, type TestStack } from "./support.ts";

const dim = 16;
const token = "a-token-of-this-test";
const generator = createFaceGenerator({ dim, effectiveDim: 12 });
const staffFaces = facesOf("staff", generator.matrix({ firstPerson: 0, persons: 300 }), dim);
const guestFaces = facesOf("guests", generator.matrix({ firstPerson: 1_000, persons: 60 }), dim);

let stack: TestStack;
let staff: string;
let guests: string;
let env: Record<string, string>;

/** In order on one stack: each test leaves its tasks and indexes for the next. */
beforeAll(async () => {
  stack = await startTestStack({
    dim,
    minListSize: 300,
    // No plan is made meanwhile: every task here was asked for.
    env: { LIM_API_TOKEN: token, LIM_PLANNING_SETTLE_MS: "600000" },
  });
  staff = await importFaces(stack.db, "staff", staffFaces, dim);
  guests = await importFaces(stack.db, "guests", guestFaces, dim);
  const manager = await stack.start("index-manager");
  env = {
    LIM_MANAGER_URL: manager.url,
    LIM_API_TOKEN: token,
    DATABASE_URL: stack.databaseUrl,
    LIM_DESCRIPTOR_DIM: String(dim),
  };
});
afterAll(() => stack?.stop());

/** Runs a command that must succeed; its standard output, parsed. */
async function json<T>(...args: string[]): Promise<T> {
  const run = await lim([...args, "--json"], env);
  expect(run.code, run.stderr).toBe(0);
  return JSON.parse(run.stdout) as T;
}
const tasks = (...args: string[]) =>
  json<{ count: number; tasks: Task[]; next_cursor: string | null }>("tasks", "list", ...args);
const indexes = (...args: string[]) => json<{ count: number; indexes: IndexSummary[] }>("indexes", ...args);

test("without the managers' token a command says which variable to set", async () => {
  const without = await lim(["queue"], { ...env, LIM_API_TOKEN: "" });
  expect(without.code).toBe(2);
  expect(without.stderr).toMatch(/set LIM_API_TOKEN to the one .* \(26009\)/);
  const wrong = await lim(["tasks", "watch", faceIdOf("none", 1)], { ...env, LIM_API_TOKEN: `${token}s` });
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain("refused the token");
});

test("the plan names each list, what would be done and why", async () => {
  const run = await lim(["plan"], env);
  expect(run.code, run.stderr).toBe(0);
  expect(run.stdout).toMatch(/last plan +none/);
  expect(run.stdout).toMatch(new RegExp(`${staff}  create  rebuild  missing`));
  const plan = await json<PlanResponse>("plan", "--list", "staff", "--action", "create");
  expect(plan.decisions.map((decision) => decision.list_id)).toEqual([staff]);
  expect((await json<PlanResponse>("plan", "--action", "skip")).decisions).toEqual([]);
});

test("pending tasks are listed in pages and queued by priority", async () => {
  const low = await json<Task>("tasks", "create", "guests");
  const high = await json<Task>("tasks", "create", "--list", staff, "--priority", "high");
  expect(low).toMatchObject({ status: "pending", priority: "default", content: { list_id: guests } });
  const again = await lim(["tasks", "create", staff], env);
  expect(again.code).toBe(1);
  expect(again.stderr).toContain(high.task_id);

  const queue = await json<{ count: number; tasks: Task[] }>("queue");
  expect(queue.tasks.map((task) => task.task_id)).toEqual([high.task_id, low.task_id]);
  const first = await lim(["queue", "--limit", "1"], env);
  expect(first.stdout).toContain(high.task_id);
  expect(first.stdout).not.toContain(low.task_id);
  expect(first.stderr).toMatch(/the first 1 of 2 pending tasks/);

  expect(await tasks("--statuses", "pending", "--limit", "1")).toMatchObject({
    count: 1,
    tasks: [{ task_id: high.task_id }],
    next_cursor: expect.any(String),
  });
  expect((await tasks("--all", "--since", "1h")).tasks.map((task) => task.task_id)).toEqual([
    high.task_id,
    low.task_id,
  ]);
  expect((await tasks("--until", "1h")).tasks).toEqual([]);
  expect((await tasks("--list", "guests")).tasks).toEqual([low]);
  expect((await lim(["tasks", "show", low.task_id], env)).stdout).toMatch(/priority +default/);

  expect((await lim(["tasks", "cancel", low.task_id], env)).stdout).toContain(`${low.task_id} is removed`);
  expect((await json<{ count: number }>("queue")).count).toBe(1);
});

test("a task is watched to its end, and the exit code tells how it ended", async () => {
  await stack.start("indexer");
  const [queued] = (await tasks("--list", staff)).tasks;
  const watched = await lim(["tasks", "watch", queued?.task_id ?? ""], env);
  expect(watched.code, watched.stderr).toBe(0);
  expect(watched.stdout).toContain(`index ${queued?.task_id} is published`);
  // Which phases it sees, if any, depends on the speed: the master reads progress now and then.
  for (const line of watched.stderr.split("\n").filter(Boolean))
    expect(line).toMatch(/(snapshot|build|verify|store|publish) +\d+%/);
  const built = await json<Task>("tasks", "create", "guests", "--watch");
  expect(built).toMatchObject({ status: "success", content: { list_id: guests } });

  const { listId: empty } = await stack.db.createList({ name: "empty" });
  const failed = await lim(["tasks", "create", empty, "--watch"], env);
  expect(failed.code).toBe(1);
  expect(failed.stdout).toContain("failed: 26105");
  expect((await tasks("--statuses", "error")).tasks).toMatchObject([{ content: { list_id: empty } }]);
  expect((await lim(["tasks", "watch", faceIdOf("none", 1)], env)).stderr).toContain("26002");
});

test("indexes are removed by policy only after a look or with --yes", async () => {
  const [old] = (await indexes("list", "--label", "staff")).indexes;
  const { task_id: newest } = await json<Task>("tasks", "create", "staff", "--watch");
  expect((await indexes("list", "--label", staff)).indexes.map((index) => index.index_id)).toEqual([
    newest,
    old?.index_id,
  ]);
  expect((await indexes("relevant", "staff")).indexes.map((index) => index.index_id)).toEqual([newest]);

  const look = await lim(["indexes", "remove", "--outdated", "--dry-run"], env);
  expect(look.stdout).toContain(old?.index_id);
  expect(look.stdout).toContain("would remove 1 index");
  expect((await indexes("list")).count).toBe(3);
  const refused = await lim(["indexes", "remove", "--all"], env);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toMatch(/would remove 3 indexes: add --yes/);
  expect((await indexes("list")).count).toBe(3);

  const outdated = await lim(["indexes", "remove", "--outdated"], env);
  expect(outdated.stdout).toContain("removed 1 index");
  const guestsGone = await lim(["indexes", "remove", "--all", "--label", "guests", "--yes"], env);
  expect(guestsGone.stdout).toContain("removed 1 index");
  expect((await indexes("list")).indexes.map((index) => index.index_id)).toEqual([newest]);
  expect((await lim(["indexes", "remove", newest], env)).stdout).toContain(`index ${newest} is removed`);
  expect((await lim(["indexes", "remove"], env)).code).toBe(2);
});

test("several tasks are removed only with --yes, and never without a filter", async () => {
  const unfiltered = await lim(["tasks", "remove", "--yes"], env);
  expect(unfiltered.code).toBe(2);
  expect(unfiltered.stderr).toContain("at least one filter");
  const refused = await lim(["tasks", "remove", "--statuses", "success"], env);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toMatch(/would remove 3 tasks: add --yes/);
  const look = await lim(["tasks", "remove", "--statuses", "success", "--dry-run"], env);
  expect(look.stdout).toContain("would remove 3 tasks");
  expect((await tasks("--all")).count).toBe(4);

  const one = await lim(["tasks", "remove", "--statuses", "error"], env);
  expect(one.stdout).toContain("removed 1 task");
  const rest = await lim(["tasks", "remove", "--statuses", "success,error", "--yes"], env);
  expect(rest.stdout).toContain("removed 3 tasks");
  expect((await tasks("--all")).count).toBe(0);
});

test("a watched list is told again when it has changed, until a signal", async () => {
  const { count } = await tasks("--statuses", "success");
  const watching = startProcess({
    name: "lim tasks list --watch",
    script: limMain,
    args: ["tasks", "list", "--statuses", "success", "--watch", "--json"],
    env: { ...env, LIM_HOME: "/nonexistent" },
  });
  await watching.waitForLine(new RegExp(`"count":${count},`), { timeoutMs: 60_000 });
  const { task_id } = await json<Task>("tasks", "create", "guests", "--watch");
  await watching.waitForLine(new RegExp(`"count":${count + 1},.*${task_id}`), { timeoutMs: 60_000 });
  watching.kill("SIGINT");
  expect(await watching.exited).toBe(130);
  await json("tasks", "remove", "--ids", task_id, "--yes");
});

test("retention is shown for people and as JSON", async () => {
  const shown = await lim(["retention"], env);
  expect(shown.code, shown.stderr).toBe(0);
  expect(shown.stdout).toMatch(/indexes +0 would go/);
  expect(await json<RetentionResponse>("retention")).toMatchObject({ tasks: { count: 0, remove: 0 } });
});

test("a manager that is away is an error that names its address, soon", async () => {
  const away = { ...env, LIM_MANAGER_URL: "http://127.0.0.1:9" };
  const run = await lim(["plan"], away);
  expect(run.code).toBe(1);
  expect(run.stderr).toMatch(/from the Index Manager at http:\/\/127\.0\.0\.1:9: is it running/);
});
